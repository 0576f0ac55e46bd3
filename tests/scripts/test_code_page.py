"""What Windows can print: its consoles and editors take code page 1252 where nobody chose another."""

from scripts.layout import ROOT

PACKAGES = ("nodes", "qsched_core", "calibration", "demo", "scripts", "benchmarks", "tests")


def test_no_source_file_holds_a_character_outside_code_page_1252():
    """Regression: comfy-test's lint refused the pack for arrows and Greek letters in comments and reports."""
    files = [ROOT / "__init__.py", *(path for name in PACKAGES for path in sorted((ROOT / name).rglob("*.py")))]
    outside = []
    for path in files:
        text = path.read_text("utf-8")
        strange = {character for character in set(text) if not character.encode("cp1252", "ignore")}
        if strange:
            lines = enumerate(text.splitlines(), 1)
            name = path.relative_to(ROOT).as_posix()
            outside += [(name, number, strange.intersection(line)) for number, line in lines if strange & set(line)]
    assert len(files) > 200
    assert outside == []
