"""What the user's extra_model_paths.yaml calls a default.

The host forgets it: by the time a pack adds a folder of its own, the user's paths are in a plain list.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import folder_paths
from comfy.cli_args import args


def default_paths(folder: str) -> list[str]:
    """Paths for one of the host's folder names in sections with ``is_default``, in the host's order and spelling: the
    last one comes first in its list."""
    return [path for config in _config_files() for path in _defaults(config, folder)]


def _config_files() -> list[Path]:
    """The files that the host has read, in its order."""
    default_file = Path(folder_paths.__file__).with_name("extra_model_paths.yaml")
    extra_files = chain.from_iterable(getattr(args, "extra_model_paths_config", None) or [])
    return [path for path in (default_file, *map(Path, extra_files)) if path.is_file()]


def _defaults(config: Path, folder: str) -> Iterator[str]:
    """As the host's ``utils.extra_config`` builds them."""
    import yaml

    try:
        sections = yaml.safe_load(config.read_text("utf-8"))
        for section in sections.values():
            if section and section.get("is_default"):
                base = os.path.expandvars(os.path.expanduser(section.get("base_path") or ""))
                for line in filter(None, section.get(folder, "").split("\n")):
                    yield os.path.normpath(os.path.abspath(os.path.join(config.absolute().parent, base, line)))
    except (OSError, ValueError, AttributeError, TypeError, yaml.YAMLError):
        # The host has read it, and has said what is wrong.
        logging.warning("Q-Sched: %s cannot be read for its defaults.", config.name)
