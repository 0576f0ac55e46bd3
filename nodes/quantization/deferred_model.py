"""A MODEL that is made when somebody uses it."""

from __future__ import annotations

from collections.abc import Callable

from comfy.model_patcher import ModelPatcher


class DeferredModel(ModelPatcher):
    """Stands for the MODEL that ``make()`` returns, and becomes it when it is first used: with its class, its methods
    and its attributes.

    A node cannot know who will use its outputs: the host caches them, and a link that is made later gets what an
    earlier run made. ``like`` is a MODEL with the attributes that the one to be made will have: other names are not
    there, so that whoever looks for something else makes nothing.
    """

    def __init__(self, make: Callable[[], ModelPatcher], like: ModelPatcher):
        self.__dict__.update(make=make, names=frozenset((*vars(like), *dir(type(like)))) - _NOT_USED)

    def __getattribute__(self, name: str):
        pending = object.__getattribute__(self, "__dict__")
        if name.startswith("__") or name not in pending["names"]:
            return object.__getattribute__(self, name)
        model = pending["make"]()
        self.__class__, self.__dict__ = type(model), model.__dict__
        return getattr(self, name)

    def __del__(self):
        """Nothing was loaded: the host's own would make the MODEL to take it off the device."""

    def is_dynamic(self) -> bool:
        return False

    def get_ram_usage(self) -> int:
        return 0


_NOT_USED = frozenset(("is_dynamic", "get_ram_usage"))
"""What the host's cache asks of every output to weigh it."""
