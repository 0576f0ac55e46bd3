"""Make the sheet of drawings anew: ``python -m demo.drawings``. Training and use need only the sheet.

The drawings are Microsoft's Fluent emoji (flat, MIT licence), from an npm package whose version and hash are pinned.
npm fetches it; ``--package FILE`` takes the file that ``npm pack`` has left on another machine. CairoSVG draws them,
Chromium (through Playwright) where Cairo is missing.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import io
import json
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, PngImagePlugin

from .files import DRAWINGS, DRAWINGS_LIST
from .sheet import CELL_HEIGHT, CELL_WIDTH, COLUMNS, WIDTHS, corner

PACKAGE, VERSION = "@iconify-json/fluent-emoji-flat", "1.2.6"
INTEGRITY = "RY47RgPb47fYUiyrA64sIOL0+UU02s29sXpNBbIQRBUlPlfNFTKUmZDERGuxDs/7yNGWqQYvuaSYM1M4fRXlUw=="
"""SHA-512 of the package file in base64, as npm writes it into its lock files."""

LICENCE = "MIT, Copyright (c) Microsoft Corporation"
OVERSAMPLING = 4
"""Drawn this many times wider and averaged: clean edges from every rasteriser."""

CHOICE = {
    "apple": "red-apple",
    "banana": "banana",
    "strawberry": "strawberry",
    "watermelon": "watermelon",
    "pear": "pear",
    "pineapple": "pineapple",
    "carrot": "carrot",
    "mushroom": "mushroom",
    "pizza": "pizza",
    "burger": "hamburger",
    "donut": "doughnut",
    "cupcake": "cupcake",
    "dog": "dog-face",
    "cat": "cat-face",
    "pig": "pig-face",
    "panda": "panda",
    "frog": "frog",
    "bee": "honeybee",
    "penguin": "penguin",
    "owl": "owl",
    "fish": "tropical-fish",
    "whale": "spouting-whale",
    "crab": "crab",
    "turtle": "turtle",
    "butterfly": "butterfly",
    "giraffe": "giraffe",
    "car": "automobile",
    "bus": "bus",
    "tractor": "tractor",
    "plane": "airplane",
    "rocket": "rocket",
    "boat": "sailboat",
    "house": "house",
    "castle": "castle",
    "tree": "deciduous-tree",
    "cactus": "cactus",
    "sunflower": "sunflower",
    "moon": "crescent-moon",
    "star": "star",
    "rainbow": "rainbow",
    "snowman": "snowman",
    "umbrella": "umbrella",
    "balloon": "balloon",
    "gift": "wrapped-gift",
    "crown": "crown",
    "guitar": "guitar",
    "robot": "robot",
    "heart": "red-heart",
}
"""Word: drawing. Each word is one token of CLIP's tokenizer, each thing has a colour and an outline of its own."""

Rasteriser = Callable[[str, int], Image.Image]


