"""Observations on disk: what a model's layers see on the same prompts is sampled once, and read by every later server.

A file is found by a hash of all that decides what is recorded: the model and its LoRAs, the prompts, the sampling, the
picture size. What has no content to be told by, a function in the model's options for one, makes no hash, and such an
observation is not kept. The folder is bounded, and the observation that was used longest ago goes first.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path

import comfy.weight_adapter
import torch
from torch import Tensor, nn

from ...qsched_core import QuantizationError
from ...qsched_core.quant import Observation, load_observation
from ...qsched_core.quant.input_recorder import CALLS_BYTES, FIT_ROWS, VALUES
from ...qsched_core.quant.observation import CALLS, CORRECTED_CALLS, FORMAT, VERSION
from ...qsched_core.quant.stored_calls import record_of
from ..host.folders import observations_folder
from .patcher import ROOT
from .sources import require_readable
from .study import StudyPrompts
from .twin_model import Originals

MOST_BYTES = 4_000_000_000
"""Of all files together: SDXL's observation takes up to 2.5 GB, the demo's 30 MB."""

FREE_SHARE = 2
"""So many times a file's size has to be free on the disk."""

_PROBED = 64
"""Values of each weight that tell a checkpoint from others: spread over it, since a fine-tune may leave its start."""

_OF_OTHERS = (
    "hook_patches", "injections", "wrappers", "callbacks", "additional_models", "weight_wrapper_patches",
    "forced_hooks", "attachments",
)  # fmt: skip
"""Of the host's patcher: functions and objects of other packs lie there, and no content tells them apart."""


class NoKey(Exception):
    """Something that cannot be told by its content."""


def observation_key(prompts: StudyPrompts, seed: int, **more) -> str:
    """A hash of what decides an observation, "" where that cannot be told. ``more`` are plain values.

    Raises:
        QuantizationError: a model that cannot be observed.
    """
    require_readable(prompts.model.model.diffusion_model)
    digest = hashlib.blake2b(digest_size=16)
    constants = (FORMAT, VERSION, FIT_ROWS, VALUES, CALLS, CORRECTED_CALLS, CALLS_BYTES)
    try:
        _add_model(digest, prompts.model)
        negative = prompts.negative if prompts.recipe.cfg != 1.0 else None
        sampling = [astuple(prompts.recipe), prompts.recipe.falling_sigmas(prompts.model), seed, prompts.latent]
        _add(digest, [constants, sampling, prompts.positive, negative, more])
    except NoKey as reason:
        logging.info("Q-Sched: this observation is not kept, since no key can tell %s.", reason)
        return ""
    return digest.hexdigest()


def find_or_make(
    key: str, prompts: StudyPrompts, seed: int, make: Callable[[], Observation]
) -> tuple[Observation, bool]:
    """(the observation of this ``key``, whether it was read from disk). What ``make()`` gives is kept."""
    observation = _read(key, prompts, seed) if key else None
    if observation is not None:
        return observation, True
    observation = make()
    observation.key = key
    if key:
        _keep(observation)
    return observation, False


def is_kept(observation: Observation) -> bool:
    """Whether the next server finds it."""
    return bool(observation.key) and _path(observation.key).is_file()


def _path(key: str) -> Path:
    return observations_folder() / f"{key}.safetensors"


def _read(key: str, prompts: StudyPrompts, seed: int) -> Observation | None:
    """Checked; None where there is none, or one that is not what its name says."""
    path, model = _path(key), prompts.model
    if not path.is_file():
        return None
    network, original = model.model.diffusion_model, Originals(model)
    try:
        observation = load_observation(path, model.load_device)
        observation.check(network, lambda name, _: original.floats(f"{ROOT}.{name}"))
    except QuantizationError as error:
        logging.warning("Q-Sched: %s is observed anew: %s", path.name, str(error).splitlines()[0])
        return None
    if observation.key != key or observation.calls is None:
        return None
    observation.root, observation.run = network, prompts.sampled(seed)
    path.touch()
    return observation


def _keep(observation: Observation) -> None:
    """Write it, if the folder and the disk have the room, and calls of a host that no file holds are not in it."""
    text, tensors = record_of(observation.calls)
    rows = [value for layer in observation.layers.values() for value in (layer.judged, layer.fitted)]
    size = sum(value.numel() * value.element_size() for value in [*tensors.values(), *rows] if value is not None)
    path = _path(observation.key)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not text or size > MOST_BYTES or FREE_SHARE * size > shutil.disk_usage(path.parent).free:
            return
        _make_room(size)
        observation.save(path)
    except (OSError, QuantizationError) as error:
        logging.warning("Q-Sched: the observation is not kept: %s", str(error).splitlines()[0])


def _make_room(size: int) -> None:
    """Delete those that were used longest ago, until ``size`` bytes more are within the bound."""
    files = {file: file.stat() for file in observations_folder().glob("*.safetensors")}
    total = sum(facts.st_size for facts in files.values())
    for file, facts in sorted(files.items(), key=lambda item: item[1].st_mtime):
        if total + size <= MOST_BYTES:
            return
        try:
            file.unlink()
        except OSError:  # on Windows: it is in use
            continue
        total -= facts.st_size


def _add_model(digest, model) -> None:
    """The checkpoint, what lies on it, and how it computes."""
    for name in _OF_OTHERS:
        if not _is_bare(getattr(model, name, None)):
            raise NoKey(f"the model's {name.replace('_', ' ')}")
    network, original = model.model.diffusion_model, Originals(model)
    kinds = [type(model.model).__name__, type(network).__name__, str(model.model_dtype())]
    _add(digest, [*kinds, str(getattr(model.model, "manual_cast_dtype", None)), model.model_options, model.patches])
    for name, patch in sorted(model.object_patches.items()):
        if not isinstance(patch, nn.Module):
            raise NoKey(f"the patch of {name}")
        _add(digest, [name, [kind.__qualname__ for kind in type(patch).__mro__], dict(patch.state_dict())])
    for name, value in network.named_parameters():
        whole = f"{ROOT}.{name}"
        value = original(whole)
        bytes_ = getattr(value, "_qdata", value)  # of the host's quantised tensors: unpacking all of them takes long
        flat = (bytes_ if type(bytes_.data) is Tensor else original.floats(whole)).detach().flatten()
        _add(digest, [name, tuple(value.shape), flat[:: max(1, flat.numel() // _PROBED)][:_PROBED]])


def _is_bare(value) -> bool:
    """Whether nothing is in it, however deep."""
    return all(map(_is_bare, value.values())) if isinstance(value, dict) else not value


def _add(digest, value) -> None:
    """Every kind writes its name and its length first, so that no two nests write the same bytes."""
    if value is None or type(value) in (bool, int, float, str, torch.dtype):
        digest.update(f"{type(value).__name__} {value!r};".encode())
    elif isinstance(value, Tensor) and type(value.data) is Tensor and not value.is_meta:
        plain = value.detach().to("cpu").contiguous()
        digest.update(f"tensor {plain.dtype} {tuple(plain.shape)};".encode())
        digest.update(plain.flatten().view(torch.uint8).numpy())
    elif type(value) in (list, tuple, set, dict):
        items = sorted(value, key=repr) if type(value) in (set, dict) else value
        digest.update(f"{type(value).__name__} {len(value)};".encode())
        for item in items:
            _add(digest, [item, value[item]] if type(value) is dict else item)
    elif isinstance(value, comfy.weight_adapter.WeightAdapterBase):
        _add(digest, [type(value).__name__, vars(value)])
    else:
        raise NoKey(f"a {type(value).__name__}")
