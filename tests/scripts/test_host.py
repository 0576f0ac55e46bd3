"""Which ComfyUI is chosen, and how a downloaded one is unpacked."""

import io
import os
import tarfile

import pytest

from scripts.host import SDIST_HOST_VERSION, HostError, host_at, local_host, other_hosts, unpack


@pytest.fixture
def places(tmp_path, make_host):
    """A checkout in a ComfyUI's custom_nodes, an earlier download, and a ComfyUI elsewhere."""
    own = make_host(tmp_path / "own")
    checkout = own / "custom_nodes" / "q-sched"
    checkout.mkdir(parents=True)
    cache = tmp_path / "cache"
    make_host(cache / f"comfyui-{SDIST_HOST_VERSION}")
    return {"own": own, "checkout": checkout, "cache": cache, "elsewhere": make_host(tmp_path / "elsewhere")}


def test_comfyui_path_wins(places):
    host = local_host({"COMFYUI_PATH": str(places["elsewhere"])}, places["checkout"], places["cache"])
    assert (host.path, host.origin) == (places["elsewhere"], "COMFYUI_PATH")


def test_then_the_comfyui_around_the_checkout(places):
    assert local_host({}, places["checkout"], places["cache"]).path == places["own"]


def test_then_the_earlier_download(places, tmp_path):
    host = local_host({"COMFYUI_PATH": ""}, tmp_path / "lonely", places["cache"])
    assert host.path == places["cache"] / f"comfyui-{SDIST_HOST_VERSION}"


def test_none_when_there_is_none(tmp_path):
    assert local_host({}, tmp_path, tmp_path / "cache") is None


def test_custom_nodes_of_a_bare_base_directory_is_passed_over(places, tmp_path):
    checkout = tmp_path / "base" / "custom_nodes" / "q-sched"
    checkout.mkdir(parents=True)
    assert local_host({}, checkout, places["cache"]).origin == "downloaded"


@pytest.mark.parametrize(
    ("present", "missing"),
    [([], "no such folder"), (["comfy/"], "main.py is missing"), (["main.py"], "comfy/ is missing")],
    ids=["nothing", "no main.py", "no comfy"],
)
def test_a_wrong_comfyui_path_says_what_is_missing_and_what_to_do(tmp_path, present, missing):
    path = tmp_path / "wrong"
    for name in present:
        path.mkdir()
        (path / name).mkdir() if name.endswith("/") else (path / name).touch()
    with pytest.raises(HostError) as caught:
        local_host({"COMFYUI_PATH": str(path)}, tmp_path, tmp_path)
    assert str(path) in str(caught.value)
    assert missing in str(caught.value)
    assert "Name the folder that holds main.py and comfy/" in str(caught.value)


def test_further_hosts_are_separated_as_in_path(places):
    paths = os.pathsep.join([str(places["own"]), str(places["elsewhere"])])
    assert [host.path for host in other_hosts({"COMFYUI_PATHS": paths})] == [places["own"], places["elsewhere"]]
    assert other_hosts({}) == []


def test_the_version_is_read_without_running_anything(places, tmp_path):
    assert host_at(places["own"], "test").version == "9.8.7"
    (places["own"] / "comfyui_version.py").unlink()
    assert host_at(places["own"], "test").version == "unknown"


def _archive(path, names):
    with tarfile.open(path, "w:gz") as tar:
        for name in names:
            tar.addfile(tarfile.TarInfo(name), io.BytesIO())
    return path


def test_only_the_host_is_unpacked(tmp_path):
    names = ["p-1/PKG-INFO", "p-1/vendor/ComfyUI/main.py", "p-1/vendor/ComfyUI/comfy/sd.py"]
    unpacked = unpack(_archive(tmp_path / "p-1.tar.gz", names), tmp_path / "out", "vendor/ComfyUI")
    assert unpacked == tmp_path / "out" / "p-1" / "vendor" / "ComfyUI"
    files = [path.relative_to(unpacked).as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert sorted(files) == ["comfy/sd.py", "main.py"]


def test_an_archive_cannot_write_outside(tmp_path):
    names = ["p-1/vendor/ComfyUI/main.py", "p-1/vendor/ComfyUI/../../../../escaped"]
    with pytest.raises(tarfile.OutsideDestinationError):
        unpack(_archive(tmp_path / "p-1.tar.gz", names), tmp_path / "out", "vendor/ComfyUI")
    assert not (tmp_path / "escaped").exists()


def test_an_archive_without_a_host_is_refused(tmp_path):
    with pytest.raises(HostError, match="does not carry a ComfyUI"):
        unpack(_archive(tmp_path / "p-1.tar.gz", ["p-1/PKG-INFO"]), tmp_path / "out", "vendor/ComfyUI")
