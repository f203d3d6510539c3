"""The collapse threshold of the joint optimum: mixup, no mixing, label smoothing, and k-way Dirichlet mixup."""

import math
from itertools import product
from typing import Any

import numpy as np
from mpmath import mp

import ufm
from derivations.claim import Check, Claim, Derivation, Step, main
from derivations.reference import Number, compared, precisely, worst
from derivations.symbols import SMALL, SMALL_TEXT, K, alpha, centring, lambda_H, lambda_W, sp

n_way = sp.Symbol("n", integer=True, positive=True)
r, epsilon = sp.symbols("r epsilon", positive=True)

MIXUP_SPREAD = (alpha + 1) / (2 * alpha + 1)
DIRICHLET_SPREAD = (alpha + 1) / (n_way * alpha + 1)


def derive() -> tuple[Step, ...]:
    d = Derivation()
    d.say(
        "By the claim on the joint scalar equation the optimum is positive exactly if $\\Phi'(0^+) < 0$. As $\\beta "
        "\\to 0$ the prediction is uniform, so that",
        r"\text{non-zero optimum} \iff (K-1)\,\lambda_W\lambda_H < S, \qquad S = \mathbb E\lVert y - \mathbf "
        r"1/K\rVert^2",
    )
    scale = sp.Symbol("S", positive=True)
    d.identities(
        "The same from the relaxation: $\\tilde Z = 0$ is optimal exactly if the gradient of $f$ there has spectral "
        "norm at most $\\sqrt{\\lambda_W\\lambda_H}$. By symmetry its Gram matrix is a multiple of the centring, with "
        "trace $S$ and therefore the one eigenvalue $S/(K-1)$.",
        [((scale / (size - 1) * centring(size)).trace(), scale) for size in SMALL],
        shown=r"G_0 G_0^\top = \mathbb E\left[(\tfrac{\mathbf 1}{K} - y)(\tfrac{\mathbf 1}{K} - y)^\top\right] = "
        r"\frac{S}{K-1}\, P, \qquad \lVert G_0\rVert_2^2 = \frac{S}{K-1}",
        cases=SMALL_TEXT,
    )
    _spread(d)
    _moments(d)
    return d.done()


def _spread(d: Derivation) -> None:
    d.identity(
        "Let $y = \\sum_i \\lambda_i e_{c_i}$ mix $n$ samples, their classes independent and uniform. Two of them "
        "share a class with probability $1/K$. With $r = \\mathbb E\\sum_i \\lambda_i^2$ the cross terms add up to $1 "
        "- r$.",
        r + (1 - r) / K - 1 / K,
        (K - 1) * r / K,
        shown=r"S = \mathbb E\lVert y\rVert^2 - \tfrac1K = \sum_{i,j}\mathbb E[\lambda_i\lambda_j]\,P(c_i = c_j) - "
        r"\tfrac1K = r + \frac{1-r}{K} - \frac1K = \frac{K-1}{K}\,r",
    )
    # Check the bookkeeping over pairs of classes by enumerating all of them.
    pairs = []
    for size, ways in product((2, 3, 4), (1, 2, 3)):
        pairs.append(
            (_spread_by_enumeration(size, ways), sp.Rational(size - 1, size) * DIRICHLET_SPREAD.subs(n_way, ways))
        )
    d.identities(
        "Enumerating all $K^n$ choices of classes, with the exact second moments of the Dirichlet law, gives the same.",
        pairs,
        shown=r"\mathbb E\lVert y - \mathbf 1/K\rVert^2 = \frac{K-1}{K}\cdot\frac{\alpha+1}{n\alpha+1}",
        cases="K = 2, 3, 4 and n = 1, 2, 3",
    )
    d.identity(
        "In terms of $r$ the threshold is free of the law's other details.",
        sp.solve(sp.Eq((K - 1) * lambda_W * lambda_H, (K - 1) * r / K), lambda_W)[0] * lambda_H,
        r / K,
        shown=r"\text{non-zero optimum} \iff \lambda_W\lambda_H < \frac rK",
    )


def _spread_by_enumeration(size: int, ways: int) -> Any:
    """Return E ||y - 1/K||^2 for n-way Dirichlet mixup, class choice by class choice."""
    square = dirichlet_moment(ways, 2, 0)
    cross = dirichlet_moment(ways, 1, 1)
    total = sp.Integer(0)
    for classes in product(range(size), repeat=ways):
        for first, second in product(range(ways), repeat=2):
            if classes[first] == classes[second]:
                total += square if first == second else cross
    return total / size**ways - sp.Rational(1, size)


