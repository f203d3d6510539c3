"""Mean squared error with a bias: mixed features on straight lines, the same threshold, all constants in closed
form."""

from typing import Any

import numpy as np
from mpmath import mp

import ufm
from derivations.claim import Check, Claim, Derivation, Step, main
from derivations.reference import compared, evaluator, matrix, numbers, precisely, worst
from derivations.symbols import (
    SMALL,
    SMALL_TEXT,
    K,
    alpha,
    beta,
    beta_of_m,
    centring,
    gram_factor,
    lam,
    lambda_H,
    lambda_W,
    m,
    simplex,
    sp,
    vector,
)

gamma, sigma = sp.symbols("gamma sigma", positive=True)

SIGMA_OF_ALPHA = sp.sqrt((alpha + 1) / (2 * alpha + 1) / K)
GAMMA = 1 - sp.sqrt(lambda_W * lambda_H) / sigma
MULTIPLIER_SQUARED = gamma * sigma * sp.sqrt(lambda_H / lambda_W) * (K - 1) / K


def derive() -> tuple[Step, ...]:
    d = Derivation()
    _fixed(d)
    _bias(d)
    _joint(d)
    return d.done()


def straight(label: Any) -> Any:
    """Return the optimal logits for a fixed ETF, as a function of the label."""
    return beta / (1 + beta) * (label - sp.ones(len(label), 1) / len(label))


def _fixed(d: Derivation) -> None:
    pairs = []
    for size in (2, 3, 4):
        z, y, b = (vector(name, size) for name in "zyb")
        loss = (z + b - y).dot(z + b - y) / 2
        pairs.append((sp.Matrix([sp.diff(loss, entry) for entry in z]), z + b - y))
    d.identities(
        "The gradient of the loss in the logits is output minus label, so that stationarity in $h$ for a fixed ETF, "
        "multiplied by $W$, is again an equation for the logits, with the centring $P$.",
        pairs,
        shown=r"W^\top (z + b - y) + \lambda_H h = 0 \quad\Longrightarrow\quad z = \tfrac{1}{\lambda_H} W W^\top (y - "
        r"b - z) = \beta\,P\,(y - b - z)",
        cases="K = 2, 3, 4",
    )
    pairs = []
    for size in SMALL:
        y = simplex("y", size)
        P = centring(size)
        z = straight(y)
        pairs.append((z, beta * P * (y - sp.ones(size, 1) / size - z)))
    d.identities(
        "At the bias $b = \\mathbf 1/K$ it is linear and solved by",
        pairs,
        shown=r"z = \frac{\beta}{1+\beta}\,\left(y - \tfrac1K\mathbf 1\right), \qquad \beta = \frac{m^2 "
        r"K}{(K-1)\,\lambda_H}, \qquad h = \frac{K-1}{K m^2} W^\top z",
        cases=SMALL_TEXT,
    )
    pairs = []
    for size in SMALL[1:]:
        first, second = (sp.eye(size)[:, index] for index in (0, 1))
        mixed = straight(lam * first + (1 - lam) * second)
        pairs.append((mixed, lam * straight(first) + (1 - lam) * straight(second)))
    d.identities(
        "Logits and features are affine in the label, so that a mixed feature is the same convex combination of the "
        "two class means as the label is of the two one-hot labels: straight lines, no channel.",
        pairs,
        cases="K = 3, 4, 5",
        shown=r"h(\lambda e_a + (1-\lambda) e_b) = \lambda\,h(e_a) + (1-\lambda)\,h(e_b)",
    )


def _bias(d: Derivation) -> None:
    pairs = []
    for size in SMALL:
        b = vector("b", size)
        P, mean = centring(size), sp.ones(size, 1) / size
        output = beta / (1 + beta) * P * (mean - b) + b
        offset = sp.Symbol("c")
        solution = sp.solve(list(output - mean), list(b), dict=True)
        pairs.append((b.subs(solution[0]), mean))
        pairs.append((P * (output - mean), P * b / (1 + beta)))
        pairs.append(
            (((output - mean).subs(dict(zip(b, [offset] * size, strict=True))))[0], offset - sp.Rational(1, size))
        )
    d.identities(
        "*The optimal bias.* Stationarity in $b$ asks the mean output to be the mean label, which is $\\mathbf 1/K$ "
        "by symmetry. With the optimal features for bias $b$, the centred part of this condition is $Pb/(1+\\beta) = "
        "0$ and its mean part is $\\bar b = 1/K$: one solution.",
        pairs,
        shown=r"\mathbb E[z + b - y] = \frac{\beta}{1+\beta}\,P\,\left(\tfrac1K\mathbf 1 - b\right) + b - "
        r"\tfrac1K\mathbf 1 = 0 \iff b = \tfrac1K\mathbf 1",
        cases=SMALL_TEXT,
    )


