"""Whether a finished trial may win: what the guard says of its values, remembered by the trial's number."""

from __future__ import annotations

from collections.abc import Mapping

from .guard import Guard

GuardValues = Mapping[str, Mapping[str, float]]
"""As the storage has them: {name: {index as a text: value}}."""


class GuardRule:
    """A guard applied to stored values; without a guard every trial may win."""

    def __init__(self, guard: Guard | None):
        self._guard = guard
        self._answers: dict[int, bool] = {}  # only those given when the identity's values were known

    def may_win(self, number: int, values: GuardValues, identity: GuardValues) -> bool:
        """Of the trial with this number. While nothing is known of the ``identity``, every trial may."""
        if number in self._answers or self._guard is None or not values:
            return self._answers.get(number, True)
        may_win = all(excess <= 0 for excess in self.excesses(values, identity).values())
        if identity:
            self._answers[number] = may_win
        return may_win

    def excesses(self, values: GuardValues, identity: GuardValues) -> dict[str, float]:
        """By name, how far a candidate goes beyond what the guard allows."""
        if self._guard is None:
            return {}
        return {
            name: self._guard.excess(name, _by_index(by_text), _by_index(identity.get(name, {})))
            for name, by_text in values.items()
        }


def _by_index(values: Mapping[str, float]) -> dict[int, float]:
    return {int(index): value for index, value in values.items()}
