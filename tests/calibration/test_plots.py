"""Pictures for people: that marks stand where the numbers say, and that no input, however odd, breaks them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from calibration import Evaluation, Settings, Trial
from calibration.plots import canvas as canvas_file
from calibration.plots.canvas import GAIN, LOSS, WIDTH, Canvas, drawable, labels, report_sheet, ticks
from calibration.plots.curves import curves
from calibration.plots.paired_gains import paired_plot
from calibration.plots.search_map import jaq_map
from calibration.search.space import Space
from qsched_core import Coefficients

GREY = (128, 134, 145)


def pixels(image) -> np.ndarray:
    return np.asarray(image).astype(int)


def count(image, colour, near: float = 12) -> int:
    """Pixels of a colour, or almost: edges are smoothed."""
    return int((np.abs(pixels(image) - colour).max(-1) <= near).sum())


@pytest.fixture
def coarse(monkeypatch):
    """For tests that look at no edge: drawn in the final size, where each picture takes a tenth of the time."""
    monkeypatch.setattr(canvas_file, "_FINE", 1)


# --- the map


def space(kind: str = "constant", n_steps: int = 4, **changed) -> Space:
    return Space(Settings(**{"space": kind, "radius": 0.2, "strategy": "guided", **changed}), n_steps)


def tried(value: float, whole: bool = True, **point: float) -> Trial:
    return Trial(point, value, 12, whole)


def constants(*values: tuple[float, float, float]) -> list[Trial]:
    return [tried(value, c_x=c_x, c_eps=c_eps) for c_x, c_eps, value in values]


def spot(c_x: float, c_eps: float, radius: float = 0.2) -> tuple[int, int]:
    """(column, row) in a map of one panel: 560 pixels at (74, 92) with a margin of 6 % of the region's width."""
    whole = 2 * radius * 1.12
    x, y = ((value - 1 + radius * 1.12) / whole * 560 for value in (c_x, c_eps))
    return round(74 + x), round(92 + 560 - y)


FEW = constants((1, 1, 0.5), (0.9, 1.1, 0.7), (1.1, 0.9, -3.0), (0.85, 1.15, 0.4))


def test_the_best_is_ringed_where_it_lies_and_nothing_else_is():
    image = pixels(jaq_map(FEW, space(), Coefficients.constant(4, c_x=0.9, c_eps=1.1)))
    for trial in FEW[1:]:
        column, row = spot(trial.point["c_x"], trial.point["c_eps"])
        ring = image[row, column + 11]
        assert (ring.max() < 80) == (trial is FEW[1])
    column, row = spot(1, 1)
    assert image[row, column].max() < 80  # the identity's cross
    assert image[row, column + 7].max() < 80
    assert image[row + 4, column + 4].min() > 200


def test_gains_are_blue_losses_orange_and_a_catastrophe_does_not_flatten_them():
    image = pixels(jaq_map(FEW, space(), Coefficients.identity(4)))
    best, awful, bad = (image[spot(t.point["c_x"], t.point["c_eps"])[::-1]] for t in FEW[1:])
    assert best[2] > best[0] + 50  # blue above red
    assert awful[0] > awful[2] + 50
    # A quarter of the way to the catastrophe's colour, which stands for all losses of 0.4 and more.
    assert bad[0] > bad[2]
    assert bad.min() > 120


@pytest.fixture
def texts(monkeypatch):
    """What is written into pictures, in its order."""
    words, draw = [], Canvas.text

    def text(self, x, y, text, *arguments, **options):
        words.append(text)
        return draw(self, x, y, text, *arguments, **options)

    monkeypatch.setattr(Canvas, "text", text)
    return words