def _joint(d: Derivation) -> None:
    r = sp.Symbol("r", positive=True)
    spread = (K - 1) / K * r
    d.identity(
        "*The joint optimum.* Let $\\tilde Y$ have columns $\\sqrt{\\pi_j}\\,(y_j - \\mathbf 1/K)$. By symmetry "
        "$\\tilde Y\\tilde Y^\\top$ is a multiple of $P$, and its trace is the spread $S = \\frac{K-1}{K} r$ of the "
        "claim on the threshold: all $K - 1$ singular values of $\\tilde Y$ are equal.",
        spread / (K - 1),
        r / K,
        shown=r"\tilde Y\tilde Y^\top = \mathbb E\left[(y - \tfrac{\mathbf 1}{K})(y - \tfrac{\mathbf "
        r"1}{K})^\top\right] = \sigma^2 P, \qquad \sigma^2 = \frac{S}{K-1} = \frac rK",
    )
    d.say(
        "The best bias removes the mean of the residual, so only $z - \\mathbb E z$ counts in the loss, and a mean of "
        "$z$ would only add to the nuclear norm. With the relaxation of the claim on the optimality of the ETF, what "
        "is to be minimised is a proximal problem whose only solution shrinks the singular values of $\\tilde Y$ and "
        "keeps its singular vectors; then $\\mathbb E z = 0$ and $b = \\mathbf 1/K$.",
        r"\tfrac12\lVert\tilde Z - \tilde Y\rVert_F^2 + \rho\,\lVert\tilde Z\rVert_*, \quad \rho = "
        r"\sqrt{\lambda_W\lambda_H}: \qquad \tilde Z = \gamma\,\tilde Y",
    )
    value, rho = sp.symbols("s rho", positive=True)
    d.identity(
        "One singular value at a time, where the derivative vanishes (at zero, if that is negative):",
        sp.solve(sp.diff((value - sigma) ** 2 / 2 + rho * value, value), value)[0] / sigma,
        GAMMA.subs(sp.sqrt(lambda_W * lambda_H), rho),
        shown=r"\gamma = 1 - \frac{\sqrt{\lambda_W\lambda_H}}{\sigma}",
    )
    size = sp.sqrt(lambda_H / lambda_W) * gamma * sigma  # W W^T = size P
    d.identity(
        "The classifier of balanced factors is an ETF, whose row norm the diagonal gives.",
        size * (1 - 1 / K),
        MULTIPLIER_SQUARED,
        shown=r"W W^\top = \sqrt{\tfrac{\lambda_H}{\lambda_W}}\,(\tilde Z\tilde Z^\top)^{1/2} "
        r"= \sqrt{\tfrac{\lambda_H}{\lambda_W}}\,\gamma\sigma\,P, \qquad "
        r"m^2 = \gamma\,\sigma\,\sqrt{\frac{\lambda_H}{\lambda_W}}\,\frac{K-1}{K}",
    )
    S, q = (K - 1) * sigma**2, sp.Symbol("q", positive=True)  # q = m^2
    objective = (
        (1 - gamma) ** 2 * S / 2 + lambda_H / 2 * gamma**2 * S / gram_factor.subs(m, sp.sqrt(q)) + lambda_W / 2 * K * q
    )
    d.say(
        "*The same by hand.* For an ETF and $z = \\gamma\\,(y - \\mathbf 1/K)$ the objective is a function of two "
        "numbers,",
        r"F(\gamma, m^2) = \frac{(1-\gamma)^2}{2}(K-1)\sigma^2 + \frac{\lambda_H}{2}\,\frac{K-1}{K m^2}\,\gamma^2 "
        r"(K-1)\sigma^2 + \frac{\lambda_W}{2} K m^2",
    )
    others = 1 + sp.Symbol("n", positive=True)  # K, known to exceed one
    (best,) = sp.solve(sp.diff(objective.subs(K, others), q), q)
    d.identity(
        "whose minimum over $m^2$ is at the same $m$,",
        best,
        MULTIPLIER_SQUARED.subs(K, others),
        shown=r"m^2 = \gamma\,\sigma\,\sqrt{\frac{\lambda_H}{\lambda_W}}\,\frac{K-1}{K},",
    )
    reduced = objective.subs(q, MULTIPLIER_SQUARED)
    expected = (K - 1) * ((1 - gamma) ** 2 * sigma**2 / 2 + sp.sqrt(lambda_W * lambda_H) * gamma * sigma)
    d.identity(
        "which leaves",
        reduced,
        expected,
        shown=r"F(\gamma) = (K-1)\left[\frac{(1-\gamma)^2\sigma^2}{2} + "
        r"\sqrt{\lambda_W\lambda_H}\,\gamma\sigma\right],",
    )
    d.identity(
        "with the same minimiser.",
        sp.solve(sp.diff(expected, gamma), gamma)[0],
        GAMMA,
        shown=r"F'(\gamma) = 0 \iff \gamma = 1 - \frac{\sqrt{\lambda_W\lambda_H}}{\sigma}",
    )
    d.identity(
        "It vanishes at the threshold of cross entropy.",
        sp.solve(sp.Eq(GAMMA.subs({lambda_W: q / lambda_H, sigma: sp.sqrt(r / K)}), 0), q)[0],
        r / K,
        shown=r"\gamma > 0 \iff \lambda_W\lambda_H < \sigma^2 = \frac rK",
    )
    consistent = beta_of_m.subs(m, sp.sqrt(MULTIPLIER_SQUARED)).subs(gamma, GAMMA)
    d.identity(
        "Both expressions for $\\gamma$ agree: $\\beta/(1+\\beta)$ at this $m$ is the soft threshold.",
        sp.simplify(consistent / (1 + consistent)),
        GAMMA,
        shown=r"\frac{\beta}{1+\beta} = 1 - \frac{\sqrt{\lambda_W\lambda_H}}{\sigma} \qquad\text{at}\quad "
        r"\beta = \gamma\sigma/\sqrt{\lambda_W\lambda_H}",
    )


