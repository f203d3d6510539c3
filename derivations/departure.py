"""The law of departure: a network that is short of information is a UFM with softer labels."""

from typing import Any

import numpy as np
import torch
from mpmath import mp

import ufm
from derivations.claim import Check, Claim, Derivation, Step, main
from derivations.reference import Number, compared, cross_entropy, entropy, numbers, precisely, prox
from derivations.symbols import SMALL, SMALL_TEXT, beta, logsumexp, simplex, softmax, sp, vector

weight = sp.Symbol("w", positive=True)


def derive() -> tuple[Step, ...]:
    d = Derivation()
    _softer_labels(d)
    label, reached, width = sp.symbols("L R Z", real=True)
    d.identity(
        "*The width, exactly.* For the samples of a bin of $\\lambda$, $a$ the heavier class and $b$ the lighter one:",
        label + (reached - label) + (width - reached),
        width,
        shown=r"\mathbb E[z_a - z_b] = \underbrace{\log\tfrac{\mathbb E y_a}{\mathbb E y_b}}_{\text{label}} "
        r"+ \underbrace{\log\tfrac{\mathbb E p_a}{\mathbb E p_b} - \log\tfrac{\mathbb E y_a}{\mathbb E y_b}}"
        r"_{\text{bias}} + \underbrace{\mathbb E\log\tfrac{p_a}{p_b} - "
        r"\log\tfrac{\mathbb E p_a}{\mathbb E p_b}}_{\text{spread}}",
    )
    first, second = sp.symbols("p_a p_b", positive=True)
    difference = sp.log(first) - sp.log(second)
    d.identity(
        "since the width of a sample is the logarithm of a ratio of probabilities.",
        sp.expand_log(sp.log(first / second)),
        difference,
        shown=r"z_a - z_b = \log p_a - \log p_b",
    )
    _stationary(d)
    return d.done()


def _softer_labels(d: Derivation) -> None:
    shared, excess, implied = [], [], []
    for size in SMALL:
        one, other, z, p = simplex("q", size), simplex("r", size), vector("z", size), simplex("p", size)
        mean = weight * one + (1 - weight) * other

        shared.append((sp.expand(weight * _loss(one, z) + (1 - weight) * _loss(other, z)), sp.expand(_loss(mean, z))))

        both = weight * _kl(one, p) + (1 - weight) * _kl(other, p)
        lost = weight * _kl(one, mean) + (1 - weight) * _kl(other, mean)
        excess.append((sp.expand(both - lost - _kl(mean, p)), sp.Integer(0)))
        gradient = [sp.diff(_loss(one, z) + z.dot(z) / (2 * beta), entry) for entry in z]
        chosen = [a + b / beta for a, b in zip(softmax(z), z, strict=True)]
        implied += [(entry, sp.expand(a - b)) for entry, a, b in zip(gradient, chosen, one, strict=True)]
    d.identities(
        "*The loss is linear in the label.* Targets that must share a feature, since the network sees of its inputs "
        "only a statistic $s$ that is the same for them, count as one target with their mean label (two of them below, "
        "with weights $w$ and $1 - w$; by induction for any number).",
        shared,
        shown=r"\mathbb E\left[\mathrm{CE}(z, y) \mid s\right] = \mathrm{CE}(z, y'), \qquad y' = \mathbb E[y \mid s]",
        cases=SMALL_TEXT,
    )
    d.say(
        "So the optimum is that of the UFM with the softer labels $y'$: for a simplex ETF the closed form at $y'$. Its "
        "excess is the expected divergence from label to prediction, for any network."
    )
    d.identities(
        "*What is lost.* With $p$ a function of $s$, the excess splits into the information that $s$ lacks and what "
        "the penalties cost.",
        excess,
        shown=r"\mathbb E\left[\mathrm{CE} - \mathcal H(y)\right] = \mathbb E\,\mathrm{KL}(y\,\Vert\,p) = "
        r"\mathbb E\,\mathrm{KL}(y\,\Vert\,y') + \mathbb E\,\mathrm{KL}(y'\,\Vert\,p)",
        cases=SMALL_TEXT,
    )
    d.identities(
        "*The outputs tell the labels.* The closed form minimises $\\mathrm{CE}(z, y') + \\lVert z\\rVert^2/(2\\beta)$;"
        " its gradient vanishes where $y'$ is the implied label.",
        implied,
        shown=r"\nabla_z = p + \tfrac{z}{\beta} - y' = 0 \quad\Longleftrightarrow\quad y' = p + \tfrac{z}{\beta}",
        cases=SMALL_TEXT,
    )
    d.say(
        "*How it is tested.* As a conditional mean $y'$ is calibrated, $\\mathbb E[y \\mid y'] = y'$. Then "
        "$\\mathbb E[(y - y')\\cdot g(y')] = 0$ for every function $g$ of the outputs: with $g = \\log p$ the excess "
        "is the one that the outputs expect, with $g = y'$ the regression of $y$ on $y'$ has slope 1.",
        r"\mathbb E\left[-y\cdot\log p\right] = \mathbb E\left[-y'\cdot\log p\right], \qquad "
        r"\frac{\mathbb E\left[y\cdot(y' - \bar y')\right]}{\mathbb E\lVert y' - \bar y'\rVert^2} = 1",
    )


def _loss(label: Any, logits: Any) -> Any:
    return logsumexp(logits) - label.dot(logits)


def _kl(label: Any, prediction: Any) -> Any:
    return sum(a * (sp.log(a) - sp.log(b)) for a, b in zip(label, prediction, strict=True))


