"""What a node says while it runs: the bar, the line under it, and a picture; and a cancel that takes effect there."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch


@pytest.fixture
def page(pack, monkeypatch):
    """What the page gets: (done, total, preview) of bars, and the (text, node) of lines."""
    import comfy.utils
    import server

    page = SimpleNamespace(bars=[], lines=[])
    page.send_progress_text = lambda text, node: page.lines.append((text, node))
    monkeypatch.setattr(server.PromptServer, "instance", page, raising=False)
    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", lambda *bar, node_id: page.bars.append((*bar, node_id)))
    return page


def test_an_update_moves_the_bar_and_says_a_line(pack, page):
    progress = pack("nodes.host.progress").NodeProgress("7", 4)
    progress.update(1, "the <first>")
    progress.update(4)
    assert page.bars == [(1, 4, None, "7"), (4, 4, None, "7")]
    assert page.lines == [("the \u2039first>", "7")]


@pytest.mark.parametrize("total", [(), (0,)], ids=["none given", "nothing"])
def test_a_total_can_be_known_later_and_is_never_nothing(pack, page, total):
    progress = pack("nodes.host.progress").NodeProgress("7", *total)
    progress.update(1)
    progress.update(5, total=5)
    assert [bar[:2] for bar in page.bars] == [(1, 1), (5, 5)]
    assert page.lines == []


def test_a_picture_is_shown_beside_the_bar(pack, page):
    pack("nodes.host.progress").NodeProgress("7", 2).update(1, picture=torch.tensor([[[0.0, 0.5, 2.0]]]))
    ((_, _, (kind, picture, _), _),) = page.bars
    assert (kind, picture.size, picture.getpixel((0, 0))) == ("JPEG", (1, 1), (0, 128, 255))


def test_layers_are_counted(pack, page):
    node = SimpleNamespace(hidden=SimpleNamespace(unique_id="3"))
    on_layer = pack("nodes.host.progress").layer_progress(node)
    on_layer(2, 2)
    assert page.bars == [(2, 2, None, "3")]
    assert page.lines == [("layer 2 of 2", "3")]


def test_a_script_s_node_says_nothing(pack, page):
    pack("nodes.host.progress").NodeProgress(None, 1).update(1, "text")
    assert page.lines == []


def test_a_cancel_takes_effect_before_anything_is_shown(pack, page):
    import comfy.model_management as management

    management.interrupt_current_processing()
    with pytest.raises(management.InterruptProcessingException):
        pack("nodes.host.progress").NodeProgress("7", 4).update(1, "text")
    assert (page.bars, page.lines) == ([], [])
