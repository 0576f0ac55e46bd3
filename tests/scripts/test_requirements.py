"""Whether installed versions meet requirement lines."""

import pytest

from scripts.requirements import installed_version, lines, missing

INSTALLED = {"torch": "2.11.0+cu130", "numpy": "2.4.6", "pydantic": "2.12", "open_clip_torch": "3.3.0", "odd": "r7"}


def test_comments_and_empty_lines_are_no_requirements():
    assert lines("torch\n\n#non essential\nnumpy>=1.25  # why\n") == ["torch", "numpy>=1.25"]


@pytest.mark.parametrize(
    "line",
    [
        "torch",
        "torch==2.11.0",
        "torch==2.11",
        "numpy>=1.25.0",
        "numpy>=2.4.6,<3",
        "numpy!=2.4.5",
        "pydantic~=2.0",
        "open_clip_torch>3.2.9",
        "numpy[extra]<=2.4.6",
        "odd",
    ],
)
def test_met(line):
    assert missing([line], INSTALLED.get) == []


@pytest.mark.parametrize(
    "line",
    [
        "absent",
        "torch==2.11.1",
        "numpy>=2.4.7",
        "numpy>=2.4.6,<2.4.6",
        "numpy!=2.4.6",
        "pydantic~=2.13",
        "pydantic~=1.9",
        "odd>=1",
        # Not understood, so left to pip:
        "numpy; python_version < '3.12'",
        "numpy==2.*",
        "numpy @ https://example.org/numpy.whl",
        "-r other.txt",
    ],
)
def test_not_met(line):
    assert missing([line], INSTALLED.get) == [line]


def test_versions_of_the_running_interpreter():
    assert installed_version("pytest") == pytest.__version__
    assert installed_version("q-sched-does-not-exist") is None
