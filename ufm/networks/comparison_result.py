"""What a comparison of a network with the theory finds."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from ufm._support.arrays import check_choice
from ufm._support.display import Displayed, Row
from ufm.labels.decoding import LabelSummary
from ufm.networks.channel import Boundary, ChannelCurve, ChannelPoints
from ufm.networks.departure import Departure
from ufm.networks.network_certificate import NetworkCertificate
from ufm.networks.stationarity import Stationarity
from ufm.theory.collapse import Collapse

if TYPE_CHECKING:
    import matplotlib.axes


@dataclass(frozen=True)
class Score:
    """How well one prediction explains the network on the scored half of the samples.

    R^2 is the coefficient of determination of the centred logits. Features are compared after subtracting their mean.
    A number over samples of a kind that was not recorded is NaN.

    Attributes
    ----------
    name : str
        Name of the prediction.
    parameters : int
        Number of parameters that were fitted to the logits.
    r2 : float
        R^2 over all samples.
    r2_same, r2_mixed : float
        R^2 over same-class and over different-class samples (of two classes or more).
    r2_binned : float
        R^2 of the mean logits per (class pair, bin of lambda) over samples of two classes, each mean weighted by its
        number of samples. It rises with the number of samples per mean, so only recordings of equal size compare.
    angle_same, angle_mixed : float
        Mean angle in degrees between the network's and the predicted features.
    length_same, length_mixed : float
        Mean absolute difference of the features' lengths, relative to the mean length of the network's features.
    """

    name: str
    parameters: int
    r2: float
    r2_same: float
    r2_mixed: float
    r2_binned: float
    angle_same: float
    angle_mixed: float
    length_same: float
    length_mixed: float


@dataclass(frozen=True, repr=False)
class Comparison(Displayed):
    """A network's activations compared with the theory; see `compare`.

    Attributes
    ----------
    beta : float
        The beta that fits the network's logits best.
    beta_at_edge : bool
        Whether beta lies at an end of the range that was searched, 1e-3 to 1e12. If so no beta fits, and the network is
        far from the theory.
    beta_fit_free : float or None
        The beta that size and weight decay of the classifier imply, without any fit; None if no weight decay was given
        or no optimum has such a classifier.
    slope : float
        Slope gamma of the fitted straight line z = gamma (y - 1/K).
    multiplier : float
        Root mean squared row norm of the centred classifier.
    etf_error : float
        Relative distance of the classifier to its nearest simplex ETF.
    feature_decay : float
        The lambda_H that beta and multiplier imply.
    own_feature_decay : float or None
        The lambda_H that fits best for the network's own classifier; None without solver.
    own_at_edge : bool or None
        Whether own_feature_decay lies at an end of the range that was searched, 1/1000 to 1000 times feature_decay.
    in_plane : float
        Share of the squared length of the centred features that lies in the classifier's row space, where the theory
        has all of it.
    samples : int
        Number of scored samples.
    scores : list of Score
        One per prediction.
    curves : dict of ChannelCurve
        Channel curves of the network and of each prediction, over samples of two classes; empty without any, and for
        two classes in all, as are points and boundaries.
    points : dict of ChannelPoints
        Width and depth near lambda = 0.5, 0.7 and 0.9, of the network and of each prediction.
    boundaries : dict of Boundary
        Density and slope at the decision boundary, of the network and of each prediction.
    collapse : Collapse or None
        Measures of neural collapse of all same-class features with the centred classifier; None if a class has none.
    solver_error : float or None
        Largest difference of logits between the closed form and the direct solve for the nearest ETF; None without
        solver.
    solver_converged : bool or None
        Whether that solve converged; None without solver.
    departure : Departure or None
        How far the network is from fitting its labels, and the split of its channel's width, for the fit-free beta
        where there is one and the fitted beta otherwise; None in records from before it was measured.
    certificate : NetworkCertificate or None
        What is proved about the network as a point of the UFM with cross entropy, whatever it was trained with; None if
        no weight decay was given.
    stationarity : Stationarity or None
        Whether the classifier is at rest; None if no weight decay was given.
    labels : LabelSummary or None
        What the labels say of the law that they come from; None in records from before it was estimated.
    """

    beta: float
    beta_at_edge: bool
    beta_fit_free: float | None
    slope: float
    multiplier: float
    etf_error: float
    feature_decay: float
    own_feature_decay: float | None
    own_at_edge: bool | None
    in_plane: float
    samples: int
    scores: list[Score]
    curves: dict[str, ChannelCurve] = field(repr=False)
    points: dict[str, ChannelPoints] = field(repr=False)
    boundaries: dict[str, Boundary] = field(repr=False)
    collapse: Collapse | None = None
    solver_error: float | None = None
    solver_converged: bool | None = None
    departure: Departure | None = None
    certificate: NetworkCertificate | None = None
    stationarity: Stationarity | None = None
    labels: LabelSummary | None = None

    def score(self, name: str) -> Score:
        """Return the score of the prediction called `name`, or raise KeyError."""
        return {score.name: score for score in self.scores}[name]

    def _shown(self) -> Iterable[Row]:
        if self.labels is not None:
            yield "labels", self.labels.words()
        for score in self.scores:
            fit = "nothing fitted" if score.parameters == 0 else "one number fitted"
            yield f"R\N{SUPERSCRIPT TWO}, {score.name}", score.r2, f"of the logits, {self.samples} samples; {fit}"
        yield "beta", self.beta, "fitted" + (", at the end of the range that was searched" if self.beta_at_edge else "")
        if self.beta_fit_free is not None:
            yield "beta, fit-free", self.beta_fit_free, "from the classifier and its weight decay"
        yield "classifier to the nearest ETF", self.etf_error, "relative distance"
        if self.collapse is not None:
            for name in ("nc1", "nc2", "nc3"):
                yield name.upper(), getattr(self.collapse, name), "same-class features; 0 where collapsed"
        if self.departure is not None:
            yield (
                "excess loss",
                self.departure.excess,
                f"nats; the penalties explain {self.departure.excess_theory:.3g}",
            )
            ratios = [f"{ratio:.2f}" for ratio in self.departure.width_ratio]
            if set(ratios) != {"nan"}:
                yield "width over the closed form's", ", ".join(ratios), "heavier class .5-.6 ... .9-1"
        if self.certificate is not None:
            yield "gap to the global minimum", self.certificate.relative_gap, "proved, relative"
        yield "more in", "table(), to_frame(), curves, departure, certificate, stationarity"

    def plot(self, ax: "matplotlib.axes.Axes | None" = None, *, quantity: str = "width") -> "matplotlib.axes.Axes":
        """Draw the network's channel against lambda, beside closed form and straight line at their fitted parameters.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; by default on a new figure.
        quantity : str
            "width" or "depth", in logits, or "confidence".

        Returns
        -------
        Axes
            With the means per bin of lambda, and a band of one standard deviation of the network's samples.

        Raises
        ------
        ValueError
            For another quantity, and if there are no curves.
        """
        from ufm._support.style import CLOSED_FORM, NETWORK, RIVAL, axes_or_new

        check_choice("quantity", quantity, ("width", "depth", "confidence"))
        if "network" not in self.curves:
            raise ValueError("curves: got none, as no label was mixed or there are two classes, expected a channel")
        axes, network = axes_or_new(ax), self.curves["network"]
        for name, colour, dashes in (("closed form", CLOSED_FORM, "-"), ("straight line", RIVAL, "--")):
            curve = self.curves[name]
            axes.plot(curve.lam, getattr(curve, quantity), dashes, color=colour, label=name)
        mean, spread = getattr(network, quantity), getattr(network, f"{quantity}_std", None)
        axes.plot(network.lam, mean, "o", color=NETWORK, label="network")
        if spread is not None:
            axes.fill_between(network.lam, mean - spread, mean + spread, color=NETWORK, alpha=0.15, linewidth=0)
        unit = "" if quantity == "confidence" else " (logits)"
        axes.set(xlabel="λ, weight of class a", ylabel=f"{quantity}{unit}", xlim=(0, 1))
        axes.legend()
        return axes

    def to_frame(self) -> Any:
        """Return `table` as a pandas DataFrame, indexed by prediction; pandas has to be installed."""
        import pandas  # pyright: ignore[reportMissingImports]

        return pandas.DataFrame(self.table()).set_index("name")

    def table(self) -> list[dict[str, Any]]:
        """Return one row per prediction with its score, the channel near three values of lambda, and the boundary.

        Returns
        -------
        list of dict
            The first row is the network itself, with None for all scores. All rows have the same keys. Entries are
            text, plain numbers or None; a number is NaN if it has no sample.
        """
        scores: dict[str, dict[str, Any]] = {score.name: asdict(score) for score in self.scores}
        unscored = {name: None for name in next(iter(scores.values())) if name != "name"}
        rows = []
        for name in ("network", *scores):
            row = {"name": name, **unscored, **scores.get(name, {})}
            if name in self.points:
                points = self.points[name]
                for i, lam in enumerate(points.lam):
                    at = f"{100 * lam:.0f}"
                    row |= {f"width_{at}": float(points.width[i]), f"depth_{at}": float(points.depth[i])}
                row |= asdict(self.boundaries[name])
            rows.append(row)
        return rows
