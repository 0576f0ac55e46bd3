"""What a calibration may be asked to do."""

from __future__ import annotations

import math
from dataclasses import asdict

import pytest

from calibration import Settings
from calibration.choices import SPACES
from qsched_core import CalibrationError


def test_the_defaults_are_allowed_and_frozen():
    settings = Settings()
    assert asdict(settings) == {
        "space": "automatic",
        "radius": 0.0,
        "trials": 40,
        "k": 2.0,  # the paper's
        "holdout": 0.0,
        "seeds": 0,
        "confidence": 0.95,
        "seed": 0,
        "strategy": "guided",
        "race": True,
        "grid": 10,
        "pictures": 0,
        "minutes": 0.0,
        "normalised": False,
        "accept": "repair",
    }
    with pytest.raises(AttributeError):
        settings.k = 3.0


@pytest.mark.parametrize("space", SPACES)
def test_every_space_is_allowed(space):
    assert Settings(space=space).space == space


@pytest.mark.parametrize(
    "edge",
    [
        {"radius": 0.5},
        {"radius": 0.0},
        {"space": "automatic"},
        {"accept": "re-tuning"},
        {"strategy": "greedy"},
        {"trials": 1},
        {"trials": 10_000},
        {"k": 0.0},
        {"seeds": 1},
        {"seeds": 100},
        {"confidence": 0.5},
        {"grid": 2},
        {"pictures": 0},
        {"minutes": 0.0},
        {"strategy": "greedy", "space": "table"},
    ],
    ids=str,
)
def test_the_edges_of_the_ranges_are_allowed(edge):
    Settings(**edge)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("space", "grid"),
        ("space", ""),
        ("radius", 0.51),
        ("radius", -0.1),
        ("radius", math.nan),
        ("trials", 0),
        ("trials", 10_001),
        ("k", -0.1),
        ("k", math.nan),
        ("k", math.inf),
        ("holdout", -0.1),
        ("holdout", 1.0),
        ("holdout", math.nan),
        ("seeds", -1),
        ("seeds", 101),
        ("confidence", 0.49),
        ("confidence", 1.0),
        ("confidence", math.nan),
        ("strategy", "hill climbing"),
        ("grid", 1),
        ("grid", 201),
        ("pictures", -1),
        ("minutes", -0.5),
        ("minutes", math.inf),
        ("minutes", math.nan),
        ("accept", "anything"),
    ],
    ids=str,
)
def test_a_value_out_of_range_is_named(refused, name, value):
    with refused(CalibrationError, f"calibration setting {name} is {value}.", name=name):
        Settings(**{name: value})


def test_a_search_without_a_reference_goes_less_far():
    """Regression: free, the widest space raised the scores of models that had nothing to repair."""
    with_reference, free = Settings().resolved(True), Settings().resolved(False)
    assert (with_reference.space, with_reference.radius) == ("both ends", 0.2)
    assert (free.space, free.radius) == ("first step", 0.1)
    for settings in (with_reference, free, Settings(space="table", radius=0.3)):
        assert settings.resolved(True) == settings.resolved(False) == settings
    assert Settings(strategy="greedy").resolved(False).space == "table"


def test_what_is_accepted_does_not_make_another_study():
    assert Settings(accept="re-tuning").lasting() == Settings().lasting()
    assert Settings(strategy="greedy", accept="re-tuning").lasting() == Settings(strategy="greedy").lasting()
