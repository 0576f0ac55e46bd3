"""Batches on the host: what counts as too little memory there, and what is done about it."""

from __future__ import annotations

import pytest


class Shortage(Exception):
    """What a device raises."""


@pytest.fixture
def management(monkeypatch):
    """The host's view of memory, with errors of a device of its own."""
    import comfy.model_management

    monkeypatch.setattr(comfy.model_management, "OOM_EXCEPTION", Shortage)
    return comfy.model_management


def test_the_cpu_s_own_shortages_are_known(pack, management):
    is_shortage = pack("nodes.host.memory").is_shortage
    assert is_shortage(MemoryError())
    assert is_shortage(RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 4 bytes."))
    assert not is_shortage(RuntimeError("shapes differ"))
    assert not is_shortage(ValueError("not enough memory"))


def test_a_device_s_shortage_is_what_the_host_says(pack, management, monkeypatch):
    is_shortage = pack("nodes.host.memory").is_shortage
    late = ValueError("out of memory, said later")
    monkeypatch.setattr(management, "is_oom", lambda error: error is late, raising=False)
    assert is_shortage(late)
    assert not is_shortage(Shortage())


def test_hosts_that_say_nothing_have_an_error_of_their_own(pack, management, monkeypatch):
    is_shortage = pack("nodes.host.memory").is_shortage
    monkeypatch.delattr(management, "is_oom", raising=False)
    assert is_shortage(Shortage())
    assert not is_shortage(ValueError())
    monkeypatch.setattr(management, "OOM_EXCEPTION", Exception)  # without a device
    assert not is_shortage(ValueError())
    monkeypatch.delattr(management, "OOM_EXCEPTION")
    assert not is_shortage(ValueError())


def test_a_batch_that_does_not_fit_is_halved_and_said(pack, management, caplog):
    parts = []

    def work(start: int, end: int) -> range:
        parts.append((start, end))
        if end - start > 2:
            raise MemoryError
        return range(start, end)

    assert pack("nodes.host.memory").Batches(5).run(work, 5) == [range(2), range(2, 4), range(4, 5)]
    assert parts == [(0, 5), (0, 2), (2, 4), (4, 5)]
    assert "out of memory, going on with 2 pictures at once" in caplog.text


def test_a_cancel_takes_effect_between_batches(pack, management):
    def work(start: int, end: int) -> int:
        management.interrupt_current_processing()
        return start

    with pytest.raises(management.InterruptProcessingException):
        pack("nodes.host.memory").Batches(1).run(work, 2)