def test_the_colours_have_their_numbers(texts):
    """From twice the best gain lost, through none in the middle, to the best gain, which is 0.2 in ``FEW``."""
    row = pixels(jaq_map(FEW, space(), Coefficients.identity(4)))[92 + 560 + 68]
    assert "JAQ gain over the identity" in texts
    numbers = texts.index("< -0.40")
    assert texts[numbers : numbers + 4] == ["< -0.40", "-0.20", "0", "+0.20"]
    (worst, *_), (*_, best) = (np.flatnonzero(np.abs(row - end).max(-1) < 8) for end in ((140, 54, 0), (0, 58, 108)))
    assert 255 < best - worst < 270
    quarters = [row[round(worst + share * (best - worst))] for share in (0.25, 0.5, 0.75)]
    # Halfway between two colours of the scale, its middle, and halfway again; 8: one pixel more or less.
    for colour, expected in zip(quarters, ((230, 140, 66), (238, 238, 238), (72, 156, 205)), strict=True):
        assert np.abs(colour - expected).max() < 8


def test_the_legend_counts_the_signs_that_are_there(texts):
    jaq_map(FEW, space(), Coefficients.identity(4))
    assert texts[-3:] == ["best", "identity", "3 tried on all prompts"]
    more = [tried(0.6, False, c_x=0.95, c_eps=1.05), tried(math.nan, c_x=1.05, c_eps=0.95)]
    with_more = jaq_map([*FEW, *more], space(), Coefficients.identity(4))
    assert texts[-5:] == ["best", "identity", "3 tried on all prompts", "1 dropped early", "1 not scored"]
    # A sign stands 20 pixels left of its text, which begins 22 after the one before.
    y, best = 92 + 560 + 68 + 54, 74 + 13
    identity = best + 20 + round(Canvas(1, 1).width("best", 14)) + 22 + 13
    legend = pixels(with_more)
    assert legend[y, best + 11].max() < 80 and legend[y, best].min() > 200, "a ring"
    assert legend[y, identity].max() < 80 and legend[y, identity + 7].max() < 80, "a cross"
    assert count(legend[y - 14 :], GREY) > 10, "the x of a candidate that was not scored"


def test_without_a_score_of_the_identity_gains_are_over_the_median(texts, coarse):
    jaq_map(constants((1, 1, math.nan), (0.9, 1.1, 0.3), (0.8, 1.1, 0.2)), space(), Coefficients.identity(4))
    assert "JAQ gain over the median" in texts


def test_where_all_score_alike_no_colour_is_explained(texts, coarse):
    jaq_map(constants((1, 1, 0.5), (0.9, 1.1, 0.5)), space(), Coefficients.identity(4))
    assert "all candidates score alike" in texts


def test_a_dropped_candidate_is_hollow_and_one_that_failed_is_no_dot():
    trials = [*FEW[:1], tried(0.7, False, c_x=0.9, c_eps=1.1), tried(math.nan, c_x=1.1, c_eps=0.9)]
    image = pixels(jaq_map(trials, space(), Coefficients.identity(4)))
    column, row = spot(0.9, 1.1)
    assert image[row, column].min() > 240
    assert image[row, column + 3].max() < 240
    column, row = spot(1.1, 0.9)
    assert np.abs(image[row + 2, column + 2] - GREY).max() < 40
    assert image[row, column + 3].min() > 220


@pytest.mark.parametrize(
    ("kind", "n_steps", "panels"),
    [
        ("both ends", 4, 2),
        ("both ends", 1, 1),
        ("first step", 4, 1),
        ("last step", 4, 1),
        ("last step", 1, 1),
        ("constant", 16, 1),
        ("table", 1, 1),
        ("table", 2, 2),
        ("table", 16, 3),
    ],
)
def test_every_space_has_its_panels(kind, n_steps, panels, coarse):
    own = space(kind, n_steps)
    generator = np.random.default_rng(0)
    points = [own.identity(), *(dict.fromkeys(own.axes, value) for value in generator.uniform(0.8, 1.2, 8))]
    trials = [tried(value, **point) for value, point in zip(generator.normal(size=9), points, strict=True)]
    image = jaq_map(trials, own, own.coefficients(points[3]))
    assert 650 <= image.width <= 1050
    # The frame of a panel is a box on a band of its own colour, left and right of which is white.
    band = np.abs(pixels(image)[96] - (246, 247, 249)).max(-1) == 0
    assert (np.diff(band.astype(int)) == 1).sum() == panels


