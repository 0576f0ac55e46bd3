"""What Windows can print: its consoles and editors take code page 1252 where nobody chose another."""

from scripts.layout import ROOT

PACKAGES = ("nodes", "qsched_core", "calibration", "demo", "scripts", "benchmarks", "tests")


def test_no_source_file_holds_a_character_outside_code_page_1252():
    """Regression: comfy-test's lint refused the pack for arrows and Greek letters in comments and reports."""
    files = [ROOT / "__init__.py", *(path for name in PACKAGES for path in sorted((ROOT / name).rglob("*.py")))]
    outside = [
        (path.relative_to(ROOT).as_posix(), number, character)
        for path in files
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        for character in line
        if not character.encode("cp1252", "ignore")
    ]
    assert len(files) > 200
    assert outside == []