CASES = ((5, 1.0, 0.05, 0.08), (10, 0.5, 0.01, 0.002), (3, 4.0, 0.25, 0.125))


@precisely
def check() -> tuple[Check, ...]:
    arguments = (K, alpha, lambda_W, lambda_H)
    shrunk = GAMMA.subs(sigma, SIGMA_OF_ALPHA)
    gamma_of = evaluator(arguments, shrunk)
    square_of = evaluator(arguments, MULTIPLIER_SQUARED.subs(gamma, GAMMA).subs(sigma, SIGMA_OF_ALPHA))
    multipliers, slopes, responses = [], [], []
    for num_classes, concentration, weight_decay, feature_decay in CASES:
        law = ufm.Mixup(num_classes, concentration)
        found = ufm.joint_optimum(law, weight_decay, feature_decay, "mean_squared_error", nodes=8)
        exact = [mp.mpf(value) for value in (num_classes, concentration, weight_decay, feature_decay)]
        multipliers.append(compared("`joint_optimum`, $m^2$", [found.multiplier**2], [square_of(*exact)], 1e-13))
        labels = np.array([[0.25, 0.75] + [0.0] * (num_classes - 2), [0.5, 0.5] + [0.0] * (num_classes - 2)])
        logits = found.response(labels).logits
        expected = [gamma_of(*exact) * (entry - mp.mpf(1) / num_classes) for row in labels for entry in numbers(row)]
        slopes.append(compared("`joint_optimum(...).response`, logits", logits, expected, 1e-13))
        responses.append(_fixed_response(num_classes, feature_decay, labels))
    quoted = compared(
        "$\\gamma$ and $m^2$ for $K = 5$, $\\alpha = 1$, $\\lambda_W = 0.05$, $\\lambda_H = 0.08$ against seven digits",
        [0.8267949, 0.3055042],
        [function(5, 1, mp.mpf("0.05"), mp.mpf("0.08")) for function in (gamma_of, square_of)],
        1e-7,
    )
    return worst(multipliers), worst(slopes), worst(responses), quoted


def _fixed_response(num_classes: int, decay: float, labels: np.ndarray) -> Check:
    """Compare the features for a fixed ETF of row norm 1.25 with the derived straight line."""
    classifier = ufm.simplex_etf(num_classes, num_classes, 1.25).numpy()
    found = ufm.fixed_classifier(classifier, labels, decay, "mean_squared_error").features
    gram = mp.mpf(1.25) ** 2 * num_classes / (num_classes - 1)
    b = gram / mp.mpf(decay)
    transposed = matrix(classifier.T)
    expected: list = []
    for row in labels:
        z = mp.matrix([b / (1 + b) * (entry - mp.mpf(1) / num_classes) for entry in numbers(row)])
        expected += list(transposed * z / gram)
    return compared("features of `fixed_classifier`", found, expected, 1e-14)


CLAIM = Claim(
    title="Mean squared error: straight lines instead of a channel",
    statement=r"""For the loss $\frac12\lVert W h + b - y\rVert^2$ with a free bias and a symmetric law of the labels,
$b = \mathbf 1/K$ and $z = \gamma\,(y - \mathbf 1/K)$, with $\gamma = \beta/(1+\beta)$ for a fixed ETF. At the joint
optimum
$$\gamma = \max\left(0,\, 1 - \frac{\sqrt{\lambda_W\lambda_H}}{\sigma}\right), \qquad \sigma^2 = \frac rK, \qquad
m^2 = \gamma\,\sigma\sqrt{\frac{\lambda_H}{\lambda_W}}\,\frac{K-1}{K},$$
with $r$ of the claim on the threshold, which is the same as for cross entropy. Mixed features are convex combinations
of class means.""",
    assumptions=(
        r"A symmetric law of the labels, $d \ge K - 1$, $\lambda_W, \lambda_H > 0$ in the expectation convention.",
        r"The bias carries no penalty.",
    ),
    implemented_by=(
        "ufm.fixed_classifier",
        "ufm.joint_optimum",
        "ufm.losses.MeanSquaredError.etf_logits",
    ),
    tests=(
        "tests/derivations/test_derivations.py::test_claim_holds",
        "tests/theory/test_joint.py::test_mean_squared_error_features_are_convex_combinations_of_class_means",
    ),
    derive=derive,
    check=check,
)

if __name__ == "__main__":
    main(CLAIM)
