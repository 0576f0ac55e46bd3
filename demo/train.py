"""Train the whole demo from nothing on two CPU cores: ``python -m demo.train --help``.

Two lanes, one core each: the painter; the decoder and the judges. Every stage
resumes from its own checkpoint; the same seeds give the same weights on one machine. At the end the nets are
written to ``demo/weights`` with their held-out figures.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from pathlib import Path

import torch

from .training.autoencoder import Codec, train_decoder
from .training.bank import make_damaged
from .training.channels import spread_channels
from .training.evaluate import codec_figures, held_out_figures, judge_figures
from .training.export import export
from .training.flow import Painter, train_flow
from .training.loop import Schedule, Workshop
from .training.scorers import train_attribute_net, train_dual_encoder, train_quality_net

DEFAULT_FOLDER = Path(__file__).resolve().parent.parent / ".cache" / "demo-training"


def painter_lane(shop: Workshop) -> Painter:
    return train_flow(shop, Schedule(5500, 2e-3, warm_up=200))


def judges_lane(shop: Workshop) -> tuple[Codec, torch.nn.Module, torch.nn.Module, torch.nn.Module]:
    """The decoder, then the nets that look at pictures, which need pictures that it has damaged."""
    codec = train_decoder(shop, Schedule(8000, 1e-3))
    bank = make_damaged(shop, codec)
    attributes = train_attribute_net(shop, bank, Schedule(2000, 1e-3))
    quality = train_quality_net(shop, bank, Schedule(1400, 3e-3))
    return codec, attributes, quality, train_dual_encoder(shop, bank, Schedule(2500, 1.5e-3))


def _run_lane(lane, shop: Workshop) -> None:
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    lane(shop)


def main() -> None:
    arguments = argparse.ArgumentParser(prog="python -m demo.train", description=__doc__)
    arguments.add_argument(
        "--folder", type=Path, default=DEFAULT_FOLDER, help="checkpoints and log (default: %(default)s)"
    )
    options = arguments.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    shop = Workshop(options.folder, time.monotonic())
    spawn = multiprocessing.get_context("spawn")
    lanes = [spawn.Process(target=_run_lane, args=(lane, shop)) for lane in (painter_lane, judges_lane)]
    for process in lanes:
        process.start()
    for process in lanes:
        process.join()
    if any(process.exitcode for process in lanes):
        raise SystemExit("A lane failed; its error is above. The same command goes on from the last checkpoint.")
    painter = painter_lane(shop)
    spread_channels(painter.flux)
    codec, attributes, quality, dual = judges_lane(shop)
    figures = [
        codec_figures(codec),
        judge_figures(attributes, quality, dual),
        *({"net": "painter", **held_out_figures(painter, codec, attributes, quality, steps)} for steps in (4, 12)),
    ]
    for figure in figures:
        shop.log("held out", **figure)
    export(shop, painter, codec, {"attributes": attributes, "quality": quality, "dual": dual}, figures)


if __name__ == "__main__":
    main()
