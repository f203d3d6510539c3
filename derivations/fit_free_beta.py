"""beta from the classifier alone: stationarity in W, and why it leaves two candidates."""

from itertools import pairwise

from mpmath import mp

import ufm
from derivations.claim import Check, Claim, Derivation, Step, main
from derivations.reference import Number, compared, mean_square_residual, mixup_orbits, precisely, prox, worst
from derivations.symbols import K, beta, gram_factor, lambda_H, lambda_W, m, sp

x = sp.Symbol("x", positive=True)
square = sp.Symbol("S", positive=True)  # E ||y - p||^2


def derive() -> tuple[Step, ...]:
    d = Derivation()
    pairs = []
    for size, dim in ((2, 2), (3, 2)):
        w = sp.Matrix(size, dim, lambda row, column: sp.Symbol(f"w_{row}{column}", real=True))
        h = sp.Matrix(sp.symbols(f"h_1:{dim + 1}", real=True))
        y = sp.Matrix(sp.symbols(f"y_1:{size + 1}", real=True))
        logits = w * h
        loss = sp.log(sum(sp.exp(entry) for entry in logits)) - y.dot(logits) + lambda_W / 2 * sum(e**2 for e in w)
        total = sum(sp.exp(entry) for entry in logits)
        p = sp.Matrix([sp.exp(entry) / total for entry in logits])
        gradient = w.applyfunc(lambda entry, loss=loss: sp.diff(loss, entry))
        pairs.append((gradient, (p - y) * h.T + lambda_W * w))
        pairs.append(((w.T * gradient).trace(), (p - y).dot(logits) + lambda_W * sum(e**2 for e in w)))
    d.identities(
        "The gradient of $F$ in $W$, and its trace against $W$.",
        pairs,
        shown=r"\mathbb E\left[(p - y)\,h^\top\right] + \lambda_W W = 0 \quad\Longrightarrow\quad "
        r"\mathbb E\left[(p-y)^\top z\right] + \lambda_W\lVert W\rVert_F^2 = 0",
        cases="(K, d) = (2, 2), (3, 2)",
    )
    d.identity(
        "With the optimal logits $z = \\beta(y - p)$ of an ETF and $\\lVert W\\rVert_F^2 = K m^2$, no feature is left "
        "in it.",
        sp.solve(sp.Eq(-beta * square + lambda_W * K * m**2, 0), square)[0] * beta,
        K * lambda_W * m**2,
        shown=r"\beta\,\mathbb E\lVert y - p(y;\beta)\rVert^2 = K\,\lambda_W\,m^2",
    )
    d.identity(
        "The joint optimum satisfies it: its two equations multiply to this one.",
        (beta * square).subs(square, (K - 1) * lambda_W * lambda_H).subs(beta, gram_factor / lambda_H),
        K * lambda_W * m**2,
        shown=r"\beta \cdot (K-1)\,\lambda_W\lambda_H = K\,\lambda_W\,m^2 \qquad\text{at}\quad \beta = \frac{m^2 "
        r"K}{(K-1)\,\lambda_H}",
    )
    _two_roots(d)
    return d.done()


def _two_roots(d: Derivation) -> None:
    d.identity(
        "*Two roots.* The left side starts at zero, like $\\beta\\,\\mathbb E\\lVert y - \\mathbf 1/K\\rVert^2$. "
        "Without mixing it is explicit: with the same-class gap $x$, $\\lVert z\\rVert^2 = x^2 (K-1)/K$ and $\\lVert "
        "y - p\\rVert = \\lVert z\\rVert/\\beta$,",
        (x**2 * (K - 1) / K / beta).subs(beta, x * (sp.exp(x) + K - 1) / K),
        (K - 1) * x / (sp.exp(x) + K - 1),
        shown=r"\beta\,\lVert y - p\rVert^2 = \frac{\lVert z\rVert^2}{\beta} = \frac{(K-1)\,x}{e^x + K - 1}",
    )
    others = sp.Symbol("n", positive=True)
    curve = (K - 1) * x / (sp.exp(x) + K - 1)
    numerator = sp.exp(x) + K - 1 - x * sp.exp(x)
    d.identity(
        "which rises and then falls: the sign of its slope is that of a function that decreases from $K$ to "
        "$-\\infty$.",
        sp.diff(curve, x) * (sp.exp(x) + K - 1) ** 2 / (K - 1),
        numerator,
        shown=r"\operatorname{sign}\frac{\mathrm d}{\mathrm dx}\frac{x}{e^x + K - 1} = \operatorname{sign}\left[e^x + "
        r"K - 1 - x e^x\right]",
    )
    d.fact(
        "So there are two roots, one or none.",
        sp.And(
            sp.Eq(sp.simplify(sp.diff(numerator, x) + x * sp.exp(x)), 0),
            sp.Eq(numerator.subs(x, 0), K),
            sp.Eq(sp.limit(numerator.subs(K, 1 + others), x, sp.oo), -sp.oo),
            sp.Eq(sp.limit(curve.subs(K, 1 + others), x, sp.oo), 0),
        ),
        shown=r"\frac{\mathrm d}{\mathrm dx}\left[e^x + K - 1 - x e^x\right] = -x e^x < 0, \qquad "
        r"\lim_{x\to\infty}\frac{(K-1)\,x}{e^x + K - 1} = 0",
    )
    D, w = sp.symbols("D w", positive=True)
    mixed = D * (1 - 2 / K) + w / 2, D * (1 - 2 / K) - w / 2, -2 * D / K
    d.identity(
        "For a mixed label $\\beta\\lVert y-p\\rVert^2 = \\lVert z\\rVert^2/\\beta$ too; in width and depth",
        mixed[0] ** 2 + mixed[1] ** 2 + (K - 2) * mixed[2] ** 2,
        2 * (K - 2) / K * D**2 + w**2 / 2,
        shown=r"\lVert z\rVert^2 = \frac{2(K-2)}{K} D^2 + \frac{w^2}{2},",
    )
    d.fact(
        "where $D$ is at most $\\bar D = W_0(K\\beta/4)$ and $w$ bounded, so that this part falls to zero as well, "
        "like $(\\log\\beta)^2/\\beta$.",
        sp.Eq(sp.limit((x**2 / beta).subs(beta, 4 * x * sp.exp(x) / K), x, sp.oo), 0),
        shown=r"\frac{D^2}{\beta} \le \frac{K}{4}\,\bar D\,e^{-\bar D} \to 0",
    )
    d.say(
        "Each root is a true joint optimum: any $\\beta > 0$ is optimal for $\\lambda_H = \\mathbb E\\lVert "
        "y-p\\rVert^2/((K-1)\\lambda_W)$. The smaller root belongs to a large feature penalty, close to collapse; the "
        "larger one to a weak penalty and a network that fits its data. The classifier alone cannot tell them apart, "
        "and `ufm.beta_from_classifier` takes the larger. That the average over $\\lambda$ has one hump, too, is not "
        "proved here; it is checked on a grid below."
    )


