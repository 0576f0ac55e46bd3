"""What the verdict answers: a repair, a re-tuning or nothing. A reference model tells the first two apart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
from study_world import N_PROMPTS, N_STEPS, Picture, World, better, indifferent, quick

from calibration import Result, Settings, calibrate
from qsched_core import CalibrationError

REPAIRABLE = Settings(space="last step", radius=0.2, trials=6, seeds=2, race=False)


@dataclass
class Pair:
    """A quantised model with a gain to find, and a reference whose pictures have the JAQ ``reference`` gives them.

    A picture is (coefficients, index, whether the reference made it). ``order`` has (that, is it the identity?) of
    every call.
    """

    reference: Callable[[Picture], float] = indifferent
    order: list[tuple[bool, bool]] = field(default_factory=list)

    def calibrate(self, settings: Settings = REPAIRABLE, **options) -> Result:
        return calibrate(
            self.generate_with(False), self.score, N_PROMPTS, N_STEPS, settings,
            reference=self.generate_with(True), **options,
        )  # fmt: skip

    def generate_with(self, reference: bool):
        def generate(coefficients, indices):
            self.order.append((reference, coefficients.is_identity))
            return [(coefficients, index, reference) for index in indices]

        return generate

    def score(self, pictures, indices):
        values = np.array([(self.reference if on_reference else better)((c, i)) for c, i, on_reference in pictures])
        return {"tc": values / 2, "iq": values / 4}


@pytest.mark.parametrize(
    ("reference", "answer"),
    [
        (indifferent, "repair"),  # the reference has nothing to gain
        (better, "re-tuning"),  # it gains as much: two models that are the same
        (lambda picture: 0.5 * better(picture), "repair"),  # half of the gain is left
    ],
    ids=["nothing to gain", "the same model", "half as much"],
)
def test_a_repair_is_what_the_reference_does_not_gain(reference, answer):
    pair = Pair(reference)
    result = pair.calibrate()
    assert result.answer == answer
    assert result.accepted == (answer == "repair")
    assert result.recommended.is_identity == (answer != "repair")
    # By hand: the net gain's mean is the difference of the two means.
    assert result.on_reference.net.gain == pytest.approx(result.gain.gain - result.on_reference.same.gain, abs=1e-12)
    assert [is_identity for on_reference, is_identity in pair.order if on_reference] == [True, False]


def test_without_a_reference_a_gain_may_be_retuning_and_is_taken_on_request_alone():
    """Regression: the default search signed gains that were none."""
    careful = World().calibrate(REPAIRABLE)
    assert (careful.answer, careful.accepted, careful.on_reference) == ("re-tuning", False, None)
    assert careful.recommended.is_identity
    willing = World().calibrate(quick())
    assert (willing.answer, willing.accepted) == ("re-tuning", True)
    assert willing.recommended == willing.coefficients == careful.coefficients


@pytest.mark.parametrize("accept", ["repair", "re-tuning"])
def test_nothing_is_accepted_with_a_drift(accept):
    def judge(pictures, indices):
        return {"contrast": np.array([1.0 if c.is_identity else 1.1 for c, *_ in pictures])}

    result = Pair().calibrate(quick(accept=accept), judge=judge)
    assert result.gain.low > 0
    assert (result.answer, result.accepted, result.drifts) == ("nothing found", False, ("contrast",))


def test_a_statistic_that_comes_nearer_to_the_reference_is_no_drift():
    def judge(pictures, indices):
        # 1.0 on the quantised model, 1.1 with a candidate and on the reference: what quantising took comes back.
        return {"contrast": np.array([1.0 if c.is_identity and not rest[-1] else 1.1 for c, *rest in pictures])}

    assert Pair().calibrate(judge=judge).answer == "repair"

    def alone(pictures, indices):
        return {"contrast": np.array([1.0 if c.is_identity else 1.1 for c, *_ in pictures])}

    assert World().calibrate(REPAIRABLE, judge=alone).drifts == ("contrast",)


def test_pictures_of_the_reference_are_made_before_the_search_and_once(tmp_path):
    pair = Pair()
    first = pair.calibrate(journal=tmp_path / "j")
    assert pair.order[0] == (True, True)
    assert [call for call in pair.order if call[0]] == [(True, True), (True, False)]
    assert pair.order[-1] == (True, False)
    pair.order.clear()
    again = pair.calibrate(journal=tmp_path / "j")
    assert pair.order == []
    assert (again.answer, again.gain, again.on_reference.net) == (first.answer, first.gain, first.on_reference.net)


def test_the_model_is_no_reference_of_itself(refused):
    world = World()
    generate = world.generate
    with refused(CalibrationError, "the reference is the model itself."):
        calibrate(generate, world.score, N_PROMPTS, N_STEPS, quick(), reference=generate)
    assert not world.generated