def dirichlet_moment(ways: Any, first: int, second: int) -> Any:
    """Return E[lambda_1^first lambda_2^second] of the symmetric Dirichlet law: a ratio of Gamma functions."""
    total = ways * alpha
    moment = sp.gamma(total) / sp.gamma(total + first + second)
    for power in (first, second):
        moment *= sp.gamma(alpha + power) / sp.gamma(alpha)
    return sp.gammasimp(moment)


def _moments(d: Derivation) -> None:
    t = sp.Symbol("t", positive=True)
    pairs: list = []
    for value in (1, 2, 3):
        density = (t * (1 - t)) ** (value - 1)
        mass = sp.integrate(sp.expand(density), (t, 0, 1))
        moment = sp.integrate(sp.expand(density * (t**2 + (1 - t) ** 2)), (t, 0, 1)) / mass
        pairs.append((moment, MIXUP_SPREAD.subs(alpha, value)))
    second = sp.gammasimp(sp.beta(alpha + 2, alpha).rewrite(sp.gamma) / sp.beta(alpha, alpha).rewrite(sp.gamma))
    d.identities(
        "*Mixup*, $\\lambda \\sim \\mathrm{Beta}(\\alpha, \\alpha)$: the second moment is a ratio of Beta functions "
        "(and agrees with direct integration for $\\alpha = 1, 2, 3$).",
        [*pairs, (2 * second, MIXUP_SPREAD)],
        shown=r"r = \mathbb E[\lambda^2 + (1-\lambda)^2] = 2\,\frac{B(\alpha+2, \alpha)}{B(\alpha, \alpha)} = "
        r"\frac{\alpha+1}{2\alpha+1}",
    )
    d.identities(
        "*$n$-way mixup*, $\\lambda \\sim \\mathrm{Dirichlet}(\\alpha, \\dots, \\alpha)$: each $\\lambda_i$ is "
        "$\\mathrm{Beta}(\\alpha, (n-1)\\alpha)$. Two-way mixup is the case $n = 2$.",
        [
            (sp.gammasimp(n_way * dirichlet_moment(n_way, 2, 0)), DIRICHLET_SPREAD),
            (DIRICHLET_SPREAD.subs(n_way, 2), MIXUP_SPREAD),
        ],
        shown=r"r_n = n\,\mathbb E[\lambda_1^2] = \frac{\alpha+1}{n\alpha+1}",
    )
    d.identities(
        "*No mixing* is $n = 1$, or mixup's limit $\\alpha \\to 0$; always mixing half and half is $\\alpha \\to "
        "\\infty$.",
        [
            (DIRICHLET_SPREAD.subs(n_way, 1), sp.Integer(1)),
            (sp.limit(MIXUP_SPREAD, alpha, 0), sp.Integer(1)),
            (sp.limit(MIXUP_SPREAD, alpha, sp.oo), sp.Rational(1, 2)),
        ],
        shown=r"r = 1, \qquad \lim_{\alpha\to 0} r = 1, \qquad \lim_{\alpha\to\infty} r = \tfrac12",
    )
    d.identities(
        "*Conditional draws.* Pairs of one class only are no mixing. For pairs of different classes no cross term "
        "survives in $\\mathbb E\\lVert y\\rVert^2 = r$, and the two kinds make up mixup in the proportion $1 : K - "
        "1$.",
        [
            ((1 - 1 / K) / (K - 1), 1 / K),
            ((1 - 1 / K + (K - 1) * (r - 1 / K)) / K, (K - 1) * r / K),
        ],
        shown=r"\text{same:}\quad \lambda_W\lambda_H < \frac1K, \qquad "
        r"\text{different:}\quad \lambda_W\lambda_H < \frac{r - 1/K}{K - 1}",
    )
    label = sp.Symbol("y", real=True)
    d.identity(
        "*Label smoothing* contracts every label towards the uniform one, and with it $S$ and $r$; it composes with "
        "any mixing.",
        ((1 - epsilon) * label + epsilon / K - 1 / K) ** 2,
        (1 - epsilon) ** 2 * (label - 1 / K) ** 2,
        shown=r"y \leftarrow (1-\varepsilon)\,y + \tfrac{\varepsilon}{K}\mathbf 1 \quad\Longrightarrow\quad r "
        r"\leftarrow (1-\varepsilon)^2\, r",
    )


