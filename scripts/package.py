"""The package as the registry gets it: built, checked, and loaded in a ComfyUI that has nothing else.

Run by `scripts/dev.py package` in the prepared environment: `python -m scripts.package --host <ComfyUI>`.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import processes, requirements, server
from .client import Client, Prompt
from .errors import DevError
from .host import Host, host_at
from .layout import DIST, PACK_NAME, ROOT
from .scan import Finding, scan

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest's own dependency there

GOLDEN = ROOT / "tests" / "golden" / "object_info.json"
MOST_BYTES = 20 * 2**20
ICON_PIXELS, BANNER_RATIO = 400, 21 / 9

LOADED = ("calibration/", "demo/", "example_workflows/", "locales/", "nodes/", "presets/", "qsched_core/", "subgraphs/")
LOADED += ("web/", "__init__.py", "pyproject.toml", "requirements.txt", "LICENSE", "README.md")
"""What the host, the registry or a user reads."""

LEFT_OUT = ("demo/drawings.py", "demo/train.py", "demo/training/")
UNWANTED = ("tests/", "benchmarks/", "scripts/", ".ci/", ".github/", "docs/", "output/", "dist/")

ALLOWED = {
    ("calibration/metrics/pyiqa.py", "socket"): "it keeps pyiqa from finding any server; it opens no connection",
    ("nodes/library/card.py", "base64.b64decode"): "a card's thumbnail; the bytes go to the picture reader alone",
    (
        "nodes/library/picture.py",
        "base64.b64decode",
    ): "the preset in a shared picture; the bytes go to the preset's checks alone",
}
"""Findings of the scan that are right as they are, and why: (file, name)."""

REGISTRY_CLASSIFIERS = {
    "Operating System": {"OS Independent", "Microsoft :: Windows", "POSIX :: Linux", "MacOS"},
    "Environment": {
        *("GPU :: NVIDIA CUDA", "GPU :: AMD ROCm", "GPU :: Intel Arc", "GPU :: Apple Metal", "NPU :: Huawei Ascend"),
    },
}
"""One that is not among these, and the registry drops all of its kind."""

_VERSIONS = re.compile(r"(?:==|>=|<=|!=|~=|<>|>|<|=)?\s*\d+\.\d+\.\d+(?:-[a-zA-Z0-9]+)?")

OURS_TO_LIST = ("sampler_name", "scheduler", "preset_name", "model_name")
"""Inputs whose choices belong to the machine."""

PROBE = '''"""Tells which modules come from the package's folder."""
import sys

from aiohttp import web
from server import PromptServer

NODE_CLASS_MAPPINGS = {}


@PromptServer.instance.routes.get("/probe")
async def probe(request):
    files = [getattr(module, "__file__", None) or "" for module in list(sys.modules.values())]
    return web.json_response([file for file in files if "/custom_nodes/%s/" in file.replace("\\\\", "/")])