def fetch_package(folder: Path) -> Path:
    """The package file, from the registry that npm is set to.

    Raises:
        RuntimeError: npm is missing, or cannot fetch it.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise RuntimeError(
            "Q-Sched: the drawings come by npm, which is not installed. Fix: install Node.js, or run "
            f"npm pack {PACKAGE}@{VERSION} elsewhere and give its file with --package"
        )
    result = subprocess.run([npm, "pack", f"{PACKAGE}@{VERSION}"], cwd=folder, capture_output=True, text=True)  # noqa: S603 - npm itself
    files = list(folder.glob("*.tgz"))
    if result.returncode or len(files) != 1:
        raise RuntimeError(f"Q-Sched: npm could not fetch {PACKAGE}@{VERSION}: {result.stderr.strip()[-300:]}")
    return files[0]


def read_icons(package: Path) -> dict[str, str]:
    """Drawing: its SVG text, of a package file.

    Raises:
        ValueError: the file is not the pinned version, byte for byte.
    """
    content = package.read_bytes()
    if base64.b64encode(hashlib.sha512(content).digest()).decode() != INTEGRITY:
        raise ValueError(f"Q-Sched: {package.name} is not {PACKAGE} {VERSION}. Fix: fetch that version")
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        icons = json.load(archive.extractfile("package/icons.json"))
    width, height = icons["width"], icons["height"]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="{width}"'
    head += f' height="{height}" viewBox="0 0 {width} {height}">'
    return {name: f"{head}{icon['body']}</svg>" for name, icon in icons["icons"].items()}


@contextmanager
def rasteriser():
    """A function (SVG, width) -> RGBA picture: CairoSVG, or Chromium where Cairo is missing."""
    try:
        import cairosvg  # finds the Cairo library on import: OSError where there is none
    except (ImportError, OSError):
        with _chromium() as draw:
            yield draw
        return

    def draw(svg: str, width: int) -> Image.Image:
        return Image.open(io.BytesIO(cairosvg.svg2png(svg.encode(), output_width=width, output_height=width)))

    yield draw


@contextmanager
def _chromium():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"))
        page = browser.new_page()

        def draw(svg: str, width: int) -> Image.Image:
            page.set_viewport_size({"width": width, "height": width})
            page.set_content(
                f"<style>body{{margin:0}}svg{{display:block;width:{width}px;height:{width}px}}</style>{svg}"
            )
            return Image.open(io.BytesIO(page.screenshot(omit_background=True)))

        yield draw
        browser.close()


def draw_thing(draw: Rasteriser, svg: str, widths: tuple[int, ...]) -> list[Image.Image]:
    """One drawing at each width, straight alpha.

    Raises:
        ValueError: nothing can be seen of it.
    """
    pictures = []
    for width in widths:
        large = draw(svg, width * OVERSAMPLING).convert("RGBA").convert("RGBa")  # averaged with colours times coverage
        picture = large.reduce(OVERSAMPLING).convert("RGBA")
        if picture.size != (width, width) or picture.getchannel("A").getextrema()[1] < 255:
            raise ValueError("nothing to see")
        pictures.append(picture)
    return pictures


def make_sheet(icons: dict[str, str], draw: Rasteriser, choice: dict[str, str]) -> dict[str, list[Image.Image]]:
    """Word: its pictures. A drawing that is not in the package or cannot be drawn is left out, and said."""
    pictures = {}
    for word, drawing in choice.items():
        try:
            pictures[word] = draw_thing(draw, icons[drawing], WIDTHS)
        except Exception as error:  # noqa: BLE001 - whatever a rasteriser raises: one drawing must not cost the others
            print(f"left out: {word} ({drawing}): {error!r}")
    return pictures


def save_sheet(pictures: dict[str, list[Image.Image]], sheet_file: Path, list_file: Path) -> None:
    """One PNG of all things and, beside it, what they are and whose."""
    rows = -(-len(pictures) // COLUMNS)
    sheet = Image.new("RGBA", (COLUMNS * CELL_WIDTH, rows * CELL_HEIGHT))
    for index, sizes in enumerate(pictures.values()):
        for width, picture in zip(WIDTHS, sizes, strict=True):
            sheet.paste(picture, corner(index, width))
    text = PngImagePlugin.PngInfo()
    text.add_text("Copyright", LICENCE)
    sheet.save(sheet_file, optimize=True, pnginfo=text)
    about = {"package": PACKAGE, "version": VERSION, "licence": LICENCE}
    about["things"] = {word: CHOICE[word] for word in pictures}
    list_file.write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    arguments = argparse.ArgumentParser(prog="python -m demo.drawings", description=__doc__)
    arguments.add_argument("--package", type=Path, help="the package file, where npm is missing")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder, rasteriser() as draw:
        icons = read_icons(options.package or fetch_package(Path(folder)))
        pictures = make_sheet(icons, draw, CHOICE)
    save_sheet(pictures, DRAWINGS, DRAWINGS_LIST)
    print(f"{len(pictures)} of {len(CHOICE)} things drawn. The nets know the words of one sheet: train them anew.")


if __name__ == "__main__":
    main()
