"""The training loop: stopped at any step and started again, it gives the same weights as a run that was let alone."""

from __future__ import annotations

import json
import time

import pytest
import torch
from exactness import differ, same_bits
from torch import nn

from demo.training import loop
from demo.training.loop import Schedule, Workshop, train

SCHEDULE = Schedule(12, 1e-2, warm_up=3)


class Stopped(Exception):
    """What stands for a killed process: nothing after it runs."""


class Net(nn.Module):
    """A matrix that Muon takes, and parameters of AdamW, a running mean among the buffers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3))


def run(folder, stop_at: int | None = None, orthogonal: bool = True) -> dict[str, torch.Tensor]:
    net = Net()

    def loss(step: int, generator: torch.Generator):
        if step == stop_at:
            raise Stopped
        x = torch.randn(8, 4, generator=generator)
        return (net.blocks(x) - x[:, :3]).square().mean(), {}

    folder.mkdir(exist_ok=True)
    train(Workshop(folder, time.monotonic()), "net", net, SCHEDULE, loss, orthogonal=orthogonal, log_every=1)
    return net.state_dict()


@pytest.fixture
def every_step(monkeypatch):
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1)


@pytest.mark.parametrize("orthogonal", [True, False])
@pytest.mark.parametrize("stop_at", [1, 5, 11])
def test_a_stopped_run_goes_on_to_the_same_weights(tmp_path, every_step, stop_at, orthogonal):
    whole = run(tmp_path / "whole", orthogonal=orthogonal)
    with pytest.raises(Stopped):
        run(tmp_path / "parts", stop_at, orthogonal)
    resumed = run(tmp_path / "parts", orthogonal=orthogonal)
    assert all(same_bits(whole[name], resumed[name]) for name in whole)


def test_a_run_stopped_before_its_first_checkpoint_begins_anew(tmp_path):
    whole = run(tmp_path / "whole")
    with pytest.raises(Stopped):
        run(tmp_path / "parts", 5)
    assert not (tmp_path / "parts" / "net.pt").exists()
    resumed = run(tmp_path / "parts")
    assert all(same_bits(whole[name], resumed[name]) for name in whole)


def test_a_checkpoint_that_was_half_written_is_not_read(tmp_path, every_step):
    whole = run(tmp_path / "whole")
    with pytest.raises(Stopped):
        run(tmp_path / "parts", 5)
    (tmp_path / "parts" / "net.tmp").write_bytes(b"half a checkpoint")
    resumed = run(tmp_path / "parts")
    assert all(same_bits(whole[name], resumed[name]) for name in whole)


def test_a_finished_stage_is_only_loaded(tmp_path):
    first = run(tmp_path)
    log = (tmp_path / "log.jsonl").read_text("utf-8")
    assert [json.loads(line)["step"] for line in log.splitlines()] == list(range(12))
    again = run(tmp_path, stop_at=0)
    assert all(same_bits(first[name], again[name]) for name in first)
    assert (tmp_path / "log.jsonl").read_text("utf-8") == log


def test_muon_takes_the_matrices_of_blocks_alone(tmp_path):
    with_muon, without = run(tmp_path / "a"), run(tmp_path / "b", orthogonal=False)
    assert differ(with_muon["blocks.0.weight"], without["blocks.0.weight"])
    adam, muon = loop.optimisers(Net(), orthogonal=True)
    assert [p.ndim for group in muon.param_groups for p in group["params"]] == [2, 2]
    assert {p.ndim for group in adam.param_groups for p in group["params"]} == {1}


def test_steps_may_be_raised_until_the_descent_begins():
    short, long = Schedule(100, 1.0, warm_up=10), Schedule(300, 1.0, warm_up=10)
    assert [short.factor(i) for i in range(61)] == [long.factor(i) for i in range(61)]
    assert short.factor(0) == 0.1
    assert short.factor(60) == 1.0
    assert 0.02 <= short.factor(99) < 0.03
    assert all(short.factor(i) >= short.factor(i + 1) for i in range(10, 99))


@torch.no_grad()
def test_uneven_channels_leave_the_function_and_are_harder_to_round():
    pytest.importorskip("diffusers")
    from diffusers import FluxTransformer2DModel

    from demo.networks import FLUX_CONFIG, TEXT_WIDTH
    from demo.training.channels import SPREAD, spread_channels

    torch.manual_seed(0)
    net = FluxTransformer2DModel(**FLUX_CONFIG).eval()
    inputs = {
        "hidden_states": torch.randn(1, 4, 64),
        "timestep": torch.tensor([0.5]),
        "encoder_hidden_states": torch.randn(1, 3, TEXT_WIDTH),
        "pooled_projections": torch.randn(1, TEXT_WIDTH),
        "img_ids": torch.zeros(4, 3),
        "txt_ids": torch.zeros(3, 3),
    }
    layers = [net.transformer_blocks[0].attn.to_q, net.transformer_blocks[0].ff.net[0].proj]
    layers += [net.transformer_blocks[0].ff_context.net[0].proj, net.single_transformer_blocks[2].proj_mlp]
    before, even = net(**inputs).sample, [layer.weight.abs().amax(0) for layer in layers]
    spread_channels(net)
    torch.testing.assert_close(net(**inputs).sample, before, rtol=1e-4, atol=1e-4)
    for layer, old in zip(layers, even, strict=True):
        new = layer.weight.abs().amax(0)
        assert new.max() / new.median() > 3 > 1.5 > old.max() / old.median()
    spread_channels(net, -SPREAD)
    for layer, old in zip(layers, even, strict=True):
        torch.testing.assert_close(layer.weight.abs().amax(0), old, rtol=1e-5, atol=0)
