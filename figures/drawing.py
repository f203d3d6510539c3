"""What a figure is, and how it is drawn, saved and shown with its caption."""

import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image

from figures import NAMES
from ufm._support.arrays import check_choice
from ufm._support.console import run_command
from ufm._support.files import atomic_path, write_text
from ufm.plotting import style

RESULTS, OUTPUT = "experiments/results", "figures/output"
# Of figures with thousands of points, which would take megabytes at full resolution.
SCREEN_DPI, _DPI = 200, 300
# How every such page begins, and the rest of its first paragraph.
_BEGINNING = "# Figures\n\nDrawn by `make figures` from committed results"
_HEAD = f"{_BEGINNING}, as PNG and, not committed, as PDF."


@dataclass(frozen=True)
class Drawing:
    """A figure, its title and its caption, which states data, mode, seed and command.

    extra: what else belongs to it, by file suffix: functions that write a file. dpi: resolution of the PNG.
    """

    figure: Figure
    title: str
    caption: str
    extra: Mapping[str, Callable[[Path], None]] = field(default_factory=dict)
    dpi: int = _DPI


def draw(name: str, results: Path) -> Drawing:
    """Return a figure from a folder of results; raise ValueError for an unknown name or missing results."""
    check_choice("name", name, NAMES)
    return import_module(f"figures.{name}").draw(results)


def save(drawing: Drawing, name: str, out: Path) -> list[Path]:
    """Write PNG, PDF and what else there is, each with the caption in its metadata; return their paths.

    No date is written, so that the same results give the same files byte for byte.
    """
    caption = " ".join(f"{drawing.caption} Command: python -m figures --only {name}".split())
    metadata = {
        ".png": {"Title": drawing.title, "Description": caption},
        ".pdf": {"Title": drawing.title, "Subject": caption, "CreationDate": None},
    }
    with style():
        for suffix, words in metadata.items():
            with atomic_path(out / f"{name}{suffix}") as temporary:
                drawing.figure.savefig(temporary, metadata=words, dpi=drawing.dpi)
    for suffix, write in drawing.extra.items():
        with atomic_path(out / f"{name}{suffix}") as temporary:
            write(temporary)
    return [out / f"{name}{suffix}" for suffix in (*metadata, *drawing.extra)]


def gallery(out: Path) -> str:
    """Return the page of all pictures in a folder, with the captions that they carry, as Markdown."""
    parts = [_HEAD]
    for name in NAMES:
        path = out / f"{name}.png"
        if not path.is_file():
            continue
        with Image.open(path) as image:
            words = getattr(image, "text", {})
        if not {"Title", "Description"} <= words.keys():
            continue  # not drawn by `save`
        title, (caption, _, command) = words["Title"], words["Description"].partition(" Command: ")
        parts += [
            f"## {title}",
            f"![{title}]({name}.png)",
            textwrap.fill(caption, 120, break_long_words=False, break_on_hyphens=False),
        ]
        links = [f"`{command}`"]
        links += [f"[animation]({name}.gif)"] if (out / f"{name}.gif").is_file() else []
        parts.append(" · ".join(links))
    return "\n\n".join(parts) + "\n"


def draw_all(names: Sequence[str], results: Path, out: Path) -> None:
    """Draw and save figures, print their paths, and write a page of all that are in `out`, README.md.

    A README.md that is not such a page is left as it is.
    """
    if not results.is_dir():
        raise ValueError(f"results: got {str(results)!r}, expected a folder of results")
    for name in names:
        check_choice("only", name, NAMES)
    for name in names:
        for path in save(draw(name, results), name, out):
            print(path, flush=True)
    page = out / "README.md"
    if not page.is_file() or page.read_text(encoding="utf-8").startswith(_BEGINNING):
        write_text(page, gallery(out))


def script(file: str, description: str | None) -> None:
    """Run a figure's module as a script: draw that figure, and exit with the status."""
    name = Path(file).stem

    @dataclass(frozen=True)
    class One:
        """Draw one figure as PNG and PDF."""

        results: str = RESULTS
        """folder of results"""
        out: str = OUTPUT
        """folder for the files"""

        def run(self) -> int:
            draw_all([name], Path(self.results), Path(self.out))
            return 0

    sys.exit(run_command(One, prog=f"python -m figures.{name}", description=description))
