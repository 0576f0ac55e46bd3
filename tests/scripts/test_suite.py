"""Summing up runs of pytest: nothing that went wrong may look like success."""

from scripts.suite import Outcome, read_outcome

RESULTS = '<testsuites><testsuite tests="10" failures="{failures}" errors="{errors}" skipped="2"/></testsuites>'


def results(folder, failures=0, errors=0):
    path = folder / "results.xml"
    path.write_text(RESULTS.format(failures=failures, errors=errors), "utf-8")
    return path


def test_counts_are_read(tmp_path):
    assert read_outcome(0, results(tmp_path), may_be_empty=False) == Outcome(passed=8, skipped=2)
    assert read_outcome(1, results(tmp_path, 1, 2), may_be_empty=False) == Outcome(passed=5, failed=3, skipped=2)


def test_a_run_that_broke_off_is_a_failure(tmp_path):
    assert read_outcome(2, results(tmp_path), may_be_empty=False).failed == 1
    assert read_outcome(4, tmp_path / "none.xml", may_be_empty=True).failed == 1


def test_no_tests_are_a_failure_unless_a_selection_was_asked_for(tmp_path):
    assert read_outcome(5, tmp_path / "none.xml", may_be_empty=False) == Outcome(failed=1)
    assert read_outcome(5, tmp_path / "none.xml", may_be_empty=True) == Outcome()


def test_the_sum_is_one_line():
    assert str(Outcome(3, 0) + Outcome(4, 1, 2)) == "7 passed, 1 failed, 2 skipped"
    assert str(Outcome(3, 0)) == "3 passed, 0 failed"
