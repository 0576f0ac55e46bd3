"""Triton kernels that unpack weights and round tokens: right in Triton's interpreter, tried first, replaceable."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from qsched_core.quant import FORMATS, fused, trial
from qsched_core.quant.decoding import decode
from qsched_core.quant.packing import pack, unpack
from qsched_core.quant.tokens import quantize_tokens

ROOT = Path(__file__).resolve().parents[2]
CPU, CARD = torch.device("cpu"), torch.device("cuda", 7)

INTERPRETED = """
import torch
from qsched_core.quant import FORMATS, fused, resolve_format, trial
from qsched_core.quant.decoding import decode
from qsched_core.quant.packing import pack, unpack
from qsched_core.quant.tokens import quantize_tokens, rounded_tokens

cpu = torch.device("cpu")
print(repr(fused._try_unpacking(cpu) + fused._try_rounding(cpu)))
fused._trusted.update({(fused.UNPACKS, cpu), (fused.ROUNDS, cpu)})
for form in (FORMATS["w4a8"], FORMATS["w3a8"], resolve_format("w4a16", 24), resolve_format("w4a8", 128)):
    for columns in (33, 100, 320):
        weight = torch.randn(3, columns, generator=torch.Generator().manual_seed(columns))
        weight[1] *= 1e-5
        packed = torch.cat([pack(weight, form), torch.zeros(3, 1, dtype=torch.uint8)], dim=1)[:, :-1]  # odd strides
        slow = unpack(packed, columns, form) / 4
        # The interpreter cuts bfloat16 off, which a GPU rounds. float16's subnormals are 6e-8 apart.
        for dtype, relative, absolute in ((torch.bfloat16, 2**-7, 0), (torch.float16, 2**-11 + 1e-6, 3e-8)):
            made = decode(packed, columns, form, dtype, 0.25)
            assert made.shape == slow.shape
            assert ((made.float() - slow).abs() <= relative * slow.abs() + absolute).all(), (form, columns, dtype)
for bits in (4, 8):
    x = torch.randn(2, 3, 100, generator=torch.Generator().manual_seed(bits)).half()
    x[1] = 0
    codes, scale = quantize_tokens(x.double(), bits)
    between = ((x.double() / scale).frac().abs() - 0.5).abs() < 1e-4
    off = (rounded_tokens(x, bits).double() - codes * scale).abs()
    assert (between | (off <= 2**-11 * (codes * scale).abs() + 3e-8)).all()
    assert torch.equal(rounded_tokens(x.clone(), bits, in_place=True), rounded_tokens(x, bits))
assert not trial.failures()
"""


def test_it_is_right_in_tritons_interpreter():
    pytest.importorskip("triton")
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT)}
    run = subprocess.run([sys.executable, "-c", INTERPRETED], env=environment, capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "''"


@pytest.fixture
def fresh(monkeypatch):
    monkeypatch.setattr(trial, "_outcomes", {})
    monkeypatch.setattr(trial, "_failures", {})
    monkeypatch.setattr(fused, "_trusted", set())


@pytest.mark.parametrize("fault", [ImportError("No module named 'triton'"), RuntimeError("no C compiler"), None])
def test_it_is_trusted_where_its_trial_gives_the_slow_weights(fresh, monkeypatch, fault):
    def made(packed, columns, form, dtype, gain):
        if fault is not None:
            raise fault
        return torch.zeros(len(packed), columns, dtype=dtype)

    monkeypatch.setattr(fused, "_decoded", made)
    monkeypatch.setattr(fused, "_try_unpacking", lambda device, there=fused._try_unpacking: there(CPU))
    monkeypatch.setattr(fused, "_try_rounding", lambda device: "")
    fused.prepare(CARD)
    assert fused._trusted == {(fused.ROUNDS, CARD)}
    assert ("it fails here" in trial.outcomes()["triton", fused.UNPACKS, "cuda:7"]) == (fault is not None)
    trial.forget()
    monkeypatch.setattr(fused, "_try_unpacking", lambda device: "")
    fused.prepare(CARD)
    fused.prepare(CPU)
    assert fused._trusted == {(fused.ROUNDS, CARD), (fused.UNPACKS, CARD)}


@pytest.mark.parametrize(("fault", "reason"), [
    (lambda weight: weight, ""), (lambda weight: 1.02 * weight, "its weights of 96 columns are not the slow ones"),
])  # fmt: skip
def test_the_trial_of_unpacking_compares_with_the_slow_weights(monkeypatch, fault, reason):
    """Every row counts, of whatever size."""

    def plain(packed, columns, form, dtype, gain):
        weight = unpack(packed, columns, form, dtype) * gain
        weight[2] = fault(weight[2])
        return weight

    monkeypatch.setattr(fused, "_decoded", plain)
    assert fused._try_unpacking(CPU) == reason


@pytest.mark.parametrize(("fault", "reason"), [
    (lambda tokens, step: tokens, ""),
    (lambda tokens, step: tokens + 1.005 * step, ""),  # a value between two codes
    (lambda tokens, step: tokens + 1.5 * step, "its tokens of 96 columns are not the slow ones"),
    (lambda tokens, step: tokens * 0, "its tokens of 96 columns are not the slow ones"),
])  # fmt: skip
def test_the_trial_of_rounding_compares_with_the_slow_tokens(monkeypatch, fault, reason):
    def plain(x, bits, least):
        codes, scale = quantize_tokens(x.double(), bits)
        tokens = codes * scale
        tokens[1, 5] = fault(tokens[1, 5], scale[1, 0])
        return tokens.to(x.dtype)

    monkeypatch.setattr(fused, "_rounded", plain)
    assert fused._try_rounding(CPU) == reason


def test_a_kernel_that_throws_in_a_run_is_replaced_and_that_is_said_once(fresh, monkeypatch, caplog):
    def made(*arguments):
        raise RuntimeError("out of resources: shared memory")

    form = FORMATS["w4a8"]
    packed = pack(torch.randn(5, 128, generator=torch.Generator().manual_seed(0)), form)
    monkeypatch.setattr(fused, "_decoded", made)
    fused._trusted.add((fused.UNPACKS, CPU))
    for _ in range(2):
        weight = decode(packed, 128, form, torch.float16)
        assert (weight.float() - unpack(packed, 128, form)).abs().max() < 2e-3
    assert fused._trusted == set()
    assert caplog.text.count("out of resources") == 1
    assert list(trial.failures()) == ["the Triton kernel that unpacks weights on cpu"]
