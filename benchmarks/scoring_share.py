"""How much of a calibration's time is scoring: ``python -m benchmarks.scoring_share``.

SD1.5's U-Net at its published size, 4 steps at 512 × 512, against CLIPScore and CLIP-IQA of a ViT-L/14: random weights,
which take the same time. Decoding is left out, which makes the share look larger than it is.
"""

from __future__ import annotations

import statistics
import time

import torch

from .in_host import import_host
from .networks import families, randomised
from .record import record

STEPS, SIDE, RUNS = 4, 512, 3
TARGET = 0.15


def seconds(work) -> float:
    """The median of some runs after a warm-up."""
    work()
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


@torch.inference_mode()
def main() -> None:
    import_host()
    import open_clip

    make, _ = families("cpu", torch.float32)["SD1.5"]
    network = randomised(make()).eval()
    latent, times, text = torch.randn(1, 4, SIDE // 8, SIDE // 8), torch.tensor([500.0]), torch.randn(1, 77, 768)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    step = seconds(lambda: network(latent, times, context=text))
    clip = open_clip.create_model("ViT-L-14", pretrained=None).eval()
    picture, words = torch.rand(1, 3, 224, 224), open_clip.get_tokenizer("ViT-L-14")(["a red fox in the snow"])
    score = seconds(lambda: (clip.encode_image(picture), clip.encode_text(words)))
    share = score / (STEPS * step + score)
    record(
        "scoring_share",
        {
            "model": "SD1.5's U-Net, float32, random weights",
            "parameters": parameters,
            "seconds_per_step": round(step, 2),
            "steps": STEPS,
            "scorer": "ViT-L/14: one picture, one text",
            "seconds_to_score": round(score, 3),
            "share": round(share, 3),
            "target": TARGET,
        },
    )


if __name__ == "__main__":
    main()
