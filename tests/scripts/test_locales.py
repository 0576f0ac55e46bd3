"""Every node in every language: names, tooltips and help pages, complete and of nothing else; and what nodes say."""

from __future__ import annotations

import json
import re
from collections import Counter

import pytest

from scripts.layout import PACK_NAME, ROOT
from scripts.sentences import CATALOGUES, untranslated_errors, untranslated_lines

LANGUAGES = ("zh", "ja", "ko", "fr")
NODES = json.loads((ROOT / "tests" / "golden" / "object_info.json").read_text("utf-8"))
CODE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
NUMBER = re.compile(r"\d+(?:\.\d+)?")
OUR_FOLDERS = ("benchmarks", "calibration", "demo", "docs", "example_workflows", "nodes", "qsched_core", "web")

per_language = pytest.mark.parametrize("language", LANGUAGES)
per_page = pytest.mark.parametrize("language", ("en", *LANGUAGES))
per_node = pytest.mark.parametrize("node", NODES)


def read(language, name):
    return json.loads((ROOT / "locales" / language / name).read_text("utf-8"))


def page(language, node):
    """The front end asks for docs/<node>/<language>.md, then for docs/<node>.md: that is what everybody gets whose
    language is missing, so it is the English page."""
    folder = ROOT / "web" / "docs"
    return (folder / f"{node}.md" if language == "en" else folder / node / f"{language}.md").read_text("utf-8")


def without_fences(text):
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def rows_of(text):
    return [line for line in text.splitlines() if line.startswith("|")]


def inputs_of(node):
    """Tooltips by the key that the frontend looks up, where a dot is an underscore (normalizeI18nKey)."""
    tooltips = {}
    for group in ("required", "optional"):
        for name, spec in NODES[node]["input"].get(group, {}).items():
            tooltips[name] = spec[1].get("tooltip")
            if spec[0] == "COMFY_DYNAMICCOMBO_V3":
                for option in spec[1]["options"]:
                    inner = option["inputs"].get("required", {}) | option["inputs"].get("optional", {})
                    tooltips |= {f"{name}_{key}": value[1].get("tooltip") for key, value in inner.items()}
    return tooltips


def outputs_of(node):
    return {str(index): tooltip for index, tooltip in enumerate(NODES[node]["output_tooltips"])}


def texts_in(value):
    return [text for part in value.values() for text in texts_in(part)] if isinstance(value, dict) else [value]


@per_language
def test_the_nodes_translated_are_the_nodes_there_are(language):
    assert set(read(language, "nodeDefs.json")) == set(NODES)


def test_english_names_of_inputs_are_those_of_the_nodes():
    """Front end 1.47 shows an input's id where no catalogue names it, though the node does."""
    names = {}
    for node, schema in NODES.items():
        inputs = {**schema["input"].get("required", {}), **schema["input"].get("optional", {})}
        names[node] = {
            name: {"name": more["display_name"]} for name, (_, more) in inputs.items() if "display_name" in more
        }
    assert read("en", "nodeDefs.json") == {node: {"inputs": inputs} for node, inputs in names.items() if inputs}


@per_language
@per_node
def test_a_node_is_translated_in_full(language, node):
    translation = read(language, "nodeDefs.json")[node]
    assert set(translation) <= {"display_name", "description", "inputs", "outputs"}
    assert translation["description"] not in ("", NODES[node]["description"])
    for kind, tooltips in (("inputs", inputs_of(node)), ("outputs", outputs_of(node))):
        translated = translation.get(kind, {})
        assert set(translated) == set(tooltips), kind
        for key, tooltip in tooltips.items():
            assert set(translated[key]) == ({"name", "tooltip"} if tooltip else {"name"}), key
            assert all(text.strip() for text in translated[key].values()), key
            assert translated[key].get("tooltip") != tooltip or tooltip is None, key


@per_language
def test_a_display_name_is_translated_and_names_one_node(language):
    names = {node: translation["display_name"] for node, translation in read(language, "nodeDefs.json").items()}
    assert not [node for node, name in names.items() if name == NODES[node]["display_name"] or not name.strip()]
    assert len(set(names.values())) == len(names)


@per_language
def test_no_text_holds_what_the_frontend_would_take_for_a_command(language):
    """vue-i18n: @ links to another message, braces are placeholders, a bar separates plurals."""
    assert not [text for text in texts_in(read(language, "nodeDefs.json")) if set(text) & set("@{}|")]


@per_page
def test_the_templates_have_a_title(language):
    assert read(language, "main.json")["templateWorkflows"]["category"][PACK_NAME] == "Q-Sched"


@per_page
def test_the_pages_are_those_of_the_nodes(language):
    folder = ROOT / "web" / "docs"
    names = {path.stem for path in folder.glob("*.md")} if language == "en" else None
    assert (names or {path.parent.name for path in folder.glob(f"*/{language}.md")}) == set(NODES)


@per_page
@per_node
def test_a_page_starts_with_the_name_of_its_node(language, node):
    names = NODES if language == "en" else read(language, "nodeDefs.json")
    assert page(language, node).splitlines()[0] == f"# {names[node]['display_name']}"


@per_page
@per_node
def test_a_page_mentions_no_file_that_does_not_exist(language, node):
    text = page(language, node)
    names = [name for name in CODE.findall(text) if name.startswith(tuple(f"{folder}/" for folder in OUR_FOLDERS))]
    assert not [name for name in names if not ((ROOT / name).exists() or (ROOT / f"{name}.py").exists())]
    linked = [link for link in LINK.findall(text) if not link.startswith("https://")]
    assert not [link for link in linked if not (ROOT / "web" / "docs" / link).exists()]


@per_language
@per_node
def test_a_page_keeps_the_code_and_the_tables_of_the_english_one(language, node):
    english, translated = (without_fences(page(which, node)) for which in ("en", language))
    assert set(CODE.findall(english)) <= set(CODE.findall(translated))
    assert LINK.findall(english) == LINK.findall(translated)
    for row, other in zip(rows_of(english), rows_of(translated), strict=True):
        assert row.count("|") == other.count("|"), other
        assert not Counter(NUMBER.findall(row)) - Counter(NUMBER.findall(other)), other


def test_what_the_page_says_it_says_in_every_language():
    """web/shared/texts.js: English and the four others, with the same {names} in each."""
    source = (ROOT / "web" / "shared" / "texts.js").read_text("utf-8")
    entries = re.findall(r'^  ("[^"]+"|\w+): (\[.*?\]),$', source, flags=re.MULTILINE | re.DOTALL)
    assert len(entries) > 50
    for key, value in entries:
        texts = json.loads(re.sub(r",\s*\]", "]", value))
        assert len(texts) == 1 + len(LANGUAGES) and all(text.strip() for text in texts), key
        assert len({frozenset(re.findall(r"\{\w+\}", text)) for text in texts}) == 1, key


@per_language
def test_what_errors_and_reports_say_is_translated(language):
    """Of what is missing the words and the place: `python -m scripts.sentences` prints them, too."""
    missing = [*untranslated_errors(language), *untranslated_lines(language)]
    assert [f"{sentence.place}: {sentence.text}" for sentence in missing] == [], (
        f"write them into {CATALOGUES / language}.json"
    )
