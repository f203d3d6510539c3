"""The straight-line limit of the closed form, and how densely mixtures lie at the decision boundary."""

import numpy as np
from mpmath import mp

import ufm
from derivations.claim import Check, Claim, Derivation, Step, main
from derivations.reference import Number, compared, precisely, prox, worst
from derivations.symbols import SMALL, SMALL_TEXT, alpha, beta, lam, simplex, softmax, sp, vector

p_half = sp.Symbol("p", positive=True)


def derive() -> tuple[Step, ...]:
    d = Derivation()
    d.say(
        "Write $z = \\beta u$. Stationarity $z = \\beta(y - p)$ becomes an equation for $u$ that is smooth in $\\beta$ "
        "down to zero.",
        r"G(u, \beta) = u - y + \operatorname{softmax}(\beta u) = 0",
    )
    at_zero, slopes, movement = [], [], []
    for size in SMALL:
        u, y = vector("u", size), simplex("y", size)
        G = u - y + softmax(beta * u)
        uniform = sp.ones(size, 1) / size
        at_zero.append((G.subs(beta, 0), u - y + uniform))
        slopes.append((G.jacobian(u).subs(beta, 0), sp.eye(size)))
        # The implicit function theorem: du/dbeta = -(dG/du)^-1 dG/dbeta, at u = y - 1/K, whose entries sum to zero.
        centred = y - uniform
        on_branch = dict(zip(u, centred, strict=True))
        movement.append((-sp.diff(G, beta).subs(beta, 0).subs(on_branch), -centred / size))
    d.identities(
        "At $\\beta = 0$ the prediction is uniform, and the one solution is $u = y - \\mathbf 1/K$;",
        at_zero,
        shown=r"G(u, 0) = u - y + \tfrac1K \mathbf 1",
        cases=SMALL_TEXT,
    )
    d.identities(
        "its Jacobian in $u$ is the identity, so that the solution continues smoothly to $\\beta > 0$",
        slopes,
        shown=r"\frac{\partial G}{\partial u}(u, 0) = I",
        cases=SMALL_TEXT,
    )
    d.identities(
        "and moves there at first by shrinking.",
        movement,
        shown=r"\frac{\mathrm d u}{\mathrm d \beta}(0) = -\tfrac1K\left(y - \tfrac1K \mathbf 1\right), "
        r"\qquad z = \beta\left(1 - \tfrac{\beta}{K}\right)\left(y - \tfrac1K \mathbf 1\right) + O(\beta^3)",
        cases=SMALL_TEXT,
    )
    d.say(
        "To first order this is the straight line $\\gamma\\,(y - \\mathbf 1/K)$ of the mean squared error with "
        "$\\gamma = \\beta$: a linear function of $z(y; \\beta)$ can be as close to a linear function of the label as "
        "one likes, and what it explains beyond is the closed form's curvature."
    )
    slope = sp.Symbol("s", positive=True)
    d.identity(
        "At $\\lambda = 1/2$ the two classes have one probability $p$, and the width $\\beta\\,(2\\lambda - 1 - p_a + "
        "p_b)$ has a slope $s$ in $\\lambda$ of which the probabilities take $p\\, s$.",
        sp.solve(sp.Eq(slope, beta * (2 - p_half * slope)), slope)[0],
        2 * beta / (1 + beta * p_half),
        shown=r"s = \frac{2\beta}{1 + \beta p}",
    )
    density = lam ** (alpha - 1) * (1 - lam) ** (alpha - 1) / sp.Symbol("B", positive=True)
    d.identity(
        "The width increases in $\\lambda$, so that the density of different-class mixtures at width zero is that of "
        "$\\lambda$ at one half over the slope.",
        sp.powsimp(density.subs(lam, sp.Rational(1, 2)) * (1 + beta * p_half) / (2 * beta), force=True),
        sp.Rational(1, 4) ** (alpha - 1) * (1 + beta * p_half) / (2 * beta * sp.Symbol("B", positive=True)),
        shown=r"f\left(\tfrac12\right)\frac{1 + \beta p}{2 \beta}, \qquad f\left(\tfrac12\right) = \frac{4^{1-\alpha}}"
        r"{\mathrm B(\alpha, \alpha)}",
    )
    d.fact(
        "For weak penalties $p$ tends to one half: with $\\lambda$ uniform a quarter of all mixtures per unit of "
        "width, whatever $K$.",
        sp.Eq(
            sp.limit(((1 + beta * p_half) / (2 * beta)).subs(p_half, sp.Rational(1, 2)), beta, sp.oo), sp.Rational(1, 4)
        ),
        shown=r"\lim_{\beta\to\infty} \frac{1 + \beta/2}{2\beta} = \frac14",
    )
    return d.done()


@precisely
def check() -> tuple[Check, ...]:
    limits, densities = [], []
    for num_classes in (3, 10):
        label = [mp.mpf(0)] * num_classes
        label[0], label[1] = mp.mpf("0.75"), mp.mpf("0.25")
        b = 2.0**-20
        line = [mp.mpf(b) * (1 - mp.mpf(b) / num_classes) * (entry - mp.mpf(1) / num_classes) for entry in label]
        found = ufm.prox_logsumexp(np.array(label, dtype=float), b).logits
        # The next term is of relative size beta^2, below the rounding of double precision.
        limits.append(compared("logits of `prox_logsumexp` at small $\\beta$", found, line, 2.0**-38))
        for b in (5.0, 300.0, 1e6):
            half = [mp.mpf(0)] * num_classes
            half[0] = half[1] = mp.mpf("0.5")
            probability = prox(half, mp.mpf(b))[2][0]
            expected = (1 + mp.mpf(b) * probability) / (2 * mp.mpf(b))
            densities.append(_density(num_classes, b, expected))
    return worst(limits), worst(densities)


def _density(num_classes: int, b: float, expected: Number) -> Check:
    """Compare with the share of a fine grid of lambda whose width is within 0.05 of zero."""
    grid = (np.arange(100_001) + 0.5) / 100_001
    labels = np.zeros((len(grid), num_classes))
    labels[:, 0], labels[:, 1] = grid, 1 - grid
    logits = ufm.prox_logsumexp(labels, b).logits
    first = np.zeros(len(grid), dtype=np.int64)
    found = ufm.boundary(logits, first, first + 1, grid, half_width=0.05).density
    # The window's width enters squared, and the grid's spacing against the window.
    return compared("`boundary`'s density on the closed form", [found], [expected], 2.0**-10)


CLAIM = Claim(
    title="The straight-line limit, and the decision boundary",
    statement=r"""For strong penalties the closed form is the straight line of the mean squared error: as $\beta \to 0$,
$$z(y; \beta) = \beta\left(1 - \tfrac{\beta}{K}\right)\left(y - \tfrac1K \mathbf 1\right) + O(\beta^3).$$
For $\lambda$ with density $f$ the different-class mixtures have, per unit of width $z_a - z_b$ at the decision
boundary, the probability $f(1/2)\,(1 + \beta p)/(2\beta)$, with $p$ the probability of either class there; for uniform
$\lambda$ it tends to $1/4$ as $\beta \to \infty$.""",
    assumptions=(r"A fixed simplex ETF, as in the first claim; $K \ge 3$ classes for the density.",),
    implemented_by=("ufm.layer_pattern", "ufm.boundary"),
    tests=(
        "tests/derivations/test_derivations.py::test_claim_holds",
        "tests/networks/test_layers.py::test_a_layer_that_is_linear_in_the_label_is_no_channel",
    ),
    derive=derive,
    check=check,
)

if __name__ == "__main__":
    main(CLAIM)