@precisely
def check() -> tuple[Check, ...]:
    laws: list[tuple[ufm.Law, Number]] = []
    for num_classes in (3, 10):
        mixup = {value: (mp.mpf(value) + 1) / (2 * mp.mpf(value) + 1) for value in (0.2, 1.0, 4.0)}
        laws += [(ufm.Mixup(num_classes, value), r_value / num_classes) for value, r_value in mixup.items()]
        laws.append((ufm.Mixup(num_classes, math.inf), mp.mpf(1) / 2 / num_classes))
        laws.append((ufm.Unmixed(num_classes), mp.mpf(1) / num_classes))
        smoothing = mp.mpf("0.875") ** 2
        laws.append((ufm.LabelSmoothing(num_classes, 0.125), smoothing / num_classes))
        laws.append((ufm.LabelSmoothing(ufm.Mixup(num_classes, 4.0), 0.125), smoothing * mixup[4.0] / num_classes))
        for ways, value in ((3, 1.0), (3, 0.5), (4, 2.0)):
            r_value = (mp.mpf(value) + 1) / (ways * mp.mpf(value) + 1)
            laws.append((ufm.Mixup(num_classes, value, ways=ways), r_value / num_classes))
        laws.append((ufm.Mixup(num_classes, pairs="same"), mp.mpf(1) / num_classes))
        different = (mixup[1.0] - mp.mpf(1) / num_classes) / (num_classes - 1)
        laws.append((ufm.Mixup(num_classes, pairs="different"), different))
    thresholds, misjudged = [], 0
    for law, expected in laws:
        found = ufm.joint_optimum(law, 1.0, 1.0, nodes=4)
        thresholds.append(compared("threshold of `joint_optimum`", [found.threshold], [expected], 1e-14))
        below, above = (ufm.joint_optimum(law, float(expected) * factor, 1.0, nodes=4) for factor in (0.999, 1.001))
        correct = not below.collapsed and below.multiplier > 0 and above.collapsed and above.multiplier == 0
        misjudged += not correct
    return (
        worst(thresholds),
        Check("laws judged wrongly at 0.1 % below or above the derived threshold", float(misjudged), 0.0),
        Check(
            "largest eigenvalue of the label covariance (NumPy, three-way) against $r/K$", _covariance_error(), 1e-14
        ),
    )


def _covariance_error() -> float:
    """Return the error of r/K against the eigenvalue of E[(y-1/K)(y-1/K)^T], by enumeration in plain NumPy."""
    size, ways, concentration = 4, 3, 0.5
    total = ways * concentration
    second = np.full((ways, ways), concentration**2) + concentration * np.eye(ways)
    second /= total * (total + 1)
    covariance = np.zeros((size, size))
    for classes in product(range(size), repeat=ways):
        one_hot = np.eye(size)[list(classes)]
        covariance += one_hot.T @ second @ one_hot / size**ways
    covariance -= 1 / size**2
    expected = float(DIRICHLET_SPREAD.subs({n_way: ways, alpha: sp.Rational(1, 2)})) / size
    eigenvalues = np.linalg.eigvalsh(covariance)
    # One eigenvalue for all centred directions, zero for the constants.
    return float(np.abs(eigenvalues - np.array([0.0] + [expected] * (size - 1))).max())


CLAIM = Claim(
    title="The collapse threshold",
    statement=r"""The joint optimum is non-zero exactly if
$$\lambda_W\lambda_H < \frac rK, \qquad r = \frac{K}{K-1}\,\mathbb E\lVert y - \mathbf 1/K\rVert^2,$$
with $r = 1$ without mixing, $r = \frac{\alpha+1}{2\alpha+1}$ for mixup, $r = \frac{\alpha+1}{n\alpha+1}$ for $n$-way
Dirichlet mixup, and $(1-\varepsilon)^2$ times as much with label smoothing $\varepsilon$. Otherwise the classifier and
all features are zero.""",
    assumptions=(
        r"As in the claim on the joint scalar equation; classes of mixed samples are independent and uniform.",
        r"Expectation convention; $\alpha > 0$, $0 \le \varepsilon < 1$.",
    ),
    implemented_by=("ufm.joint_optimum", "ufm.Mixup", "ufm.Unmixed", "ufm.LabelSmoothing"),
    tests=(
        "tests/derivations/test_derivations.py::test_claim_holds",
        "tests/theory/test_joint.py::test_unmixed_threshold_and_relaxation_optimum",
        "tests/labels/test_laws.py::test_coinciding_draws_have_their_probabilities",
    ),
    derive=derive,
    check=check,
)

if __name__ == "__main__":
    main(CLAIM)