def test_a_panel_shows_its_own_step():
    """Both ends: what the first step has and what the last one has are not the same."""
    own = space("both ends")
    point = {"c_x_first": 0.9, "c_x_last": 1.1, "c_eps_first": 1.1, "c_eps_last": 1.15}
    trials = [tried(0.0, **own.identity()), tried(0.1, **point)]
    image = pixels(jaq_map(trials, own, Coefficients.identity(4)))
    for left, c_x, c_eps in ((74, 0.9, 1.1), (74 + 410 + 74, 1.1, 1.15)):
        x, y = ((value - 1 + 0.224) / 0.448 * 410 for value in (c_x, c_eps))
        colour = image[round(92 + 410 - y), round(left + x)]
        assert colour[2] > colour[0] + 50


def test_greedy_trials_show_in_the_panel_of_their_step_alone(coarse):
    """A trial of step 2 says nothing of step 1; the panels are of steps 1, 3 and 4 of 4."""
    own = space("table")
    start = tried(0.0, c_x_1=1.0, c_eps_1=1.0)
    without = jaq_map([start], own, Coefficients.identity(4))
    elsewhere = jaq_map([start, tried(0.2, c_x_2=0.9, c_eps_2=1.1)], own, Coefficients.identity(4))
    here = jaq_map([start, tried(0.2, c_x_1=0.9, c_eps_1=1.1)], own, Coefficients.identity(4))
    panels = slice(92, 92 + 270)
    assert (pixels(without)[panels] == pixels(elsewhere)[panels]).all()
    assert (pixels(without)[panels] != pixels(here)[panels]).any()


@pytest.mark.parametrize(
    "trials",
    [
        [],
        FEW[:1],
        constants((1, 1, math.nan), (0.9, 1.1, math.nan)),
        constants((1, 1, math.nan), (0.9, 1.1, 0.3), (0.8, 1.1, 0.2)),
        constants((1, 1, 0.5), (0.9, 1.1, 0.5)),
        constants((1, 1, 0.5), (0.9, 1.1, 0.4)),
        constants((1, 1, 1e9), (0.9, 1.1, 1e9 + 1e-3)),
        constants((1, 1, 0.0), (0.9, 1.1, -math.inf), (0.8, 1.1, math.inf)),
    ],
    ids=["none", "one", "all NaN", "identity NaN", "equal", "only worse", "tiny", "infinite"],
)
@pytest.mark.parametrize("radius", [0.01, 0.5])
def test_odd_searches_have_a_map(trials, radius, coarse):
    trials = [tried(t.value, c_x=1 + (t.point["c_x"] - 1) * radius, c_eps=1.0) for t in trials]
    assert jaq_map(trials, space(radius=radius), Coefficients.identity(4)).size == (666, 830)


def test_the_paper_s_grid_of_2500_points_is_drawn(coarse):
    points = [
        (c_x, c_eps, -((c_x - c_eps) ** 2)) for c_x in np.linspace(0.8, 1.2, 50) for c_eps in np.linspace(0.8, 1.2, 50)
    ]
    assert jaq_map(constants((1, 1, 0), *points), space(), Coefficients.identity(4)).size == (666, 830)


# --- prompt by prompt


def rows(gains, seeds: int = 2, base: float = 0.5, metric: str = "jaq") -> tuple[Evaluation, Evaluation]:
    """One prompt per gain, each with ``seeds`` noises."""
    n = len(gains)
    indices = tuple(prompt + n * (1 + seed) for seed in range(seeds) for prompt in range(n))
    before = base + 0.01 * np.arange(n)
    return tuple(
        Evaluation(indices, {metric: np.tile(scores, seeds)}) for scores in (before, before + np.asarray(gains))
    )


ROW, TOP = 23, 94


def test_prompts_stand_in_the_order_of_their_gains_in_the_colour_of_their_sign():
    image = pixels(paired_plot(*rows([-0.2, 0.3, 0.1]), 3))
    colours = [
        [count(image[TOP + i * ROW : TOP + (i + 1) * ROW, 340:930], colour) for colour in (GAIN, LOSS)]
        for i in range(3)
    ]
    assert [blue > 0 for blue, _ in colours] == [True, True, False]
    assert [orange > 0 for _, orange in colours] == [False, False, True]
    assert colours[0][0] > 2 * colours[1][0]  # three times the gain


