"""What this machine has of what the pack can use, line by line: fine, to be done, or there for those who want more."""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import torch

from .quant.backends import Backend
from .quant.formats import FORMATS
from .quant.trial import failures

OK, TO_DO, OPTIONAL = "OK", "TO DO", "OPTIONAL"
PACK = Path(__file__).resolve().parents[1]

REQUIRED = {
    "open_clip_torch": "scores pictures: CLIPScore, CLIP-IQA, AQ-Map, HPSv2.1, PickScore and the demo's",
    "optuna": "the search",
    "safetensors": "presets",
}
"""What requirements.txt installs, as pip calls it, and what each is for."""

EXTRAS = {
    "pyiqa": "some 70 more picture metrics; non-commercial use only",
    "optimum-quanto": "the backend quanto: w4a16 and w8a16",
    "diffusers": "calibrating outside ComfyUI, from a command line",
    "psutil": "tells on that command line which processes of a study have died; ComfyUI brings it",
    "psycopg": "studies that machines share in a PostgreSQL database",
}
"""Optional packages, as pip calls them, and what each is for."""

_PIP_NAMES = {"psycopg": '"psycopg[binary]"'}
_VERSION = r'(?m)^version = "([^"]+)"'
_ADDRESS = r"(?P<scheme>[A-Za-z0-9+_.-]+)://(?P<secret>.*@)?(?P<place>[^@?#]*)(?:[?#][^@]*)?"


@dataclass(frozen=True)
class Line:
    """One finding. ``state`` is OK, TO_DO or OPTIONAL; the text says what is there, or what to do."""

    state: str
    text: str

    def __str__(self) -> str:
        return f"{self.state:<8}  {self.text}"


Section = tuple[str, Callable[[], Iterable[Line]]]
"""(What is looked at, who looks)."""


def report(sections: Iterable[Section], cancels: tuple[type[BaseException], ...] = ()) -> str:
    """All findings as text, headed by how much is to be done. A section that fails is a finding itself, unless it
    raises one of ``cancels``."""
    lines = [line for name, look in sections for line in _guarded(name, look, cancels)]
    count = sum(line.state == TO_DO for line in lines)
    verdict = f"{count} thing{'s' if count > 1 else ''} to do" if count else "all is fine"
    return "\n".join([f"Q-Sched {pack_version()}: {verdict}", *map(str, lines)])


def _guarded(name: str, look: Callable[[], Iterable[Line]], cancels: tuple[type[BaseException], ...]) -> list[Line]:
    try:
        return list(look())
    except cancels:
        raise
    except Exception as error:  # noqa: BLE001 - whatever is broken here is what the report is for
        why = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        return [Line(TO_DO, f"{name} could not be checked ({why}). Send us this line.")]


def pack_version(folder: Path = PACK) -> str:
    """The version in pyproject.toml, which the registry's package holds too; "unknown" without it.

    One line is looked for: Python 3.10 has no reader of TOML.
    """
    try:
        match = re.search(_VERSION, (folder / "pyproject.toml").read_text("utf-8"))
    except OSError:
        return "unknown"
    return match[1] if match else "unknown"


def versions() -> list[Line]:
    """Python and torch, and for which accelerator torch was built."""
    build = torch.version.hip and f"ROCm {torch.version.hip}" or torch.version.cuda and f"CUDA {torch.version.cuda}"
    old = sys.version_info < (3, 10)
    python = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    return [
        Line(TO_DO, f"{python}: install 3.10 or newer") if old else Line(OK, python),
        Line(OK, f"torch {torch.__version__}, built for {build or 'CPU'}"),
    ]


def packages(pip: str | None = None, version_of: Callable[[str], str] = metadata.version) -> list[Line]:
    """What the pack requires, and what is optional. ``pip`` is the command that installs into this Python."""
    pip = pip or pip_command()
    lines = []
    for name, purpose in {**REQUIRED, **EXTRAS}.items():
        try:
            lines.append(Line(OK, f"{name} {version_of(name)}: {purpose}"))
        except metadata.PackageNotFoundError:
            state = OPTIONAL if name in EXTRAS else TO_DO
            lines.append(Line(state, f"{name} is not installed: {purpose}. Run: {pip} {_PIP_NAMES.get(name, name)}"))
    return lines


def pip_command() -> str:
    """How packages get into the Python that runs now: the portable ComfyUI's is not the one in the user's path."""
    return f'"{sys.executable}" -m pip install'


def quantizer(backend: Backend, device: torch.device) -> list[Line]:
    """The formats that a backend packs here, each tried with a small product, and why not the others."""
    able, unable = [], {}
    for format in FORMATS:
        form = backend.form(format)
        reason = backend.missing(form, device) or backend.trial(form, device)
        if reason:
            unable.setdefault(re.sub(rf"\b{format}\b", "them", reason), []).append(format)
        else:
            able.append(f"{format} (fast)" if backend.fast(form, device) else format)
    parts = [", ".join(able) or "no format"]
    parts += [f"not {', '.join(formats)}: {reason}" for reason, formats in unable.items()]
    return [Line(OK if able else OPTIONAL, f"backend {backend.name} on {device.type}: {'; '.join(parts)}")]


def kernels() -> list[Line]:
    """Kernels that passed their trial and failed later, in a run of this process."""
    text = "{} failed in a run ({}) and is computed the slow way"
    return [Line(OPTIONAL, text.format(*item)) for item in failures().items()]


def kitchen() -> list[Line]:
    """comfy-kitchen and its kernels, which multiply ComfyUI's native formats."""
    try:
        import comfy_kitchen
    except ImportError as error:
        return [Line(TO_DO, f"comfy-kitchen cannot be imported ({error}). Run: {pip_command()} comfy-kitchen")]
    able, unable = [], []
    for name, state in comfy_kitchen.list_backends().items():
        why = "switched off" if state["disabled"] else state["unavailable_reason"]
        if state["available"] and not state["disabled"]:
            able.append(name)
        else:
            unable.append(f"not {name} ({why})")
    kernels = ", ".join([*able, *unable])
    return [Line(OK, f"comfy-kitchen {metadata.version('comfy-kitchen')}, kernels: {kernels}")]


def folder(title: str, path: Path, suffix: str = "", write: bool = True) -> Line:
    """A folder of ours: how many files (that end with ``suffix``) it has and, if we ``write`` there, whether we can."""
    nearest = next(place for place in (path, *path.parents) if place.exists())
    if write and not (nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)):
        return Line(TO_DO, f"{title}: {path} cannot be written. Make {nearest} a folder of yours")
    if not path.exists():
        return Line(OK, f"{title}: {path}, made when first needed")
    count = sum(1 for file in path.rglob(f"*{suffix}") if file.is_file())
    return Line(OK, f"{title}: {path}, {count} file{'' if count == 1 else 's'}")


def storage(address: str | None, variable: str) -> Line:
    """Where studies are kept; of a database's ``address`` neither user nor password is shown."""
    if not address:
        return Line(OK, f"studies are kept on this machine ({variable} is not set)")
    match = re.fullmatch(_ADDRESS, address)
    if match is None:
        return Line(TO_DO, f"{variable} is no address. Set it to scheme://user:password@host/name, or not at all")
    # A "?" before the last "@" begins a password's second half, or a query that may hold one.
    place = "…" if "?" in (match["secret"] or "") else match["place"][:80]
    return Line(OK, f"studies are shared at {match['scheme']}://{place} ({variable})")
