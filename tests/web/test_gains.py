"""The page colours gains by the same rule as Python's plots (tests/calibration/test_gains.py)."""

from __future__ import annotations

import json

import pytest

from scripts.layout import ROOT

CASES = json.loads((ROOT / "tests" / "golden" / "gains.json").read_text("utf-8"))

RULE = """async ([source, cases]) => {
  const { gainsOf, shareOf, unitOf } = await import(`data:text/javascript,${encodeURIComponent(source)}`);
  return cases.map(({ values, identity }) => {
    const gains = gainsOf({ points: values.map(jaq => ({ jaq })), identity }), unit = unitOf(gains);
    return { gains, unit, shares: gains.map(gain => gain === null ? null : shareOf(gain, unit)) };
  });
}"""


def test_gains_their_unit_and_their_place_among_the_colours(browser):
    page = browser.new_page()
    result = page.evaluate(RULE, [(ROOT / "web" / "calibration" / "gains.js").read_text("utf-8"), CASES])
    page.close()
    for case, ours in zip(CASES, result, strict=True):
        assert ours["unit"] == pytest.approx(case["unit"]), case["about"]
        for key in ("gains", "shares"):
            assert [one is None for one in ours[key]] == [one is None for one in case[key]], case["about"]
            numbers = [(one, other) for one, other in zip(ours[key], case[key], strict=True) if other is not None]
            assert all(one == pytest.approx(other) for one, other in numbers), (case["about"], numbers)
