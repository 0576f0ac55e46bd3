"""An image–text network of open_clip: loaded from local files alone, once however many metrics use it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn

from ..core import CalibrationError, DependencyError

CONFIG = "open_clip_config.json"
WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")

SHORTEST, LONGEST, SQUASH = "shortest", "longest", "squash"
"""open_clip's names: cover the square and crop its centre, fit into it and pad with black, or ignore proportions."""

TEXT_BATCH = 256
"""Texts encoded at once; a batch of pictures needs far more memory than these."""

_loaded: WeakValueDictionary[tuple, OpenClip] = WeakValueDictionary()
"""Weak: a network goes when the last metric that uses it goes."""


class OpenClip(nn.Module):
    """Features of pictures and texts; ``clip`` is an open_clip model, ``tokenize`` its tokenizer."""

    def __init__(self, clip: nn.Module, tokenize: Callable[[list[str]], Tensor]):
        super().__init__()
        self.clip, self._tokenize = clip.eval().requires_grad_(False), tokenize

    def encode_image(self, pictures: Tensor, fit: str | None = None) -> Tensor:
        """Features (B, D) of length 1 of pictures (B, H, W, 3) in [0, 1]."""
        return self.clip.encode_image(self.prepared(pictures, fit), normalize=True).float()

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Features (N, D) of length 1; a text longer than the model's context is cut, as CLIP does."""
        device = next(self.parameters()).device
        parts = [texts[start : start + TEXT_BATCH] for start in range(0, len(texts), TEXT_BATCH)]
        vectors = [self.clip.encode_text(self._tokenize(list(part)).to(device), normalize=True) for part in parts]
        return torch.cat(vectors).float()

    def exceeds_context(self, text: str) -> bool:
        """Whether ``encode_text`` cuts it: the model's context counts tokens, a begin and an end among them."""
        length, tokenizer = getattr(self._tokenize, "context_length", None), self._tokenize
        if length and hasattr(tokenizer, "encode"):  # open_clip's own
            return len(tokenizer.encode(text)) + 2 > length
        if length and hasattr(tokenizer, "tokenizer"):  # one of the transformers package
            return len(tokenizer.tokenizer(text)["input_ids"]) > length
        return False

    def prepared(self, pictures: Tensor, fit: str | None = None) -> Tensor:
        """(B, 3, h, w) as open_clip's preprocessing makes it: resized, cropped or padded, normalised."""
        from torchvision.transforms import InterpolationMode
        from torchvision.transforms import functional as TF

        config = self.clip.visual.preprocess_cfg
        size = config["size"] if not isinstance(config["size"], int) else (config["size"],) * 2
        fit = fit or config["resize_mode"]
        shape = list(size)
        pictures = pictures.movedim(-1, 1)
        if fit != SQUASH:
            ratios = [target / side for target, side in zip(size, pictures.shape[-2:], strict=True)]
            scale = (max if fit == SHORTEST else min)(ratios)
            shape = [round(side * scale) for side in pictures.shape[-2:]]
        pictures = TF.resize(pictures, shape, InterpolationMode(config["interpolation"]), antialias=True)
        if fit != LONGEST:  # HPSv2, which fits this way, keeps what bicubic interpolation overshoots
            pictures = pictures.clamp(0, 1)
        pictures = TF.center_crop(pictures, list(size))
        return TF.normalize(pictures, config["mean"], config["std"]).to(next(self.parameters()).dtype)


def open_folder(folder: Path) -> OpenClip:
    """The open_clip model of a folder laid out as its hub repositories are: ``open_clip_config.json`` beside
    ``open_clip_model.safetensors`` or ``open_clip_pytorch_model.bin`` (read with ``weights_only``).

    Raises:
        DependencyError: open_clip is not installed.
        CalibrationError: a file is missing, or is not what its name says.
    """
    weights = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    if weights is None or not (folder / CONFIG).is_file():
        raise CalibrationError(f"{folder.name} lacks {CONFIG} or {WEIGHTS[0]}.", "copy both from the model's page")
    open_clip = import_open_clip()

    def load() -> OpenClip:
        place = f"local-dir:{folder}"
        try:
            if "hf_model_name" in open_clip.get_model_config(place)["text_cfg"]:
                raise CalibrationError(f"{folder.name} needs a text tower from the web.", "choose a CLIP without one")
            return OpenClip(open_clip.create_model(place, precision="fp32"), open_clip.get_tokenizer(place))
        except CalibrationError:
            raise
        except Exception as error:  # a foreign file fails in its own way
            raise CalibrationError(
                f"{folder.name[:40]} is no readable open_clip model.", f"copy {CONFIG} and {weights.name} again"
            ) from error

    return _once(weights, load)


def open_checkpoint(
    file: Path,
    where: str,
    convert: Callable[[dict[str, Tensor]], dict[str, Tensor]] | None = None,
    architecture: Mapping | None = None,
) -> OpenClip:
    """A checkpoint without a config: ViT-H/14, or the ``architecture`` given as an open_clip ``model_cfg``.

    ``convert`` brings foreign names to open_clip's; ``where`` tells the user where the file is from.

    Raises:
        DependencyError: open_clip is not installed.
        CalibrationError: no such file, or not this model's weights.
    """
    if not file.is_file():
        raise CalibrationError(f"{file.parent.name[:24]} lacks {file.name[:32]}.", where, file=file.name)
    open_clip = import_open_clip()

    def load() -> OpenClip:
        config = dict(architecture or open_clip.get_model_config("ViT-H-14"))
        with torch.device("meta"):  # 33 s of random numbers less
            clip = open_clip.CLIP(**config)
        state = _tensors(file, where)
        try:
            clip.load_state_dict(convert(state) if convert else state, assign=True)
        except (RuntimeError, KeyError) as error:
            raise CalibrationError(
                f"{file.name[:32]} holds the weights of another model.", where, file=file.name
            ) from error
        length = len(clip.positional_embedding)
        clip.attn_mask = torch.full((length, length), -torch.inf).triu(1)  # the one tensor that is in no checkpoint
        preprocessing = open_clip.transform.PreprocessCfg(size=clip.visual.image_size)
        open_clip.set_model_preprocess_cfg(clip, asdict(preprocessing))
        return OpenClip(clip.float(), open_clip.tokenizer.SimpleTokenizer(context_length=length))

    return _once(file, load)


def _once(file: Path, load: Callable[[], OpenClip]) -> OpenClip:
    file = file.resolve()
    key = (file, file.stat().st_mtime_ns)
    network = _loaded.get(key)
    if network is None:
        network = _loaded[key] = load()
    return network


def _tensors(file: Path, where: str) -> dict[str, Tensor]:
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(file)
        else:
            state = torch.load(file, map_location="cpu", weights_only=True)
            state = state.get("state_dict", state)
        if not all(isinstance(value, Tensor) for value in state.values()):
            raise TypeError("not a table of tensors")
    except Exception as error:  # a foreign file fails in its own way
        raise CalibrationError(
            f"{file.name[:32]} in {file.parent.name[:24]} is no readable checkpoint.", where, file=file.name
        ) from error
    return state


def import_open_clip() -> ModuleType:
    """open_clip, with torchvision and timm: seconds at the first call.

    Raises:
        DependencyError: it is not installed.
    """
    try:
        import open_clip
    except ImportError as error:
        raise DependencyError("this metric needs open_clip.", "pip install open_clip_torch") from error
    return open_clip
