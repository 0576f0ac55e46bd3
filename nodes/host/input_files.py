"""Files of the host's input folder, by names that cannot leave it."""

from __future__ import annotations

from pathlib import Path

import folder_paths

from ...calibration.prompt_files import MAX_FILE_BYTES
from ...qsched_core import CalibrationError


def input_path(name: str) -> Path:
    """A file of the host's input folder.

    Raises:
        CalibrationError: a path outside the folder, or no such file.
    """
    try:
        root = Path(folder_paths.get_input_directory()).resolve()
        path = (root / name).resolve()
        if root in path.parents and path.is_file():
            return path
    except (OSError, ValueError, RuntimeError):
        pass  # a name that no file can have, or a link to itself
    raise CalibrationError(
        f"no file {name[:40]!r} in ComfyUI's input folder.",
        f"put the prompt file into {folder_paths.get_input_directory()}",
        name=name,
    )


def read_input(name: str) -> bytes:
    """The content of a file of the host's input folder, cut one byte beyond what a file of prompts may have.

    Raises:
        CalibrationError: a path outside the folder, no such file, or one that cannot be read.
    """
    path = input_path(name)
    try:
        with path.open("rb") as file:
            return file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise CalibrationError(
            f"{name[:40]!r} cannot be read: {error.strerror}.", "check who may read the file"
        ) from error