''' % (PACK_NAME)  # noqa: UP031  (braces are the text's own)


class PackageError(DevError):
    """The package is not fit to be published."""


@dataclass(frozen=True)
class Package:
    """A zip, the files in it, and what of them is not committed."""

    path: Path
    files: Sequence[str]
    uncommitted: Sequence[str]

    @property
    def size(self) -> int:
        return self.path.stat().st_size


def make(host: Host, python: Path, into: Path = DIST) -> Package:
    """Build, check and try; the package is left in ``into``.

    Raises:
        PackageError: with everything that is wrong.
    """
    metadata = read_metadata()
    package = build(into / f"{PACK_NAME}-{metadata['project']['version']}.zip")
    print(f"{package.path.name}: {len(package.files)} files, {package.size / 2**20:.2f} MB", flush=True)
    if package.uncommitted:
        print(f"not committed yet: {', '.join(package.uncommitted)}")
    require([*metadata_faults(metadata, package.files), *package_faults(package)])
    for (path, name), reason in ALLOWED.items():
        print(f"allowed: {name} in {path} ({reason})")
    print("Loading it in a ComfyUI that has nothing else …", flush=True)
    require(try_out(package.path, host, python))
    print("loaded, its nodes are the promised ones, and a graph ran")
    return package


def require(faults: Iterable[str]) -> None:
    """Raises PackageError if there are any."""
    lines = list(faults)
    if lines:
        raise PackageError("The package is not fit to be published:\n  " + "\n  ".join(lines))


def read_metadata(path: Path = ROOT / "pyproject.toml") -> dict[str, Any]:
    return tomllib.loads(path.read_text("utf-8"))


def build(path: Path, root: Path = ROOT) -> Package:
    """Zip what the registry's tool would: files that git knows, or would with the next commit, less .comfyignore.

    The same files make the same bytes.
    """
    tracked = _git(root, "--cached")
    new = _git(root, "--others", "--exclude-standard")
    ignored = _git(root, "--cached", "--others", "--ignored", "--exclude-from=.comfyignore")
    files = sorted(name for name in (tracked | new) - ignored if (root / name).is_file())
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name in files:
            entry = zipfile.ZipInfo(name)  # of 1980: a file's own date would make other bytes
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o100644 << 16
            archive.writestr(entry, (root / name).read_bytes(), compresslevel=9)
    return Package(path, files, sorted(set(files) & new))


def metadata_faults(metadata: Mapping[str, Any], files: Iterable[str], root: Path = ROOT) -> list[str]:
    """What the registry would refuse or drop without a word."""
    project, comfy = metadata["project"], metadata["tool"]["comfy"]
    faults = []

    def check(fine: object, text: str) -> None:
        if not fine:
            faults.append(f"pyproject.toml: {text}")

    check(project["name"] == PACK_NAME and re.fullmatch(r"[a-z][a-z0-9-]*", PACK_NAME), "name")
    check(re.fullmatch(r"\d+\.\d+\.\d+", project["version"]), f"version {project['version']} is not x.y.z")
    check(20 <= len(project["description"]) <= 300, "description of 20 to 300 characters")
    check(project["license"].get("file") in set(files), "the licence's file is in the package")
    check(project["requires-python"] == ">=3.10", "requires-python")
    dependencies = requirements.lines((root / "requirements.txt").read_text("utf-8"))
    are_equal = project["dependencies"] == dependencies
    check(are_equal, "dependencies differ from requirements.txt, which is what is installed")
    check(not [name for name in dependencies if name.startswith("torch")], "torch is ComfyUI's")
    for kind, names in REGISTRY_CLASSIFIERS.items():
        start = f"{kind} :: "
        own = {text.removeprefix(start) for text in project["classifiers"] if text.startswith(start)}
        check(own, f"a classifier {kind} :: …")
        check(own <= names, f"classifiers {kind} :: {', '.join(own - names)}")
    for name in ("Homepage", "Documentation", "Repository", "Issues", "Changelog"):
        check(str(project["urls"].get(name)).startswith("https://github.com/"), f"url {name}")
    check(re.fullmatch(r"[a-z][a-z0-9-]*", comfy["PublisherId"]), "PublisherId")
    check(comfy["DisplayName"], "DisplayName")
    parts = [part.strip() for part in comfy["requires-comfyui"].split(",")]
    check(all(_VERSIONS.fullmatch(part) for part in parts), "requires-comfyui")
    check("web" not in comfy, "web is set by WEB_DIRECTORY")
    for name, fits in (("Icon", _is_icon), ("Banner", _is_banner)):
        address = comfy.get(name, "")
        picture = root / address.partition("/main/")[2]
        is_ours = address.startswith(f"https://raw.githubusercontent.com/{PACK_NAME}/") and picture.is_file()
        check(is_ours, f"{name} is not a picture of the repository")
        check(is_ours and picture.stat().st_size < 200_000 and fits(_size_of(picture)), f"{name} has another size")
    return faults


def package_faults(package: Package, root: Path = ROOT) -> list[str]:
    """What is wrong with the files themselves."""
    faults = [f"{package.size / 2**20:.1f} MB are more than 20"] if package.size > MOST_BYTES else []
    faults += [f"{name} does not belong in it" for name in package.files if name.startswith(UNWANTED)]
    names = _git(root, "--cached") | _git(root, "--others", "--exclude-standard")
    there = {name for name in names if name.startswith(LOADED) and (root / name).is_file()}
    missing = sorted(name for name in there - set(package.files) if not name.startswith(LEFT_OUT))
    faults += [f"{name} is missing" for name in missing]
    return faults + [str(finding) for finding in findings(package.path) if not _is_allowed(finding)]


def findings(path: Path) -> list[Finding]:
    """What the registry's scan would say of a zip."""
    with zipfile.ZipFile(path) as archive:
        scripts = [name for name in archive.namelist() if name.endswith((".py", ".js", ".mjs"))]
        return [finding for name in scripts for finding in scan(name, archive.read(name).decode("utf-8"))]


def try_out(path: Path, host: Host, python: Path) -> list[str]:
    """What goes wrong when the zip is unpacked into an empty ComfyUI, as the registry's clients do it, and used."""
    with tempfile.TemporaryDirectory(prefix="q-sched-package-") as folder:
        base = Path(folder).resolve()
        with zipfile.ZipFile(path) as archive:
            archive.extractall(base / "custom_nodes" / PACK_NAME)
        probe = base / "custom_nodes" / "probe"
        probe.mkdir()
        (probe / "__init__.py").write_text(PROBE, "utf-8")
        with server.running(host, python, pack=None, base=base) as comfy:
            faults = complaints(comfy.log_text())
            faults += differences(json.loads(GOLDEN.read_text("utf-8")), definitions(comfy.client))
            comfy.client.run(small_graph(), timeout=600)
            twice = Counter(comfy.client.get("/probe"))
            if not twice:
                faults.append("no module of the package is loaded")
            faults += [f"{file} was imported {count} times" for file, count in twice.items() if count > 1]
            pages = comfy.client.get("/extensions")
            if f"/extensions/{PACK_NAME}/qsched.js" not in pages:
                faults.append(f"the page does not get qsched.js: {[name for name in pages if PACK_NAME in name]}")
        return faults


def complaints(log: str) -> list[str]:
    """Lines in which a starting host warns of us."""
    ours = [line for line in log.splitlines() if PACK_NAME in line.lower() or "qsched" in line.lower()]
    # Its table of import times names the folder, which is ours too.
    return [f"log: {line}" for line in ours if re.search(r"warn|error|fail|exception|traceback", line.lower())]


def definitions(client: Client) -> dict[str, Any]:
    """Our part of /object_info, without what this machine puts into lists."""
    nodes = {name: info for name, info in client.object_info().items() if name.startswith("QSched")}
    for info in nodes.values():
        for group in info["input"].values():
            for key, value in group.items():
                if key in OURS_TO_LIST:
                    value[1]["options"] = ["the host's own list"]
    return dict(sorted(nodes.items()))


def differences(golden: Mapping[str, Any], nodes: Mapping[str, Any]) -> list[str]:
    """Nodes that are not as promised, or not promised."""
    faults = [f"node {name} is missing" for name in golden if name not in nodes]
    faults += [f"node {name} is not in {GOLDEN.name}" for name in nodes if name not in golden]
    for name in golden.keys() & nodes.keys():
        keys = [key for key in golden[name] if golden[name][key] != nodes[name].get(key)]
        if keys:
            faults.append(f"node {name} differs from {GOLDEN.name} in {', '.join(keys)}")
    return sorted(faults)


def small_graph() -> Prompt:
    """A picture by the demo model, quantised, and the environment check."""
    sampling = {"seed": 1, "steps": 4, "cfg": 1.0, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0}
    links = {"model": ["2", 0], "positive": ["3", 0], "negative": ["3", 0], "latent_image": ["4", 0]}
    nodes = {
        "1": ("QSchedDemoModel", {}),
        "2": ("QSchedQuantizeModel", {"model": ["1", 0], "format": "w4a8", "group_size": "format's own"}),
        "3": ("CLIPTextEncode", {"clip": ["1", 1], "text": "a large apple on a white background"}),
        "4": ("EmptySD3LatentImage", {"width": 64, "height": 64, "batch_size": 1}),
        "5": ("QSchedSampler", {**sampling, **links, "strength": 1.0, "if_preset_differs": "resample"}),
        "6": ("VAEDecode", {"samples": ["5", 0], "vae": ["1", 2]}),
        "7": ("SaveImage", {"images": ["6", 0], "filename_prefix": "package"}),
        "8": ("QSchedCheck", {}),
    }
    nodes["2"][1].update(include="", exclude="")
    return {key: {"class_type": kind, "inputs": inputs} for key, (kind, inputs) in nodes.items()}


def _is_allowed(finding: Finding) -> bool:
    return (finding.path, finding.name) in ALLOWED


def _size_of(path: Path) -> tuple[int, int]:
    """Of a PNG, in pixels: its first chunk."""
    head = path.read_bytes()[:24]
    if head[:8] != b"\x89PNG\r\n\x1a\n":
        return 0, 0
    return int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")


def _is_icon(size: tuple[int, int]) -> bool:
    return 0 < size[0] == size[1] <= ICON_PIXELS


def _is_banner(size: tuple[int, int]) -> bool:
    return size[1] > 0 and abs(size[0] / size[1] - BANNER_RATIO) < 0.01


def _git(root: Path, *options: str) -> set[str]:
    command = ["git", "ls-files", "-z", *options]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, encoding="utf-8")
    if done.returncode:
        raise PackageError(f"git must tell which files belong to the package: {done.stderr.strip()}")
    return set(filter(None, done.stdout.split("\0")))


def _main() -> int:
    parser = argparse.ArgumentParser(prog="scripts.package", description="Build, check and try the package.")
    parser.add_argument("--host", type=Path, required=True, help="the ComfyUI folder")
    arguments = parser.parse_args()

    def job() -> None:
        package = make(host_at(arguments.host, "--host"), Path(sys.executable))
        print(f"package   {package.path.relative_to(ROOT)}")

    return processes.run_script(job)


if __name__ == "__main__":
    sys.exit(_main())
