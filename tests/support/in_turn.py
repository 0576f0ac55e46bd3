"""One test of many cases, where each of them takes less than pytest does for a test of its own."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable


def in_turn(names: str, values: Iterable) -> Callable[[Callable], Callable]:
    """As ``pytest.mark.parametrize``, in one test that goes through the values and stops at the first that fails; the
    report has them as arguments of the test's own frame. Fixtures are the same for all values."""
    keys, rows = names.split(", "), list(values)
    assert rows, "nothing would be tested"

    def decorate(test: Callable) -> Callable:
        def run(**fixtures: object) -> None:
            for row in rows:
                test(**fixtures, **dict(zip(keys, row if len(keys) > 1 else (row,), strict=True)))

        signature = inspect.signature(test)
        rest = [parameter for name, parameter in signature.parameters.items() if name not in keys]
        run.__signature__ = signature.replace(parameters=rest)
        run.__name__, run.__doc__, run.__module__ = test.__name__, test.__doc__, test.__module__
        run.pytestmark = getattr(test, "pytestmark", [])
        return run

    return decorate
