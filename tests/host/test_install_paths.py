"""The ways by which the pack comes to people, each by the program that they use, and what the registry says of it.

The programs are pinned in requirements-tools.txt and live in an environment of their own; without a network to get them
from, these tests are skipped.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from scripts import environment, package
from scripts import server as comfyui
from scripts.host import Host
from scripts.layout import PACK_NAME, ROOT


@pytest.fixture(scope="session")
def tools() -> Path:
    """The folder of the programs."""
    try:
        return environment.tools().parent
    except environment.EnvironmentSetupError as error:
        pytest.skip(f"no network to get the registry's programs: {error}")


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory) -> Path:
    """The files that the registry would get, as a repository: some programs ask git."""
    folder = tmp_path_factory.mktemp("unpacked") / PACK_NAME
    built = package.build(folder.parent / "q-sched.zip")
    with zipfile.ZipFile(built.path) as archive:
        archive.extractall(folder)
    commit(folder)
    return folder


def commit(folder: Path) -> None:
    call(["git", "init", "-q"], folder)
    call(["git", "add", "-A", "-f"], folder)
    call(["git", "-c", "user.name=test", "-c", "user.email=test@localhost", "commit", "-qm", "all"], folder)


def call(command: Sequence[str | Path], folder: Path, **env: str) -> str:
    """What a program prints; its failure is the test's."""
    done = subprocess.run(
        [str(word) for word in command], cwd=folder, env={**os.environ, **env}, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8", errors="replace", timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


def copied(host: Host, place: Path) -> Path:
    """A ComfyUI's own files. Not links: the programs follow them, and would write into the user's ComfyUI."""
    users = shutil.ignore_patterns(".git", "custom_nodes", "models", "input", "output", "temp", "user", "__pycache__")
    return Path(shutil.copytree(host.path, place, ignore=users))


def test_comfy_test_s_lint_has_nothing_to_say(tools, unpacked):
    call([tools / "comfy-test", "lint", "--strict", "."], unpacked)


def test_no_symbol_of_the_host_is_missing(tools, unpacked, host, tmp_path):
    """comfy-import-guard against this host's own files: it resolves each comfy.* name and call in a git repository."""
    repository = copied(host, tmp_path / "cache" / "ComfyUI")
    commit(repository)
    (tmp_path / "base" / "custom_nodes").mkdir(parents=True)
    (tmp_path / "base" / "custom_nodes" / PACK_NAME).symlink_to(unpacked)
    options = ["--cache-dir", tmp_path / "cache", "--offline", "check", "--comfy-dir", tmp_path / "base", "--strict"]
    text = call([tools / "comfy-import-guard", *options, "--target", "HEAD", "--no-update"], tmp_path)
    assert f"{PACK_NAME}  " in text and "0 will break" in text, text


def test_comfy_cli_finds_it_valid_and_packs_what_we_pack(tools, unpacked):
    comfy = [tools / "comfy", "--skip-prompt", "--no-enable-telemetry", "node"]
    env = {"PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}
    assert "passed" in call([*comfy, "validate"], unpacked, **env)
    call([*comfy, "pack"], unpacked, **env)
    with zipfile.ZipFile(unpacked / "node.zip") as theirs, zipfile.ZipFile(unpacked.parent / "q-sched.zip") as ours:
        assert sorted(theirs.namelist()) == sorted(ours.namelist())
    (unpacked / "node.zip").unlink()


def test_comfyui_manager_installs_it_from_a_git_address(tools, unpacked, host, tmp_path):
    """Without its dependencies, which the Manager would put into the environment of the programs."""
    base = copied(host, tmp_path / "ComfyUI")
    (base / "custom_nodes").mkdir()
    (tmp_path / f"{PACK_NAME}.git").symlink_to(unpacked)
    address = f"file://localhost{tmp_path}/{PACK_NAME}.git"
    env = {
        "COMFYUI_PATH": str(base),
        "VIRTUAL_ENV": str(tools.parent),
        "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
    }
    text = call([tools / "cm-cli", "install", "--no-deps", "--mode", "local", address], base, **env)
    assert "INSTALLED" in text, text
    assert (base / "custom_nodes" / PACK_NAME / "nodes" / "sampler.py").is_file()


def test_a_clone_and_pip_give_the_nodes_and_move_nothing(host, tmp_path):
    """As README says. pip is asked what it would install into this environment, which has all: nothing, torch least."""
    clone = tmp_path / "custom_nodes" / PACK_NAME
    clone.parent.mkdir()
    call(["git", "clone", "-q", ROOT, clone], tmp_path)
    pip = [sys.executable, "-m", "pip", "install", "--dry-run", "--no-index", "-r", clone / "requirements.txt"]
    assert "Would install" not in call(pip, tmp_path)
    with comfyui.running(host, Path(sys.executable), pack=None, base=tmp_path) as server:
        assert "QSchedSampler" in server.client.object_info()
        assert package.complaints(server.log_text()) == []
