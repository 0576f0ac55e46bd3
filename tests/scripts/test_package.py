"""What keeps a package from being published: the scan, the metadata, the files. The host's part is in tests/host."""

from __future__ import annotations

import copy
import re
import subprocess

import pytest
from PIL import Image, ImageChops, ImageStat

from scripts import brand, package
from scripts.layout import ROOT
from scripts.package import PackageError
from scripts.scan import scan

FLAGGED = {
    "eval('1')": "code is made from text (eval)",
    "import builtins\nbuiltins.exec('x = 1')": "code is made from text (builtins.exec)",
    "import subprocess": "a program is started (subprocess)",
    "import os as o\no.system('ls')": "a program is started (os.system)",
    "from os import execv\nexecv('a', [])": "a program is started (os.execv)",
    "import urllib.request": "a network is used (urllib.request)",
    "from urllib import request": "a network is used (urllib.request)",
    "import requests.sessions": "a network is used (requests.sessions)",
    "import pickle as p": "a pickle is read (pickle)",
    "import torch\ntorch.load('a')": "a pickle is read (torch.load without weights_only=True)",
    "import importlib\nimportlib.import_module('a' + 'b')": "code is imported by a computed name",
    "__import__('a')": "code is imported by a computed name (__import__)",
    "from hashlib import md5 as m\nm(b'')": "a weak hash (hashlib.md5)",
    "from base64 import b64decode as b\nexec(b('eA=='))": "hidden text (base64.b64decode)",
    "import os\ngetattr(os, 'system')('ls')": "code is made from text (getattr(…, 'system'))",
}
FINE = (
    '"""eval("1"), os.system("ls") and pickle are words here."""',
    "import re\nre.compile('eval')",
    "model.eval().exec_()",
    "from importlib import metadata\nmetadata.version('torch')",
    "from . import socket\nfrom .requests import get",
    "from urllib.parse import quote",
    "import torch\ntorch.load('a', weights_only=True)",
    "import hashlib\nhashlib.sha256(b'')",
)


@pytest.mark.parametrize("code", FLAGGED)
def test_what_the_registry_flags_is_found(code):
    assert [str(finding) for finding in scan("a.py", code) if FLAGGED[code] in str(finding)], scan("a.py", code)


@pytest.mark.parametrize("code", FINE)
def test_harmless_code_and_mere_words_are_not(code):
    assert scan("a.py", code) == []


@pytest.mark.parametrize(
    "script",
    ["eval(x)", "new Function('a')", "a.innerHTML = b", "var _0x3fa2=1", "x" * 1001, 'import a from "https://b/c.js"'],
)
def test_scripts_that_hide_what_they_do_are_found(script):
    (finding,) = scan("a.js", "// fine\n" + script)
    assert finding.line == 2


def test_comments_and_names_in_a_script_are_not():
    assert scan("a.js", "// never innerHTML, eval(x)\n/* new Function('a')\n*/\nretrieval(x); // eval(y)") == []


@pytest.fixture(scope="module")
def metadata():
    return package.read_metadata()


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return package.build(tmp_path_factory.mktemp("dist") / "a.zip")


def test_this_tree_makes_a_package_without_faults(metadata, built):
    assert package.metadata_faults(metadata, built.files) == []
    assert package.package_faults(built) == []


def test_every_exception_to_the_scan_is_still_needed(built):
    names = {(finding.path, finding.name) for finding in package.findings(built.path)}
    assert set(package.ALLOWED) <= names


def test_the_same_files_make_the_same_bytes(built, tmp_path):
    assert package.build(tmp_path / "b.zip").path.read_bytes() == built.path.read_bytes()


@pytest.fixture
def checkout(tmp_path):
    """A small repository of three files, one of them ignored by .comfyignore."""
    for name, text in {
        "nodes/a.py": "",
        "scripts/b.py": "import subprocess",
        ".comfyignore": "scripts/\n.comfyignore\n",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, "utf-8")
    for words in (["init", "-q"], ["add", "."]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    return tmp_path


def faults(root):
    return package.package_faults(package.build(root / "dist" / "a.zip", root), root)


def test_files_are_those_of_git_less_the_ignored_ones(checkout):
    (checkout / "nodes" / "new.py").touch()
    package_file = package.build(checkout / "dist" / "a.zip", checkout)
    assert package_file.files == ["nodes/a.py", "nodes/new.py"]
    assert package_file.uncommitted == ["nodes/new.py"]


def test_a_file_that_should_not_be_there_or_is_lost_is_a_fault(checkout):
    assert faults(checkout) == []
    (checkout / ".comfyignore").write_text(".comfyignore\nnodes/\n", "utf-8")
    result = faults(checkout)
    assert "scripts/b.py does not belong in it" in result
    assert "nodes/a.py is missing" in result
    assert "scripts/b.py:1: a program is started (subprocess)" in result


def test_too_large_a_package_is_a_fault(checkout, monkeypatch):
    monkeypatch.setattr(package, "MOST_BYTES", 10)
    assert faults(checkout) == ["0.0 MB are more than 20"]


def test_without_git_it_is_said_what_is_missing(tmp_path):
    with pytest.raises(PackageError, match="git must tell"):
        package.build(tmp_path / "a.zip", tmp_path)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda p, c: p.update(version="1.0"), "version 1.0 is not x.y.z"),
        (lambda p, c: p.update(dependencies=["optuna"]), "dependencies differ"),
        (lambda p, c: p["classifiers"].append("Environment :: GPU :: NVIDIA"), "classifiers Environment :: GPU :: NV"),
        (lambda p, c: p["urls"].pop("Changelog"), "url Changelog"),
        (lambda p, c: c.update({"requires-comfyui": ">=0.30"}), "requires-comfyui"),
        (lambda p, c: c.update(PublisherId="Q-Sched"), "PublisherId"),
        (lambda p, c: c.update(Icon=c["Banner"]), "Icon has another size"),
        (lambda p, c: c.update(Banner="https://example.org/banner.png"), "Banner is not a picture of the repository"),
        (lambda p, c: p["license"].update(file="LICENCE"), "the licence's file"),
    ],
)
def test_metadata_that_the_registry_would_not_take_is_a_fault(metadata, built, change, fault):
    changed = copy.deepcopy(metadata)
    change(changed["project"], changed["tool"]["comfy"])
    assert [text for text in package.metadata_faults(changed, built.files) if fault in text]


def test_the_version_is_the_newest_of_the_changelog(metadata):
    versions = re.findall(r"^## \[(\d+\.\d+\.\d+)\]", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert versions[0] == metadata["project"]["version"]
    assert versions == sorted(versions, key=lambda text: tuple(map(int, text.split("."))), reverse=True)


def test_a_changed_node_and_a_warning_in_the_log_are_faults():
    golden, nodes = {"A": {"input": {}, "output": []}, "B": {}}, {"A": {"input": {"a": 1}, "output": []}, "C": {}}
    assert package.differences(golden, nodes) == [
        "node A differs from object_info.json in input",
        "node B is missing",
        "node C is not in object_info.json",
    ]
    log = "0.1 seconds: /base/custom_nodes/q-sched\n/custom_nodes/q-sched/a.py: UserWarning: no\nother: ERROR"
    assert package.complaints(log) == ["log: /custom_nodes/q-sched/a.py: UserWarning: no"]


def test_the_icon_is_the_one_that_the_script_draws():
    with Image.open(brand.ICON) as there:
        apart = ImageStat.Stat(ImageChops.difference(brand.icon(), there.convert("RGBA"))).mean
    assert max(apart) < 3  # of 255: a palette's rounding, which differs between versions of Pillow
