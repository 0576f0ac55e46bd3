"""What nodes have changed on a clone of a MODEL, put on another MODEL of the same source too."""

from __future__ import annotations

from collections import defaultdict

from comfy.model_patcher import create_model_options_clone

_OF_ONE_MODEL = ("registered_hooks", "to_load_options", "multigpu_clones")
"""Options that the host makes for each model anew."""


class LaterChanges:
    """Remembers a MODEL as it is now; its clones are compared with it."""

    def __init__(self, model):
        self._patches = {key: len(patches) for key, patches in model.patches.items()}
        self._objects = dict(model.object_patches)
        self._options = _options_of(model)

    def patches_of(self, clone) -> bool:
        """Whether nodes have put patches of weights, or other objects, on a clone since."""
        return bool(self._weights(clone) or self._replaced(clone))

    def put_patches(self, clone, other) -> None:
        """Puts them on another MODEL, by the host's own calls: keys that it does not have are passed over."""
        groups = defaultdict(dict)
        # A weight may have several: one call of the host's takes one of each.
        for key, patches in self._weights(clone).items():
            for place, (strength, value, model_strength, offset, function) in enumerate(patches):
                groups[place, strength, model_strength][key, offset, function] = value
        for (_, strength, model_strength), patches in sorted(groups.items(), key=lambda item: item[0][0]):
            other.add_patches(patches, strength, model_strength)
        for name, value in self._replaced(clone).items():
            other.add_object_patch(name, value)

    def put_options(self, options: dict, own: dict) -> dict:
        """The options of another MODEL with what is new in a run's ``options`` of a clone: nodes' patches and wrappers,
        and what belongs to the run itself."""
        return _merged(own, _added(options, self._options))

    def _weights(self, clone) -> dict[str, list[tuple]]:
        new = {key: patches[self._patches.get(key, 0) :] for key, patches in clone.patches.items()}
        return {key: patches for key, patches in new.items() if patches}

    def _replaced(self, clone) -> dict[str, object]:
        return {name: value for name, value in clone.object_patches.items() if value is not self._objects.get(name)}


def _options_of(model) -> dict:
    """A MODEL's options as a run has them: with its wrappers and callbacks in them."""
    options = create_model_options_clone(model.model_options)
    inner = options.setdefault("transformer_options", {})
    for name, own in (("wrappers", model.wrappers), ("callbacks", model.callbacks)):
        inner[name] = _merged(inner.get(name, {}), own)
    return options


def _added(now: dict, before: dict) -> dict:
    """What ``now`` has that ``before`` has not, dictionaries and lists inside each other compared item by item."""
    more = {}
    for key, value in now.items():
        old = before.get(key)
        if key in _OF_ONE_MODEL or value is old:
            continue
        if isinstance(value, dict) and isinstance(old, dict):
            value = _added(value, old)
            if not value:
                continue
        elif isinstance(value, list) and isinstance(old, list):
            value = [item for item in value if not any(item is one for one in old)]
            if not value:
                continue
        elif isinstance(value, (bool, int, float, str)) and value == old:
            continue
        more[key] = value
    return more


def _merged(own: dict, more: dict) -> dict:
    result = dict(own)
    for key, value in more.items():
        mine = result.get(key)
        if isinstance(value, dict) and isinstance(mine, dict):
            value = _merged(mine, value)
        elif isinstance(value, list) and isinstance(mine, list):
            value = [*mine, *(item for item in value if not any(item is one for one in mine))]
        result[key] = value
    return result