def test_the_colours_of_prompts_are_explained(texts):
    heading = pixels(paired_plot(*rows([-0.2, 0.3, 0.1]), 3))[50:74]
    assert "JAQ of 3 held-out prompts, without and with Q-Sched" in texts
    assert {"without", "with, better", "with, worse", "gain"} <= set(texts)
    # Better stands left of worse; a dot of radius 5.5 covers some 95 pixels.
    better, worse = (np.flatnonzero((np.abs(heading - colour).max(-1) <= 12).any(0)) for colour in (GAIN, LOSS))
    assert 8 <= len(better) <= 12 and 8 <= len(worse) <= 12
    assert better.max() < worse.min()
    paired_plot(*rows([-0.2], metric="distance to full"), 1, metric="distance to full")
    assert "change" in texts
    assert any(text.endswith("of 1 held-out prompt, without and with Q-Sched, lower is better") for text in texts)


def test_a_distance_is_better_when_it_falls():
    image = pixels(paired_plot(*rows([-0.2, 0.3], metric="distance to full"), 2, metric="distance to full"))
    first, second = (image[TOP + i * ROW : TOP + (i + 1) * ROW, 340:930] for i in range(2))
    assert count(first, GAIN) and not count(first, LOSS)
    assert count(second, LOSS) and not count(second, GAIN)


def interval_colours(image) -> tuple[int, int]:
    """Pixels of gain and of loss in the row of the mean, below a plot of few prompts."""
    strip = pixels(image)[-100:-76, 340:930]
    return count(strip, GAIN), count(strip, LOSS)


def test_the_mean_has_a_colour_only_when_its_interval_is_clear_of_zero():
    up, down = (
        interval_colours(paired_plot(*rows([0.2, 0.3, 0.25]), 3)),
        interval_colours(paired_plot(*rows([-0.2, -0.3, -0.25]), 3)),
    )
    assert up[0] > 100 and not up[1]
    assert down[1] > 100 and not down[0]
    assert interval_colours(paired_plot(*rows([0.2, -0.3, 0.25]), 3)) == (0, 0)


def test_a_wider_level_has_a_wider_interval():
    widths = [interval_colours(paired_plot(*rows([0.2, 0.3, 0.25]), 3, confidence=level))[0] for level in (0.5, 0.9)]
    assert widths[1] > widths[0]


def test_broken_pictures_count_as_no_gain_and_an_unscored_prompt_has_no_line():
    identity, candidate = rows([0.3, 0.2, 0.1])
    candidate.scores["jaq"][[2, 5]] = math.nan
    image = pixels(paired_plot(identity, candidate, 3))
    last = image[TOP + 2 * ROW : TOP + 3 * ROW, 340:930]
    assert count(last, GAIN) == count(last, LOSS) == 0
    # Prompt 1 lost one of its two pictures: half the gain is left, so prompt 2 now stands first.
    candidate.scores["jaq"][0] = math.nan
    halved = pixels(paired_plot(identity, candidate, 3))
    assert count(halved[TOP : TOP + ROW, 340:930], GAIN) > count(halved[TOP + ROW : TOP + 2 * ROW, 340:930], GAIN)


STRANGE = (
    "a red circle",
    "",
    "x" * 10_000,
    "W" * 2000,
    "\U0001f984\U0001f308 party \U0001f389\U0001f389\U0001f389",
    "\u4e00\u53ea\u53ef\u7231\u7684\u732b\u5750\u5728\u7a97\u53f0\u4e0a",
    "\u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645",
    "café naïve Ångström",
    "a\u0301\u0302\u0303" * 3000,
    "tab\tline\nbell\x07null\x00",
    "\ud800 lone surrogate",
    "<script>alert(1)</script>",
)


def test_strangers_texts_are_cut_to_their_column():
    identity, candidate = rows([0.1 * i for i in range(len(STRANGE))])
    image = pixels(paired_plot(identity, candidate, len(STRANGE), STRANGE))
    body = image[TOP : TOP + len(STRANGE) * ROW]
    assert (body[:, 332:345] == 255).all()
    assert (body[:, 54:332] < 128).any()


