"""The solver's path from a random start to the channel: still frames, and an animation."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.animation import FuncAnimation, PillowWriter
from matplotlib.figure import Figure

import ufm
from figures.drawing import Drawing, script
from ufm.plotting import LAMBDA_MAP, SINGLE_COLUMN, PlanarPanel, lambda_bar, planar_figure, projected_panel, style

_K, _DECAY, _NODES = 3, 1e-2, 24
# Iterations whose points are kept: every one at first, then ever fewer.
_KEPT = tuple(dict.fromkeys(int(x) for x in [0, *np.geomspace(1, 400, 42)]))
_STILLS = (0, 15, 40, 400)


@dataclass(frozen=True)
class _Frame:
    iteration: int
    panel: PlanarPanel


def draw(results: Path) -> Drawing:
    """Return four frames; the animation has all that are kept."""
    frames = _frames()
    stills = [min(frames, key=lambda frame: abs(frame.iteration - still)) for still in _STILLS]
    figure = planar_figure([frame.panel for frame in stills])
    caption = f"""
        Gradient descent on classifier and features together, K = {_K}, d = 2, mixup (alpha = 1, {_NODES} values of
        lambda), lambda_W = lambda_H = {_DECAY:g}, from a random start with seed 0. All there is lies in the plane:
        nothing is projected. Above each panel: iterations, and the proved distance of the objective from its global
        minimum. Computed; no data. The animation shows the whole path.
    """
    return Drawing(figure, "From a random start to the channel", caption, {".gif": lambda path: _animate(frames, path)})


def _frames() -> list[_Frame]:
    targets = ufm.Mixup(_K, alpha=1.0).targets(_NODES)
    problem = ufm.UFM(targets, 2, _DECAY, _DECAY)
    a, b, lam = (np.asarray(column) for column in (targets.class_a, targets.class_b, targets.lam))
    # Each from the same start anew: a solve that goes on from another's end chooses its first step afresh.
    points = [
        (kept, ufm.solve(problem, "gradient_descent", max_iter=kept, tol=1e-12, seed=0, device="cpu")) for kept in _KEPT
    ]
    # One rotation for all frames, which brings the last one's rows to where the other figures have them.
    turn = np.asarray(ufm.classifier_plane(points[-1][1].classifier).matrix).T
    frames = []
    for iteration, at in points:
        title = f"{iteration} iterations\ngap {at.certificate.gap:.1e}"
        rows, features = (np.asarray(x) @ turn for x in (at.classifier, at.features))
        frames.append(_Frame(iteration, projected_panel(title, rows, features, a, b, lam)))
    return frames


def _animate(frames: list[_Frame], path: Path) -> None:
    reach = 1.1 * max(float(np.abs(frame.panel.mixed).max()) for frame in frames)
    with style():
        figure = Figure(figsize=(SINGLE_COLUMN, SINGLE_COLUMN + 0.5))
        axis = figure.subplots()
        lambda_bar(figure, "λ, weight of the pair's first class", axes=[axis])
        first = frames[0].panel
        rays = [axis.plot([], [], color="0.75", linewidth=1)[0] for _ in range(_K)]
        mixed = axis.scatter(*first.mixed.T, s=7, c=first.lam, cmap=LAMBDA_MAP, vmin=0, vmax=1, linewidths=0)
        same = axis.scatter(*first.same.T, s=14, marker="x", linewidths=0.8, color="0.2")
        axis.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
        axis.set_axis_off()

        def show(frame: _Frame) -> list:
            for ray, row in zip(rays, frame.panel.rows, strict=True):
                ray.set_data(*(reach * np.outer([0, 1], row / np.linalg.norm(row))).T)
            mixed.set_offsets(frame.panel.mixed)
            same.set_offsets(frame.panel.same)
            axis.set_title(frame.panel.title)
            return [mixed, same, *rays]

        # The last frame stays for a while before it begins anew.
        shown = [*frames, *[frames[-1]] * 12]
        animation = FuncAnimation(figure, show, frames=shown, blit=False)  # pyright: ignore[reportArgumentType]
        animation.save(path, writer=PillowWriter(fps=8), dpi=110)


if __name__ == "__main__":
    script(__file__, __doc__)
