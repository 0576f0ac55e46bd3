"""The verdict in words: one hand-made result for every case a user can meet."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from calibration import Evaluation, Interval, Objective, OnReference, Result, Trial
from calibration.report import Row, as_json, describe, lower_is_better, preset_verdict, table, verdict
from qsched_core import Coefficients

BEST = Coefficients.ramp(4, c_x=(1.0, 0.95), c_eps=(1.0, 1.1))
IDENTITY = Coefficients.identity(4)


def row(**metrics: float) -> Evaluation:
    """3 prompts with 2 noises each, all with the same scores."""
    return Evaluation(tuple(range(6)), {name: np.full(6, value) for name, value in metrics.items()})


def gain(value: float, half: float = 0.01) -> Interval:
    return Interval(value, value - half, value + half, 3)


def result(**changed) -> Result:
    """A repair of 0.193 that nothing can be said against."""
    fields = {
        "coefficients": BEST,
        "answer": "repair",
        "accepted": True,
        "jaq": 1.193,
        "baseline_jaq": 1.0,
        "gains": {"tc": gain(0.1), "iq": gain(0.0465), "jaq": gain(0.193)},
        "drifts": (),
        "optimism": 0.0,
        "on_border": (),
        "nfe": 4 * 60,
        "failed": 0,
        "objective": Objective(2.0),
        "identity": row(tc=0.5, iq=0.25, jaq=1.0, contrast=0.2),
        "candidate": row(tc=0.6, iq=0.2965, jaq=1.193, contrast=0.2),
        "trace": (),
        "finished": (trial(1.0, 1.0), trial(1.1, 1.193)),
        "on_reference": OnReference(row(jaq=1.3), row(jaq=1.32), gain(0.02), gain(0.173)),
    }
    return Result(**{**fields, **changed})


def trial(c_eps: float, value: float, whole: bool = True) -> Trial:
    return Trial({"c_x_last": 1.0, "c_eps_last": c_eps}, value, 6 if whole else 3, whole)


def held_back(c_eps: float, value: float) -> Trial:
    return Trial({"c_x_last": 1.0, "c_eps_last": c_eps}, value, 6, False)


def with_gains(**more: Interval) -> dict[str, Interval]:
    return {**result().gains, **more}


def refused(**changed) -> Result:
    return result(answer="nothing found", accepted=False, **changed)


# --- what was decided


def test_an_accepted_gain_is_told_with_its_interval_and_what_stands_behind_it():
    assert verdict(result()) == [
        "Accepted, repair: held-out JAQ +0.1930 [+0.1830, +0.2030] over 3 prompts x 2 noises.",
        "Control: the same coefficients change the reference model's JAQ by +0.0200 [+0.0100, +0.0300].",
        "Net of that: JAQ +0.1730 [+0.1630, +0.1830].",
        "Paired gains: TC +0.1000 [+0.0900, +0.1100], IQ +0.0465 [+0.0365, +0.0565], JAQ +0.1930 [+0.1830, +0.2030].",
        "Cost: 1 candidate; 60 pictures of 4 steps.",
        "JAQ = TC + 2 IQ.",
    ]
    assert describe(result()) == "repair, accepted: JAQ +0.1930 [+0.1830, +0.2030] on 3 held-out prompts"


@pytest.mark.parametrize(
    ("changed", "first", "short"),
    [
        (
            {"gains": with_gains(jaq=gain(0.005))},
            "No gain beyond noise: held-out JAQ +0.0050 [-0.0050, +0.0150] over 3 prompts x 2 noises. "
            "Identity recommended.",
            "identity recommended: JAQ +0.0050 [-0.0050, +0.0150] on 3 held-out prompts",
        ),
        (
            {"gains": with_gains(jaq=gain(-0.05))},
            "Worse than the stock sampler: held-out JAQ -0.0500 [-0.0600, -0.0400] over 3 prompts x 2 noises. "
            "Identity recommended.",
            "identity recommended: JAQ -0.0500 [-0.0600, -0.0400] on 3 held-out prompts",
        ),
        (
            {"coefficients": IDENTITY, "gains": with_gains(jaq=gain(0.0, 0.0))},
            "No candidate beat the stock sampler on the search prompts: identity recommended.",
            "identity recommended: no candidate beat the stock sampler",
        ),
        (
            {"candidate": Evaluation(tuple(range(6)), {"jaq": np.array([2, 2, math.nan, 2, 2, 2])})},
            "1 held-out picture came out broken (not finite). Identity recommended.",
            "identity recommended: the candidate breaks 1 held-out picture",
        ),
    ],
    ids=["noise", "worse", "identity", "broken"],
)
def test_a_refusal_says_why(changed, first, short):
    assert verdict(refused(**changed))[0] == first
    assert describe(refused(**changed)) == short


def test_an_interval_that_ends_at_zero_is_within_noise():
    for ends in ((0.0, 0.02), (-0.02, 0.0)):
        gains = with_gains(jaq=Interval(sum(ends) / 2, *ends, 3), contrast=gain(0.0196))
        same = refused(gains=gains, drifts=("contrast",))
        assert verdict(same)[0].startswith("No gain beyond noise: ")
        assert "drifts" not in describe(same)


def test_a_picture_that_the_candidate_mended_is_not_one_it_broke():
    nan = Evaluation(tuple(range(6)), {"jaq": np.array([2, 2, math.nan, 2, 2, 2])})
    mended = refused(identity=nan, gains=with_gains(jaq=gain(0.005)))
    assert verdict(mended)[0].startswith("No gain beyond noise: ")
    assert describe(mended).startswith("identity recommended: JAQ +0.0050")


def test_one_prompt_with_one_noise_is_counted_in_the_singular():
    one = Evaluation((0,), {"jaq": np.ones(1)})
    single = result(identity=one, candidate=one, gains=with_gains(jaq=Interval(0.1, 0.1, 0.1, 1)))
    assert verdict(single)[0].endswith(" over 1 prompt x 1 noise.")


def test_the_stock_sampler_beside_itself_has_no_gains_to_list():
    lines = verdict(refused(coefficients=IDENTITY, gains=with_gains(jaq=gain(0.0, 0.0), contrast=gain(0.0, 0.0))))
    assert not [line for line in lines if "+0.0000" in line]
    assert [line.partition(":")[0] for line in verdict(refused())].count("Paired gains") == 1


def test_a_card_says_whether_and_as_what_a_preset_was_accepted():
    words = [preset_verdict(result(answer=answer, accepted=True)) for answer in ("repair", "re-tuning")]
    assert words == ["accepted", "accepted as re-tuning"]
    for answer in ("repair", "re-tuning", "nothing found"):
        assert preset_verdict(result(answer=answer, accepted=False)) == "identity recommended"


# --- what to be wary of

DRIFTED = with_gains(contrast=gain(0.0196), **{"distance to full": gain(0.0123, 0.001)})


def test_what_was_not_found_is_said_with_what_could_have_been_found():
    """A user with few prompts must not read "nothing found" as "there is nothing"."""
    sentence = "A repair of JAQ 0.041 would be found four times in five on so many prompts; more find smaller ones."
    unclear = with_gains(jaq=gain(0.005))
    assert sentence in verdict(refused(gains=unclear, smallest_found=0.0413))
    assert sentence in verdict(result(answer="re-tuning", accepted=False, smallest_found=0.0413))
    for clear in (
        result(smallest_found=0.0413),
        refused(gains=DRIFTED, drifts=("contrast", "distance to full"), smallest_found=0.0413),
        refused(gains=with_gains(jaq=gain(-0.2)), smallest_found=0.0413),
        refused(gains=unclear, smallest_found=math.inf),
        refused(gains=unclear, smallest_found=0.0),
        refused(gains=unclear, smallest_found=0.0413, coefficients=IDENTITY),
    ):
        assert not any("four times in five" in line for line in verdict(clear))


def test_a_gain_that_drifts_is_not_accepted_and_says_where_it_drifts():
    """Regression: it was accepted, with a warning behind it."""
    drifting = refused(gains=DRIFTED, drifts=("contrast", "distance to full"))
    assert verdict(drifting)[:2] == [
        "The score rises, but something else gets worse: held-out JAQ +0.1930 [+0.1830, +0.2030] over 3 prompts x 2 "
        "noises. Identity recommended.",
        "The candidate drifts in contrast (+9.8 %), distance to full (+0.012): that is never accepted.",
    ]
    assert describe(drifting) == (
        "identity recommended: JAQ +0.1930 [+0.1830, +0.2030], but drifts in contrast, distance to full"
    )


def test_a_drift_from_pictures_without_any_contrast_has_no_share():
    grey = row(tc=0.5, iq=0.25, jaq=1.0, contrast=0.0)
    lines = verdict(refused(gains=DRIFTED, drifts=("contrast",), identity=grey))
    assert lines[1] == "The candidate drifts in contrast (+0.020): that is never accepted."


def test_metrics_that_nobody_optimised_stand_apart_and_distances_say_which_way_is_better():
    assert verdict(result(gains=DRIFTED))[4:6] == [
        "Not optimised: contrast +0.0196 [+0.0096, +0.0296].",
        "Not optimised: distance to full (lower is better) +0.0123 [+0.0113, +0.0133].",
    ]
    assert lower_is_better("distance to full")
    assert not lower_is_better("contrast")


def test_metrics_that_did_not_move_are_named_without_figures():
    """A verdict with a winner had two lines of +0.0000."""
    gains = with_gains(
        accuracy=Interval(0.0, 0.0, 0.0, 3), sharpness=Interval(0.00001, -0.00004, 0.00004, 3),
        contrast=Interval(0.0, -0.00006, 0.00006, 3),
    )  # fmt: skip
    assert [line for line in verdict(result(gains=gains)) if line.startswith("Not optimised")] == [
        "Not optimised: contrast +0.0000 [-0.0001, +0.0001].",
        "Not optimised and unchanged: accuracy, sharpness.",
    ]


def test_many_metrics_take_more_lines_and_lose_none():
    gains = with_gains(**{f"judge {i}": gain(i / 100) for i in range(20)})
    lines = [line for line in verdict(result(gains=gains)) if line.startswith("Not optimised: ")]
    assert len(lines) > 5
    assert max(map(len, lines)) <= 110
    assert all(sum(f"judge {i} " in line for line in lines) == 1 for i in range(20))


def test_a_line_is_filled_up_to_110_letters():
    def lines(length: int) -> list[str]:
        gains = with_gains(one=gain(0.01), **{"m" * length: gain(0.02)})
        return [line for line in verdict(result(gains=gains)) if line.startswith("Not optimised: ")]

    rest = 110 - len(lines(1)[0])
    assert list(map(len, lines(1 + rest))) == [110]
    assert len(lines(2 + rest)) == 2


def test_a_term_that_paid_for_the_gain_is_named():
    lines = verdict(result(gains=with_gains(tc=gain(-0.02))))
    assert "What falls, clear of noise: TC -0.0200. Look before you trust it." in lines
    up_to_zero = Interval(-0.01, -0.02, 0.0, 3)
    assert not [line for line in verdict(result(gains=with_gains(tc=up_to_zero))) if line.startswith("What falls")]


@pytest.mark.parametrize(
    ("optimism", "text"),
    [
        (0.048, ["The search's own prompts promised +0.241, held-out ones give +0.193: 0.048 was luck."]),
        (0.01, []),  # less than a tenth of what was promised
        (-0.05, []),
        (math.nan, []),
    ],
)
def test_luck_is_counted_where_there_was_some(optimism, text):
    assert [line for line in verdict(result(optimism=optimism)) if "luck" in line] == text


def test_a_gain_that_was_all_luck_says_so():
    lines = verdict(refused(gains=with_gains(jaq=gain(-0.01)), optimism=0.251))
    assert "The search's own prompts promised +0.241, held-out ones give -0.010: 0.251 was luck." in lines


def test_an_optimum_on_the_border_is_named_and_a_long_list_is_cut():
    lines = verdict(result(on_border=("c_eps_last",)))
    assert "On the border of the trust region: c_eps_last. The optimum may lie outside." in lines
    many = verdict(result(on_border=tuple(f"c_eps_{i}" for i in range(32))))
    (line,) = (line for line in many if line.startswith("On the border"))
    assert "c_eps_3 and 28 more." in line
    assert len(line) < 115
    for count, end in ((4, "c_eps_2, c_eps_3. The"), (5, "c_eps_3 and 1 more. The")):
        lines = verdict(result(on_border=tuple(f"c_eps_{i}" for i in range(count))))
        assert any(end in line for line in lines)


def test_what_the_search_cost_counts_dropped_and_failed_candidates():
    trials = (
        trial(1.0, 1.0), trial(1.1, 1.193), trial(0.9, 0.5, False), trial(0.8, 0.4, False), trial(1.2, math.nan, False),
    )  # fmt: skip
    lines = verdict(result(finished=trials, failed=1))
    assert "Cost: 4 candidates, 2 of them dropped after a part of the prompts; 60 pictures of 4 steps." in lines
    assert "1 candidate made pictures that could not be scored." in lines
    blind = verdict(result(finished=(trial(1.0, math.nan), *trials), failed=3, optimism=math.nan))
    assert "3 candidates made pictures that could not be scored." in blind
    assert "One of them is the stock sampler itself: the search had nothing to compare with." in blind


def test_candidates_that_were_held_back_are_counted_apart():
    trials = (trial(1.0, 1.0), trial(1.1, 1.193), trial(0.9, 0.5, False), held_back(1.2, 1.5))
    lines = verdict(result(finished=trials, guarded=("distance to full", "contrast")))
    assert (
        "Cost: 3 candidates, 1 of them dropped after a part of the prompts, 1 held back; 60 pictures of 4 steps."
        in lines
    )
    assert "No candidate could win that worsens: distance to full, contrast." in lines
    assert not [line for line in verdict(result()) if line.startswith("No candidate could")]


def test_the_objective_is_told_with_its_units():
    assert verdict(result(objective=Objective(0.5)))[-1] == "JAQ = TC + 0.5 IQ."
    assert verdict(result(objective=Objective(2.0, 0.0123, 0.456)))[-1] == (
        "JAQ = TC / 0.0123 + 2 IQ / 0.456: each in units of what the noise alone moves it by."
    )


# --- repair and re-tuning


def retuned(accepted: bool, **changed) -> Result:
    return result(answer="re-tuning", accepted=accepted, **changed)


@pytest.mark.parametrize(
    ("accepted", "first"), [(True, "Accepted, re-tuning: "), (False, "Re-tuning, identity recommended: ")]
)
def test_a_gain_that_the_reference_has_as_well_is_retuning(accepted, first):
    as_much = OnReference(row(jaq=1.3), row(jaq=1.5), gain(0.2), gain(-0.007))
    lines = verdict(retuned(accepted, on_reference=as_much))
    assert lines[0].startswith(first + "held-out JAQ +0.1930")
    assert lines[3] == (
        "So the gain is re-tuning of the sampler: the reference model gains as much. Your taste decides."
    )
    assert describe(retuned(True)).startswith("re-tuning, accepted: JAQ +0.1930")
    assert describe(retuned(False)).startswith("re-tuning, identity recommended: JAQ +0.1930")


def test_without_a_reference_nobody_can_tell():
    unknown = "There is no reference model: re-tuning cannot be told from repair here."
    assert verdict(retuned(False, on_reference=None))[1] == unknown
    assert unknown not in verdict(refused(on_reference=None))


def test_an_identity_has_no_control():
    lines = verdict(refused(coefficients=IDENTITY, gains=with_gains(jaq=gain(0.0, 0.0))))
    assert not any(line.startswith(("Control", "Net")) for line in lines)


# --- the table and JSON


def test_the_table_has_titles_means_and_costs():
    rows = [Row("quantised", row(tc=0.5, contrast=0.25), 2_500_000, 0.25), Row("more", row(tc=0.75, contrast=0.5))]
    assert table(rows) == {
        "columns": ["TC", "contrast", "weights MB", "s/picture"],
        "rows": [
            {"name": "quantised", "TC": 0.5, "contrast": 0.25, "weights MB": 2.5, "s/picture": 0.25},
            {"name": "more", "TC": 0.75, "contrast": 0.5, "weights MB": None, "s/picture": None},
        ],
    }  # fmt: skip


def test_the_table_leaves_out_costs_that_nobody_knows_and_survives_a_row_without_a_metric():
    result = table([Row("a", row(tc=0.5)), Row("b", row(tc=0.5, accuracy=math.nan))])
    assert result["columns"] == ["TC", "accuracy"]
    assert [line["accuracy"] for line in result["rows"]] == [None, None]


def test_the_json_is_plain_even_where_an_interval_is_not_finite():
    result = as_json({"jaq": Interval(0.1, -math.inf, math.inf, 1), "tc": gain(0.2, 0.1)})
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert result["jaq"] == {"gain": 0.1, "low": None, "high": None}
    # 1e-12: 0.2 ± 0.1 in binary.
    assert result["tc"] == pytest.approx({"gain": 0.2, "low": 0.1, "high": 0.3}, abs=1e-12)
