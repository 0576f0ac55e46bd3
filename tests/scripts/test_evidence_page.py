"""Every figure of docs/EVIDENCE.md and of README's table of sizes is read from a result file."""

from __future__ import annotations

import re

import jinja2
import pytest

from benchmarks import record
from scripts import evidence_page
from scripts.layout import ROOT

ANEW = "run python -m scripts.evidence_page"


def test_the_page_is_what_the_results_say():
    results = evidence_page.results()
    assert evidence_page.render("EVIDENCE.md.jinja", results) == evidence_page.PAGE.read_text("utf-8"), ANEW
    readme = evidence_page.README.read_text("utf-8")
    assert evidence_page.with_sizes(readme, evidence_page.render("sizes.md.jinja", results)) == readme, ANEW


def test_a_figure_that_is_not_there_is_an_error():
    results = evidence_page.results()
    del results["verdict"]["prompts"]["24"]["gamed score"]
    with pytest.raises(jinja2.UndefinedError):
        evidence_page.render("EVIDENCE.md.jinja", results)


def test_a_result_of_an_earlier_demo_model_is_marked():
    """Figures of the first demo, of 64 pixels, must not pass for those of the one that lies here."""
    results = evidence_page.results()
    today = {**results["damage"], "ran_on": {**results["damage"]["ran_on"], "demo": record.demo_hash()}}
    before = {**today, "ran_on": {**today["ran_on"], "demo": "0" * 12}}
    others = {name: result for name, result in results.items() if not evidence_page.on_earlier_demo(result)}
    pages = [evidence_page.render("EVIDENCE.md.jinja", {**results, **others, "damage": one}) for one in (today, before)]
    mark = "Measured on an earlier demo model"
    assert pages[1].count(mark) == pages[0].count(mark) + 1
    assert re.search(r"not yet again.*\bdamage\b", pages[1], re.DOTALL)


def test_what_was_measured_on_the_demo_says_on_which():
    calls = {
        path.stem: path.read_text("utf-8").count("on_demo=True")
        for path in (ROOT / "benchmarks").glob("*.py")
        if path.stem != "record"
    }
    results = evidence_page.results()
    assert all("demo" in results[name]["ran_on"] for name, count in calls.items() if count and name in results)


def test_the_texts_of_the_page_hold_no_measured_figure_of_their_own():
    """Figures with decimals, ratios and per cent come from the results; what a rule is made of is no figure."""
    text = (evidence_page.TEMPLATES / "EVIDENCE.md.jinja").read_text("utf-8")
    words = re.sub(r"\{[{%#].*?[}%#]\}", "", text, flags=re.DOTALL)
    assert set(re.findall(r"\d+(?:\.\d+)? ?%|\d+\.\d+", words)) <= {"99 %"}


def test_readme_holds_no_measured_figure_but_that_table():
    readme = evidence_page.README.read_text("utf-8")
    before, rest = readme.split(evidence_page.BEGIN)
    words = before + rest.split(evidence_page.END)[1]
    words = re.sub(r"```.*?```", "", words, flags=re.DOTALL)
    figures = set(re.findall(r"\d+(?:\.\d+)? ?%|(?<![\w.-])\d+\.\d+(?![\w.])", words))
    assert figures <= {"0.24", "0.31", "2509.01624"}, figures


def test_readme_is_one_sitting():
    assert len(evidence_page.README.read_text("utf-8").splitlines()) <= 150


@pytest.mark.parametrize(
    ("size", "card"), [(1.4, "8 GB"), (6.4, "12 GB"), (10.0, "12 GB"), (10.1, "24 GB"), (30, "more than 24 GB")]
)
def test_the_smallest_card_holds_the_model_and_the_rest(size, card):
    assert evidence_page.smallest_card(size) == card


def test_links_of_readme_and_of_the_page_lead_somewhere():
    for page in (evidence_page.README, evidence_page.PAGE, ROOT / "CONTRIBUTING.md", ROOT / "docs" / "ARCHITECTURE.md"):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), (page.name, target)


@pytest.mark.parametrize("page", sorted((ROOT / "web" / "docs").glob("QSchedSensitivity/*.md"), key=str), ids=str)
def test_the_help_on_sensitivity_has_the_figures_of_its_benchmark(page):
    depths = evidence_page.results()["sensitivity"]["depths"]
    rows = {depth: {row["plan"].replace("/g32", ""): row for row in depths[depth]} for depth in depths}
    plans = ("w4a8 everywhere", "planned, as large as w4a8", "planned, 5.0 bits", "planned, 5.5 bits",
             "w6a8 everywhere", "planned, as large as w6a8")  # fmt: skip
    lines = [tuple(f"{rows[depth][plan]['error']:.3f}" for depth in ("network", "layers")) for plan in plans]
    for text in (page.read_text("utf-8"), (ROOT / "web" / "docs" / "QSchedSensitivity.md").read_text("utf-8")):
        assert re.findall(r"\| \d\.\d+ \| (0\.\d{3}) \| (0\.\d{3}) \|", text) == lines
