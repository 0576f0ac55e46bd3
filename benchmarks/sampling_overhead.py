"""What Q-Sched adds to a sampling run: ``python -m benchmarks.sampling_overhead`` in the environment of ``make env``.

Stock and driven runs take turns, same steps, noise and model; the ratio is the median over pairs. Once with a U-Net
of SD1.5's widths, whose steps take hundreds of milliseconds, and once with a toy, where all that is left is ours.
One thread, because two fight over a machine's caches.
The first run of a sampler on a schedule also rehearses it; that is timed apart, because later runs do not.
"""

from __future__ import annotations

import importlib
import statistics
import time
import warnings

import torch

from .in_host import import_host, import_pack
from .record import record

STEPS = 4
SAMPLERS = ("euler", "euler_ancestral", "res_multistep", "dpmpp_2m_sde")
MODELS = {"SD1.5 widths, 128x128": (320, 16, 24), "toy, 64x64": (32, 8, 100)}
"""Channels, latent size, pairs of runs."""


def unet(channels: int):
    """A MODEL with random weights, flow prediction."""
    import comfy.model_base
    import comfy.model_management
    import comfy.model_patcher
    import comfy.supported_models

    config = comfy.supported_models.SD15(
        {
            "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": channels,
            "num_res_blocks": [1, 1], "channel_mult": [1, 2], "transformer_depth": [1, 1],
            "transformer_depth_output": [1, 1, 1, 1], "transformer_depth_middle": 1, "context_dim": 768,
            "num_heads": 8, "use_spatial_transformer": True, "use_linear_in_transformer": False,
            "adm_in_channels": None, "legacy": False, "dtype": torch.float32,
        }
    )  # fmt: skip
    config.set_inference_dtype(torch.float32, None)
    torch.manual_seed(0)
    base = comfy.model_base.BaseModel(config, comfy.model_base.ModelType.FLOW)
    for parameter in base.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    management = comfy.model_management
    return comfy.model_patcher.ModelPatcher(base, management.get_torch_device(), management.unet_offload_device())


def main() -> None:
    warnings.simplefilter("ignore")  # torchsde's, of stock samplers
    import_host()
    import_pack()
    patch, core = importlib.import_module("pack.nodes.sampling.patch"), importlib.import_module("pack.qsched_core")
    import comfy.sample
    import comfy.samplers

    rehearsal = importlib.import_module("pack.nodes.sampling.dry_run")
    torch.set_num_threads(1)
    result = {"steps": STEPS, "models": {}}
    with torch.inference_mode():
        for title, (channels, size, pairs) in MODELS.items():
            model = unet(channels)
            sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "simple", STEPS)
            preset_model = patch.apply_coefficients(
                model, core.Coefficients.ramp(STEPS, c_eps=(0.95, 1.05)), sigmas.tolist()
            )
            generator = torch.Generator().manual_seed(0)
            noise = torch.randn(1, 4, size, size, generator=generator)
            texts = [[torch.randn(1, 77, 768, generator=generator), {}]]

            def run(which, name: str, noise=noise, texts=texts, sigmas=sigmas) -> float:
                sampler = comfy.samplers.sampler_object(name)
                start = time.perf_counter()
                comfy.sample.sample_custom(
                    which, noise, 1.0, sampler, sigmas, texts, texts, torch.zeros_like(noise), disable_pbar=True, seed=1
                )
                return time.perf_counter() - start

            rows = result["models"][title] = {}
            every: list[float] = []
            for name in SAMPLERS:
                run(model, name)
                rehearsal._rehearsals.clear()
                first = run(preset_model, name)
                stock, ours = [], []
                for i in range(pairs):
                    for which, times in ((model, stock), (preset_model, ours))[:: 1 if i % 2 else -1]:
                        times.append(run(which, name))
                ratios = [b / a for a, b in zip(stock, ours, strict=True)]
                every += ratios
                extra = [b - a for a, b in zip(stock, ours, strict=True)]
                rows[name] = {
                    "pairs": pairs,
                    "stock_ms_per_step": round(1000 * statistics.median(stock) / STEPS, 2),
                    "ratio_median": round(statistics.median(ratios), 4),
                    "ratio_quartiles": [round(value, 4) for value in statistics.quantiles(ratios, n=4)[::2]],
                    "extra_ms_per_step_median": round(1000 * statistics.median(extra) / STEPS, 3),
                    "first_run_extra_ms": round(1000 * (first - statistics.median(ours)), 1),
                }
                print(title, name, rows[name], flush=True)
            rows["all"] = {"pairs": len(every), "ratio_median": round(statistics.median(every), 4)}
    record("sampling_overhead", result)


if __name__ == "__main__":
    main()