@pytest.mark.parametrize("n", [1, 2, 40, 41, 128, 256])
def test_any_number_of_prompts_fits_on_a_screen_or_two(n, coarse):
    generator = np.random.default_rng(n)
    image = paired_plot(*rows(generator.normal(size=n), seeds=1), n, ["a prompt"] * n)
    assert image.width == WIDTH
    assert 300 < image.height < 1600


@pytest.mark.parametrize("base", [0.0, 1e9, -3.0])
@pytest.mark.parametrize("gains", [[0.0, 0.0], [1e-12, -1e-12], [math.nan, math.nan], [math.inf, 1.0]])
def test_odd_scores_have_a_plot(base, gains, coarse):
    assert paired_plot(*rows(gains, base=base), 2).width == WIDTH


# --- the curves


@pytest.mark.parametrize("steps", [1, 2, 4, 16, 1000])
def test_curves_of_any_length(steps, coarse):
    coefficients = Coefficients.ramp(steps, c_x=(0.8, 1.0), c_eps=(1.3, 1.0))
    sigmas = (*np.geomspace(14.6, 0.03, steps), 0.0)
    image = curves(coefficients, sigmas)
    assert image.width == WIDTH
    assert count(image, LOSS) > 50  # c_x
    assert count(image, GAIN) > 50  # c_eps
    assert curves(coefficients).height < image.height


def test_equal_curves_stay_two():
    image = curves(Coefficients.identity(4))
    assert count(image, LOSS) > 150
    assert count(image, GAIN) > 150


def test_the_curves_stand_at_their_values():
    """c_eps above c_x at the first step, below it at the last."""
    image = pixels(curves(Coefficients((0.9, 1.1), (1.1, 0.9)), (1.0, 0.5, 0.0)))
    for half, above in ((slice(70, 330), GAIN), (slice(700, 850), LOSS)):
        rows_of = [
            np.argwhere(np.abs(image[60:270, half] - colour).max(-1) <= 12)[:, 0].mean() for colour in (GAIN, LOSS)
        ]
        assert (rows_of[0] < rows_of[1]) == (above == GAIN)


# --- the canvas


def test_a_sheet_has_all_pictures_below_each_other(coarse):
    one, two = curves(Coefficients.identity(4)), jaq_map(FEW, space(), Coefficients.identity(4))
    sheet = report_sheet([one, two])
    assert sheet.size == (1000, one.height + two.height)
    assert (pixels(sheet)[: one.height] == pixels(one)).all()
    assert (pixels(sheet)[one.height :, 167 : 167 + two.width] == pixels(two)).all()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a  red\n circle", "a red circle"),
        ("café Ångström", "cafe Angstrom"),
        ("a \U0001f984\U0001f308 party", "a … party"),
        ("\u4e00\u53ea \u53ef\u7231, cinematic", "…, cinematic"),
        ("wait… what", "wait... what"),
    ],
)
def test_what_the_font_lacks_becomes_one_ellipsis(text, expected):
    assert drawable(text) == expected


@pytest.mark.parametrize("text", STRANGE)
@pytest.mark.parametrize("width", [40, 276])
def test_a_fitted_text_fits_and_is_not_cut_too_early(text, width):
    canvas = Canvas(10, 10)
    fitted = canvas.fitted(text, 14, width)
    assert canvas.width(fitted, 14) <= width
    if fitted != drawable(text):
        assert canvas.width(fitted, 14) > width - 20 or len(text) > 2000


@pytest.mark.parametrize(
    ("low", "high", "most", "values"),
    [
        (0.8, 1.2, 6, ["0.8", "0.9", "1.0", "1.1", "1.2"]),
        (0.97, 1.03, 4, ["0.98", "1.00", "1.02"]),
        (-0.13, 0.07, 5, ["-0.10", "-0.05", "0.00", "0.05"]),
        (0.0, 1000.0, 3, ["0", "500", "1000"]),
        (2.0, 2.0, 5, ["2"]),
    ],
)
def test_ticks_are_round_numbers(low, high, most, values):
    places = ticks(low, high, most)
    assert len(places) <= most
    assert all(low - 1e-9 <= value <= high + 1e-9 for value in places)  # 1e-9: an end itself, as it is computed
    assert labels(places) == values
