"""One script per figure. Each module has `draw(run) -> Figure`, which reads a run folder's committed numbers."""

from pathlib import Path

from matplotlib.figure import Figure

from figures import channel, confidence, planar

FIGURES = {"planar": planar.draw, "channel": channel.draw, "confidence": confidence.draw}


def draw_all(run: Path, out: Path) -> dict[str, Path]:
    """Draw every figure of the run folder into `out` as PNG and PDF; return the PNG files by name."""
    return {name: save(draw(run), name, out) for name, draw in FIGURES.items()}


def save(figure: Figure, name: str, out: Path) -> Path:
    """Write a figure as PNG and PDF, and return the PNG's path."""
    from ufm.plotting import style
    from ufm.storage import atomic_path

    with style():
        for suffix, metadata in ((".png", {}), (".pdf", {"CreationDate": None})):
            with atomic_path(out / f"{name}{suffix}") as temporary:
                figure.savefig(temporary, metadata=metadata)
    return out / f"{name}.png"
