"""For tests only: nodes that stand in for text encoders of many gigabytes, and a demo judge that is ready sooner."""

from __future__ import annotations

import sys
import zlib
from importlib import import_module

import torch
from aiohttp import web
from server import PromptServer


class TestConditioning:
    """What a text encoder would give: tokens of the model's width and, where it is not 0, a pooled vector."""

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        return {
            "required": {
                "text": ("STRING", {"default": ""}),
                "width": ("INT", {"default": 768, "min": 1, "max": 16384}),
                "pooled": ("INT", {"default": 0, "min": 0, "max": 16384}),
            }
        }

    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "encode"
    CATEGORY = "tests"

    def encode(self, text: str, width: int, pooled: int) -> tuple:
        generator = torch.Generator().manual_seed(zlib.crc32(text.encode()))
        tokens = torch.randn(1, 8, width, generator=generator)
        vector = torch.randn(1, pooled, generator=generator) if pooled else None
        return ([[tokens, {"pooled_output": vector}]],)


NODE_CLASS_MAPPINGS = {"TestConditioning": TestConditioning}


def with_few_scenes(prompt: dict) -> dict:
    """Before a graph runs, and not at the start, which loads no such file: the demo's judge compares with fewer drawn
    scenes, which are the same way in a tenth of the time."""
    pack = next(name for name in sys.modules if name.endswith("q-sched"))
    import_module(f"{pack}.demo.judges").REFERENCE_SCENES = 64
    return prompt


PromptServer.instance.add_on_prompt_handler(with_few_scenes)


OPTIONAL = {"optuna", "open_clip", "diffusers"}
imported: list[str] = []


async def note_imports(_: web.Application) -> None:
    imported.extend(sorted(OPTIONAL & sys.modules.keys()))


PromptServer.instance.app.on_startup.append(note_imports)


@PromptServer.instance.routes.get("/test/imported_at_the_start")
async def imported_at_the_start(_: web.Request) -> web.Response:
    return web.json_response(imported)