@precisely
def check() -> tuple[Check, ...]:
    recovered, joint = [], []
    for num_classes, alpha in ((5, 1), (10, 2)):
        orbits = mixup_orbits(num_classes, alpha, 9)
        law = ufm.Mixup(num_classes, float(alpha))
        for b in (200.0, 5000.0):
            # The penalty that makes b a root at row norm 1.5; float64 rounds it, and the slope carries that on.
            square_root = mean_square_residual(orbits, mp.mpf(b))
            penalty = float(mp.mpf(b) * square_root / (num_classes * mp.mpf(2.25)))
            found = ufm.beta_from_classifier(law, penalty, 1.5, nodes=9)
            recovered.append(compared("`beta_from_classifier` recovers beta", [found], [mp.mpf(b)], 1e-13))
        optimum = ufm.joint_optimum(law, 1e-3, 1e-3, nodes=9)
        found = ufm.beta_from_classifier(law, 1e-3, float(optimum.multiplier), nodes=9)
        joint.append(abs(found / float(optimum.beta) - 1))
    return (
        worst(recovered),
        Check("`beta_from_classifier` at the multiplier of `joint_optimum`, relative", max(joint), 1e-12),
        Check(
            "humps beyond the first of $\\beta\\,\\mathbb E\\lVert y-p\\rVert^2$ on a grid of beta",
            float(_extra_humps()),
            0.0,
        ),
        compared("$\\lVert z\\rVert^2$ from width and depth, against `channel`", *_channel_norm(), 1e-14),
    )


def _extra_humps() -> int:
    """Return the number of sign changes of the slope beyond one, over 80 values of beta and several laws."""
    extra = 0
    with mp.workdps(15):
        for num_classes, alpha in ((3, 1), (10, 1), (100, 4)):
            orbits = mixup_orbits(num_classes, alpha, 6)
            grid = [mp.mpf(10) ** (mp.mpf(step) / 10 - 2) for step in range(80)]
            values = [b * mean_square_residual(orbits, b) for b in grid]
            rising = [after > before for before, after in pairwise(values)]
            extra += sum(a != b for a, b in pairwise(rising)) - 1
    return extra


def _channel_norm() -> tuple[list[float], list[Number]]:
    num_classes, b, lam = 7, 300.0, 0.1875
    found = ufm.channel(lam, b, num_classes)
    depth, width = float(found.depth), float(found.width)
    z, _, _ = prox([mp.mpf(lam), mp.mpf(1 - lam), mp.mpf(0)], mp.mpf(b), [1, 1, num_classes - 2])
    norm = z[0] ** 2 + z[1] ** 2 + (num_classes - 2) * z[2] ** 2
    return [2 * (num_classes - 2) / num_classes * depth**2 + width**2 / 2], [norm]


CLAIM = Claim(
    title="Beta from the classifier alone",
    statement=r"""At a stationary point in $W$ with the optimal features of an ETF,
$$\beta\,\mathbb E\,\lVert y - p(y;\beta)\rVert^2 = K\,\lambda_W\,m^2.$$
The size $m$ of a trained classifier and its weight decay $\lambda_W$ therefore determine $\beta$, up to the choice
between the two roots on either side of the maximum of the left side.""",
    assumptions=(
        r"Cross entropy; $W$ a simplex ETF of row norm $m$, stationary; features optimal for some $\lambda_H$ that "
        r"need not be known. Expectation convention.",
    ),
    implemented_by=("ufm.beta_from_classifier",),
    tests=(
        "tests/derivations/test_derivations.py::test_claim_holds",
        "tests/theory/test_joint.py::test_beta_from_classifier_inverts_the_joint_optimum",
    ),
    derive=derive,
    check=check,
)

if __name__ == "__main__":
    main(CLAIM)