def _stationary(d: Derivation) -> None:
    rows, dim = 3, 2
    W = sp.Matrix(rows, dim, sp.symbols(f"w_1:{rows * dim + 1}", real=True))
    h, y = vector("h", dim), simplex("q", rows)
    z = W * h
    value = logsumexp(z) - y.dot(z)
    residual = y - softmax(z)
    pairs = [(sp.diff(value, W[k, j]), -residual[k] * h[j]) for k in range(rows) for j in range(dim)]
    d.identities(
        "*Whether the classifier is at rest.* The loss pulls at $W$ with $\\mathbb E[(y-p)h^\\top]$, its decay with "
        "$\\lambda_W W$. Where they are equal, so are their inner products with $W$.",
        pairs,
        shown=r"-\nabla_W \ell = (y - p)\,h^\top \quad\Longrightarrow\quad "
        r"\mathbb E\left[(y-p)\cdot W h\right] = \lambda_W\lVert W\rVert_F^2",
        cases="K = 3, d = 2",
    )


@precisely
def check() -> tuple[Check, ...]:
    K, decay = 4, 0.02
    W = ufm.simplex_etf(K)
    rng = np.random.default_rng(3)
    # Eight values of lambda in each of two groups; only the group is seen, as its mean.
    lam = np.concatenate([rng.integers(33, 40, 8) / 64, rng.integers(50, 64, 8) / 64])
    seen = np.repeat([lam[:8].mean(), lam[8:].mean()], 8)
    first, second = (torch.full((16,), k) for k in (0, 1))
    labels = ufm.PairTargets(K, first, second, torch.from_numpy(seen)).labels
    response = ufm.fixed_classifier(W, labels, decay)
    features, logits = (torch.as_tensor(x) for x in (response.features, response.logits))
    activations = ufm.Activations(features, logits, first, second, torch.from_numpy(lam), W)
    strength = float(W.square().sum() / (K - 1) / decay)
    found = ufm.measure_departure(activations, strength, bins=2)
    excess, split = _expected(lam, seen, K, mp.mpf(strength))
    solution = ufm.solve(ufm.UFM(ufm.Targets(activations.labels), K, 0.005, decay), tol=1e-12)
    rest = ufm.Activations(
        solution.features,
        solution.features @ solution.classifier.T,
        first,
        second,
        torch.from_numpy(lam),
        solution.classifier,
    )
    ratio = ufm.measure_stationarity(rest, 0.005).ratio
    return (
        compared("`excess` of `measure_departure`", [found.excess], [excess], 1e-12),
        compared("`excess_expected`, where the law holds", [found.excess_expected], [excess], 1e-12),
        compared("`calibration_slope`, where the law holds", [found.calibration_slope], [mp.mpf(1)], 1e-13),
        compared("width, bias and spread of `measure_departure`", _split(found.network), split, 1e-12),
        compared("`ratio` of `measure_stationarity` at a solved optimum", [ratio], [mp.mpf(1)], 1e-8),
    )


def _split(found: ufm.WidthSplit) -> np.ndarray:
    return np.array([found.width, found.label, found.bias, found.spread]).T


def _expected(lam: np.ndarray, seen: np.ndarray, K: int, strength: Number) -> tuple[Number, list[Number]]:
    """Return the mean excess, and width, label, bias and spread of both bins, by the closed form at the mean label."""
    total, rows = mp.mpf(0), []
    for group in (slice(0, 8), slice(8, 16)):
        value, mean = numbers(lam[group]), mp.mpf(float(seen[group][0]))
        logits, _, p = prox([mean, 1 - mean] + [mp.mpf(0)] * (K - 2), strength)
        for entry in value:
            y = [entry, 1 - entry] + [mp.mpf(0)] * (K - 2)
            total += (cross_entropy(logits, y) - entropy(y)) / 16
        heavier = mp.fsum(value) / 8
        label, width = mp.log(heavier / (1 - heavier)), logits[0] - logits[1]
        reached = mp.log(p[0] / p[1])
        rows += [width, label, reached - label, width - reached]
    return total, rows


CLAIM = Claim(
    title="The law of departure",
    statement=r"""A network that sees only a statistic $s$ of its input is a UFM with the softer labels
$y' = \mathbb E[y \mid s]$: its optimum is the closed form at $y'$, its outputs tell them, $y' = p + z/\beta$, and its
excess loss is
$$\mathbb E\left[\mathrm{CE} - \mathcal H(y)\right] = \mathbb E\,\mathrm{KL}(y\,\Vert\,p) =
\mathbb E\,\mathrm{KL}(y\,\Vert\,y') + \mathbb E\,\mathrm{KL}(y'\,\Vert\,p),$$
the information that $s$ lacks and what the penalties cost. The width of its channel is a label's width, a bias and a
spread, exactly.""",
    assumptions=(
        "Cross entropy; any law of the labels, any statistic.",
        "For the implied labels: a simplex ETF as classifier, and features at their optimum for $y'$.",
    ),
    implemented_by=("ufm.measure_departure", "ufm.measure_stationarity"),
    tests=(
        "tests/derivations/test_derivations.py::test_claim_holds",
        "tests/networks/test_departure.py::test_a_network_short_of_information_follows_the_law",
        "tests/networks/test_stationarity.py::test_a_solved_classifier_is_at_rest",
    ),
    derive=derive,
    check=check,
)

if __name__ == "__main__":
    main(CLAIM)
