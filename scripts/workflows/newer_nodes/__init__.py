"""Stand-ins for nodes of newer ComfyUIs than the one at hand: their inputs and outputs, so that a template with them
can be made and looked at. A host that has them keeps its own."""

from __future__ import annotations


class _Newer:
    CATEGORY = "newer ComfyUI"
    FUNCTION = "execute"

    def execute(self, **inputs):
        raise RuntimeError("This node needs a newer ComfyUI.")


class TextEncodeQwenImage21(_Newer):
    RETURN_TYPES = ("CONDITIONING", "CONDITIONING", "LATENT")
    RETURN_NAMES = ("positive", "negative", "latent")

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        return {
            "required": {
                "clip": ("CLIP",),
                "prompt": ("STRING", {"multiline": True}),
                "negative_prompt": ("STRING", {"multiline": True}),
                "resolution": ("INT", {"default": 1024, "min": 16, "max": 16384}),
            },
            "optional": {"vae": ("VAE",)},
        }


class QwenImage21Cache(_Newer):
    RETURN_TYPES = ("MODEL",)

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        return {"required": {"model": ("MODEL",), "device": (["auto", "gpu", "cpu"],), "dtype": (["default"],)}}


NODE_CLASS_MAPPINGS = {kind.__name__: kind for kind in (TextEncodeQwenImage21, QwenImage21Cache)}
