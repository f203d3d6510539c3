"""The result of a solve: point, certificate, reason of the end, history; to a file and back."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ufm._support.arrays import Array
from ufm._support.display import Displayed, Row
from ufm._support.files import to_json
from ufm._support.reading import parse_json, shown
from ufm._support.structuring import strict_converter, structure
from ufm._support.tensorfile import map_tensors, write_tensors
from ufm.solvers.certificate import Certificate
from ufm.solvers.problem import UFM
from ufm.theory.features import Response, fixed_classifier

if TYPE_CHECKING:
    import matplotlib.axes

_FORMAT = "ufm solution 1"
_EXPECTED = "a file written by Solution.save"
# Targets that are written out at a time.
_BLOCK = 2**14


class Message(StrEnum):
    """Why a solve ended."""

    CONVERGED = "what was asked of gradient norm and gap is reached"
    MAX_ITER = "the iteration limit was reached"
    STALLED = "no step along the search direction lowers the objective any more"
    INTERRUPTED = "interrupted; this is the best point so far"
    NOT_FINITE = "the objective or its gradient is not finite"


@dataclass(frozen=True)
class History:
    """What was recorded along the way, one entry per recorded iteration, as NumPy arrays (n,).

    Where the problem has no such number, entries are NaN, or L is 0.

    Attributes
    ----------
    iteration : (n,) array
        The number of the iteration.
    seconds : (n,) array
        Time since the start, without the time that recording took.
    objective, gradient_norm, gap : (n,) arrays
        As in `Certificate`; the gap infinite without one.
    nc1, nc2, nc3 : (n,) arrays
        Neural collapse of the features of targets that are not mixed.
    etf_error : (n,) array
        Relative distance of the classifier from the nearest simplex ETF.
    lam : (L,) array
        The mixing coefficients among the targets.
    width, depth : (n, L) arrays
        Of the channel, at each coefficient.
    """

    iteration: np.ndarray
    seconds: np.ndarray
    objective: np.ndarray
    gradient_norm: np.ndarray
    gap: np.ndarray
    nc1: np.ndarray
    nc2: np.ndarray
    nc3: np.ndarray
    etf_error: np.ndarray
    lam: np.ndarray
    width: np.ndarray
    depth: np.ndarray

    def followed_by(self, other: "History") -> "History":
        """Return this history followed by that of a resumed solve, whose first entry repeats the last one here.

        Where only one of the two has the channel, the joined one has none.
        """
        first = 1 if len(other.iteration) > 1 else 0
        one, two = self, other
        if len(self.lam) != len(other.lam):
            one, two = (
                replace(h, lam=np.zeros(0), width=np.zeros((len(h.width), 0)), depth=np.zeros((len(h.depth), 0)))
                for h in (self, other)
            )
        joined = {f.name: np.concatenate([getattr(one, f.name), getattr(two, f.name)[first:]]) for f in fields(self)}
        return History(**{**joined, "lam": one.lam})


@dataclass(frozen=True, repr=False)
class Solution(Displayed):
    """The result of a solve.

    Where the solve did not converge, the point is the one of the lowest objective (up to rounding, of the smallest
    gradient among those), and the last entry of the history belongs to it.

    Attributes
    ----------
    classifier : (K, d) tensor
        W, on the device that was computed on, like every array here.
    stored_features : (N, d) tensor or None
        H, which `features` returns; None after a solve that did not store it.
    bias : (K,) tensor or None
        b; None where the problem has no bias.
    objective : float
        F at the point.
    gradient_norm : float
        As in `Certificate`.
    certificate : Certificate
        What is proved about the point.
    converged : bool
        Whether every tolerance asked for was reached.
    message : Message
        Why the solve ended.
    iterations : int
        Number of iterations, a resumed solve's earlier ones included.
    seconds : float
        Time taken, a resumed solve's earlier parts included.
    history : History
        What was recorded along the way.
    problem : UFM
        What was solved.
    method : str
        The method's name.
    """

    classifier: Float[Tensor, "K d"]
    stored_features: Float[Tensor, "N d"] | None
    bias: Float[Tensor, "K"] | None
    objective: float
    gradient_norm: float
    certificate: Certificate
    converged: bool
    message: Message
    iterations: int
    seconds: float
    history: History
    problem: UFM
    method: str

    def _shown(self) -> Iterable[Row]:
        yield "converged", self.converged, str(self.message)
        yield "objective", self.objective
        yield "relative gap", self.certificate.relative_gap, "proved" if self.certificate.gap < math.inf else "no proof"
        yield "gradient norm", self.gradient_norm
        yield "method", self.method, f"{self.iterations} iterations, {self.seconds:.3g} s"
        yield "classifier", self.classifier
        if self.stored_features is not None:
            yield "features", self.stored_features

    def plot(self, ax: "matplotlib.axes.Axes | None" = None) -> "matplotlib.axes.Axes":
        """Draw the proved relative gap to the global minimum, and the gradient norm, against the iteration.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; by default on a new figure.

        Returns
        -------
        Axes
            With two lines over what was recorded, on a logarithmic scale: a solve with `record` 0 has two points a
            line. Gaps of zero, or without proof, are left out.
        """
        from ufm._support.style import CLOSED_FORM, SOLVER, axes_or_new

        axes, history = axes_or_new(ax), self.history
        gap = np.where(np.isfinite(history.gap) & (history.gap > 0), history.gap / history.objective, np.nan)
        axes.semilogy(history.iteration, gap, "o-", color=CLOSED_FORM, label="relative gap, proved")
        axes.semilogy(history.iteration, history.gradient_norm, "s--", color=SOLVER, label="gradient norm")
        axes.set(xlabel="iteration")
        axes.legend()
        return axes

    @property
    def features(self) -> Float[Tensor, "N d"]:
        """The features (N, d); raises ValueError after a solve that did not store them."""
        if self.stored_features is None:
            raise ValueError("features: none were stored, as the targets were streamed; expected a use of response()")
        return self.stored_features

    @property
    def logits(self) -> Float[Tensor, "N K"]:
        """The logits H W^T + b."""
        logits = self.features @ self.classifier.T
        return logits if self.bias is None else logits + self.bias

    def response(self, labels: Float[Array, "n K"]) -> Response:
        """Return the optimal features of any labels for this solution's classifier and bias.

        Parameters
        ----------
        labels : (n, K) array
            Soft labels.

        Returns
        -------
        Response
            As from `fixed_classifier`.

        Raises
        ------
        ValueError
            If the problem constrains its features.
        """
        if not self.problem.free_features:
            raise ValueError("labels: got a request for the response of constrained features, expected free ones")
        return fixed_classifier(self.classifier, labels, self.problem.feature_decay, self.problem.loss, bias=self.bias)

    def save(self, path: str | Path) -> None:
        """Write the solution, but for the problem's targets, to a safetensors file; complete or not at all.

        Parameters
        ----------
        path : str or Path
            The file.

        Raises
        ------
        OSError
            Where it cannot be written; an earlier file is then as it was.
        """
        tensors: dict[str, Tensor] = {"classifier": self.classifier}
        tensors |= {"features": self.stored_features} if self.stored_features is not None else {}
        tensors |= {"bias": self.bias} if self.bias is not None else {}
        tensors |= {f"history.{name}": torch.from_numpy(value) for name, value in asdict(self.history).items()}
        names = ("objective", "gradient_norm", "converged", "iterations", "seconds", "method")
        facts: dict[str, Any] = {name: getattr(self, name) for name in names}
        facts |= {"format": _FORMAT, "message": self.message.name, "certificate": asdict(self.certificate)}
        facts["problem"] = problem_facts(self.problem)
        write_tensors(path, tensors, {"solution": to_json(facts, indent=None)})


def load_solution(path: str | Path, problem: UFM) -> Solution:
    """Return a saved solution, to look at or to resume from.

    Parameters
    ----------
    path : str or Path
        A file that `Solution.save` wrote.
    problem : UFM
        The problem that was solved.

    Returns
    -------
    Solution
        The solution, its arrays on the CPU.

    Raises
    ------
    ValueError
        For a file that is missing, damaged or no solution, or one of another problem.
    """
    tensors, metadata = map_tensors(path, name="path", expected=_EXPECTED)
    try:
        saved = _read_facts(metadata.get("solution", "{}"))
        history = _read_history(tensors)
    except ValueError as error:
        raise ValueError(
            f"path: got {str(path)!r}, which is no saved solution ({error}); expected {_EXPECTED}"
        ) from error
    K, d, N = problem.targets.num_classes, problem.dim, len(problem.targets)
    w, h, bias = (tensors.get(name) for name in ("classifier", "features", "bias"))
    given = {"classifier": (w, (K, d)), "features": (h, (N, d)), "bias": (bias, (K,))}
    for name, (array, shape) in given.items():
        if array is not None and (array.shape != shape or not array.is_floating_point()):
            found = f"{name} of shape {tuple(array.shape)} in {array.dtype}"
            raise ValueError(
                f"path: got {str(path)!r}, a solution of another problem: {found}, expected {shape} and real numbers"
            )
        if array is not None and not bool(array.isfinite().all()):
            raise ValueError(f"path: got {str(path)!r} with {name} that are not finite, expected {_EXPECTED}")
    if w is None or (bias is None) == problem.has_bias or saved.problem != parse_json(to_json(problem_facts(problem))):
        raise ValueError(
            f"path: got {str(path)!r}, a solution of another problem, {shown(saved.problem)}, expected one of "
            f"{problem_facts(problem)}; to start from its arrays all the same, use a Point"
        )
    return Solution(
        classifier=w.clone(),
        stored_features=None if h is None else h.clone(),
        bias=None if bias is None else bias.clone(),
        objective=saved.objective,
        gradient_norm=saved.gradient_norm,
        certificate=saved.certificate,
        converged=saved.converged,
        message=Message[saved.message],
        iterations=saved.iterations,
        seconds=saved.seconds,
        history=history,
        problem=problem,
        method=saved.method,
    )


@dataclass(frozen=True)
class _Facts:
    """What a file says of a solution beside its arrays."""

    format: str
    objective: float
    gradient_norm: float
    converged: bool
    iterations: int
    seconds: float
    method: str
    message: str
    certificate: Certificate
    problem: dict[str, Any]


def _read_facts(text: str) -> _Facts:
    facts = parse_json(text)
    if not isinstance(facts, dict) or facts.get("format") != _FORMAT:
        raise ValueError(f"it is not of the format {_FORMAT!r}")
    found = structure(strict_converter(), facts, _Facts)
    if found.message not in Message.__members__:
        raise ValueError(f"its message is {shown(found.message)}")
    # JSON has no infinities.
    certificate = found.certificate
    bounds = {"lower_bound": -math.inf, "gap": math.inf}
    missing = {name: value for name, value in bounds.items() if math.isnan(getattr(certificate, name))}
    return replace(found, certificate=replace(certificate, **missing))


def _read_history(tensors: Mapping[str, Tensor]) -> History:
    """Return the history; raise ValueError unless its arrays are there, real, and fit together."""
    names = [field.name for field in fields(History)]
    if lacking := [name for name in names if f"history.{name}" not in tensors]:
        raise ValueError(f"it lacks history.{lacking[0]}")
    columns = {name: tensors[f"history.{name}"].numpy() for name in names}
    n, L = len(np.atleast_1d(columns["iteration"])), len(np.atleast_1d(columns["lam"]))
    shapes = {"lam": (L,), "width": (n, L), "depth": (n, L)}
    for name, column in columns.items():
        if column.shape != shapes.get(name, (n,)) or column.dtype.kind != "f" or not n:
            raise ValueError(f"its history.{name} has the shape {column.shape} in {column.dtype}")
    return History(**{name: np.array(column) for name, column in columns.items()})


def problem_facts(problem: UFM) -> dict[str, Any]:
    """Return what distinguishes problems: their numbers, and a sum over the targets that depends on every label."""
    names = ("dim", "weight_decay", "feature_decay", "loss", "bias_decay", "nonnegative", "feature_norm", "row_norm")
    targets = problem.targets
    generator = torch.Generator().manual_seed(0)
    probe = torch.rand(targets.num_classes, generator=generator, dtype=torch.float64)
    sums = []
    for start in range(0, len(targets), _BLOCK):
        labels, weights = targets.block(slice(start, start + _BLOCK))
        score = labels.double().cpu() @ probe
        position = torch.arange(start, start + len(score), dtype=torch.float64).cos()
        sums.append((weights.double().cpu() * score * (2 + position)).sum().item())
    return {
        **{name: getattr(problem, name) for name in names},
        "targets": len(targets),
        "fixed_classifier": problem.classifier is not None,
        # Six digits: the same in every dtype and on every device.
        "labels": f"{sum(sums):.6e}",
    }
