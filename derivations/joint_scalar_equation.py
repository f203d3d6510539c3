"""The joint optimum from one scalar equation in beta, decreasing, with the multiplier m alongside."""

import torch
from mpmath import mp

import ufm
from derivations.claim import Check, Claim, Derivation, Step, main
from derivations.reference import (
    Number,
    compared,
    joint_beta,
    mean_square_residual,
    mixup_orbits,
    precisely,
    prox,
    worst,
)
from derivations.symbols import (
    SMALL,
    SMALL_TEXT,
    K,
    beta,
    beta_of_m,
    centring,
    fisher,
    gram_factor,
    lambda_H,
    lambda_W,
    m,
    simplex,
    softmax,
    sp,
    vector,
)
from ufm.losses import get_loss

g, square = sp.symbols("g S", positive=True)


def derive() -> tuple[Step, ...]:
    d = Derivation()
    d.say(
        "The optimal classifier is a simplex ETF, so that one number $g = m^2 K/(K-1)$ is left of it, or $\\beta = "
        "g/\\lambda_H$. Write $u = y - p$ for the residual at the optimal features; $z = \\beta u$."
    )
    d.identities(
        "The two penalties in terms of $g$, with $h = W^\\top z/g$ and $W W^\\top z = g z$.",
        [
            (K * m**2, (K - 1) * gram_factor),
            (lambda_H / 2 * (g * square / g**2), (square / (2 * beta)).subs(beta, g / lambda_H)),
        ],
        shown=r"\lVert W\rVert_F^2 = K m^2 = (K-1)\,g, \qquad \frac{\lambda_H}{2}\lVert h\rVert^2 = "
        r"\frac{\lambda_H}{2}\,\frac{z^\top W W^\top z}{g^2} = \frac{\lVert z\rVert^2}{2\beta}",
    )
    d.say(
        "Minimised over the features, the objective is a function of $g$ alone.",
        r"\Phi(g) = \mathbb E \min_z \left[\mathrm{CE}(z, y) + \frac{\lVert z\rVert^2}{2\beta}\right] + "
        r"\frac{\lambda_W}{2}(K-1)\,g, \qquad \beta = \frac{g}{\lambda_H}",
    )
    d.identity(
        "The minimum over $z$ moves with $\\beta$ only through the explicit $\\beta$ (envelope theorem), and "
        "$\\lVert z\\rVert^2 = \\beta^2\\lVert u\\rVert^2$.",
        sp.diff(square / (2 * beta), beta).subs(square, beta**2 * square) / lambda_H
        + sp.diff(lambda_W * (K - 1) * g / 2, g),
        ((K - 1) * lambda_W * lambda_H - square) / (2 * lambda_H),
        shown=r"\Phi'(g) = \frac{1}{2\lambda_H}\left[(K-1)\,\lambda_W\lambda_H - \mathbb E\lVert u\rVert^2\right]",
    )
    d.say(
        "A positive optimum is therefore a root of the equation that was claimed.",
        r"\mathbb E\lVert y - p(y;\beta)\rVert^2 = (K-1)\,\lambda_W\lambda_H",
    )
    d.identity(
        "The multiplier follows from the definition of $\\beta$.",
        sp.solve(sp.Eq(beta_of_m, beta), m)[0] ** 2,
        (K - 1) * lambda_H * beta / K,
        shown=r"m^2 = \frac{(K-1)\,\lambda_H\,\beta}{K}",
    )
    _monotone(d)
    d.identities(
        "Stationarity in $W$ says the same. Inserting $h = \\frac{1}{\\lambda_H}W^\\top u$ into $\\lambda_W W = "
        "\\mathbb E[u h^\\top]$ gives $\\lambda_W\\lambda_H W = \\mathbb E[uu^\\top] W$; by symmetry $\\mathbb "
        "E[uu^\\top]$ is a multiple of the centring, whose trace is $K - 1$.",
        [(centring(size).trace(), sp.Integer(size - 1)) for size in SMALL],
        shown=r"\mathbb E[uu^\top] = \lambda_W\lambda_H\left(I - \tfrac1K\mathbf 1\mathbf 1^\top\right) "
        r"\quad\Longrightarrow\quad \mathbb E\lVert u\rVert^2 = (K-1)\,\lambda_W\lambda_H",
        cases=SMALL_TEXT,
    )
    return d.done()


def _monotone(d: Derivation) -> None:
    pairs = []
    for size in (2, 3, 4):
        u = sp.Matrix([sp.Function(f"u_{index}", real=True)(beta) for index in range(size)])
        q = softmax(list(beta * u))
        pairs.append((q.diff(beta), fisher(q) * (u + beta * u.diff(beta))))
    d.identities(
        "*Monotonicity.* Differentiate $u = y - \\operatorname{softmax}(\\beta u)$ in $\\beta$, with "
        "$J = \\operatorname{diag} p - pp^\\top$ and $v = u + \\beta u'$.",
        pairs,
        shown=r"\frac{\mathrm d}{\mathrm d\beta}\operatorname{softmax}(\beta u) = J\,(u + \beta u') "
        r"\quad\Longrightarrow\quad u' = -J v",
        cases="K = 2, 3, 4",
    )
    pairs = []
    for size in SMALL:
        v, J = vector("v", size), fisher(simplex("p", size))
        slope = -J * v
        u = v - beta * slope
        pairs.append((2 * u.dot(slope), -2 * (v.T * J * v)[0] - 2 * beta * (J * v).dot(J * v)))
    d.identities(
        "Since $u = v - \\beta u' = v + \\beta J v$, the squared residual falls: both terms are squares ($J$ is a "
        "covariance).",
        pairs,
        shown=r"\frac{\mathrm d}{\mathrm d\beta}\lVert u\rVert^2 = 2\,u^\top u' = -2\,v^\top J v - 2\beta\,\lVert J "
        r"v\rVert^2 \le 0",
        cases=SMALL_TEXT,
    )
    d.say(
        "Equality needs $Jv = 0$, hence $u' = 0$, $v = u$ and $Ju = 0$; $J$ annihilates only constants and $u$ sums "
        "to zero, so that $u = 0$, $z = 0$ and $y = \\mathbf 1/K$. For any other label the decrease is strict."
    )
    pairs = []
    for size in (2, 3):
        v, J = vector("v", size), fisher(simplex("p", size))
        z = beta * (v + beta * J * v)
        # dz/dbeta = u + beta u' = v, and the derivative in log(beta) is beta times that.
        pairs.append(((sp.eye(size) + beta * J) * (beta * v), z))
        pairs.append((2 * z.dot(beta * v), 2 * (z.T * (sp.eye(size) + beta * J).inv() * z)[0]))
    d.identities(
        "For Newton's method in $\\log\\beta$: since $z = \\beta u$ moves with $z' = u + \\beta u' = v$ and $u = (I + "
        "\\beta J) v$,",
        pairs,
        shown=r"\frac{\mathrm d\lVert z\rVert^2}{\mathrm d\log\beta} = 2\beta\,z^\top v = 2\,z^\top (I + \beta "
        r"J)^{-1} z",
        cases="K = 2, 3",
    )
    n = sp.Symbol("n", integer=True, positive=True)
    d.identity(
        "*Limits.* As $\\beta \\to 0$, $z = \\beta u \\to 0$ and $p \\to \\mathbf 1/K$. As $\\beta \\to \\infty$, "
        "compare $p$ with $y$ in the dual problem that $p$ minimises; negative entropy is at most 0 at $y$, and at "
        "least $-\\log K$ at $p$ (its value at the uniform distribution).",
        n * (sp.log(1 / n) / n),
        -sp.log(n),
        shown=r"\sum_k p_k\log p_k + \frac\beta2\lVert p - y\rVert^2 \le \sum_k y_k\log y_k \le 0 "
        r"\quad\Longrightarrow\quad \lVert y - p\rVert^2 \le \frac{2\log K}{\beta} \to 0",
    )
    d.say(
        "So $\\Phi'$ increases from $\\Phi'(0^+)$ to $\\frac{K-1}{2}\\lambda_W > 0$: $\\Phi$ is convex, its minimum "
        "is unique, and it is positive exactly if $\\Phi'(0^+) < 0$ (see the claim on the threshold)."
    )


CASES = ((5, 1, 0.02, 0.02), (10, 1, 1e-3, 5e-4), (3, 2, 0.15, 0.3), (100, 1, 1e-5, 1e-4))


@precisely
def check() -> tuple[Check, ...]:
    betas, multipliers, bounds = [], [], []
    for num_classes, alpha, weight_decay, feature_decay in CASES:
        found = ufm.joint_optimum(ufm.Mixup(num_classes, float(alpha)), weight_decay, feature_decay, nodes=9)
        orbits = mixup_orbits(num_classes, alpha, 9)
        root = joint_beta(orbits, mp.mpf(weight_decay) * mp.mpf(feature_decay), mp.mpf(found.beta))
        betas.append(compared("`joint_optimum`, beta", [found.beta], [root], 1e-13))
        m_exact = mp.sqrt((num_classes - 1) * mp.mpf(feature_decay) * root / num_classes)
        multipliers.append(compared("`joint_optimum`, multiplier", [found.multiplier], [m_exact], 1e-13))
        bounds.append(float(mean_square_residual(orbits, root) * root / (2 * mp.log(num_classes))))
    inverse = []
    for num_classes, alpha in ((5, 1), (10, 2)):
        expected = mean_square_residual(mixup_orbits(num_classes, alpha, 9), mp.mpf(300)) / (num_classes - 1)
        found = ufm.penalty_product(ufm.Mixup(num_classes, float(alpha)), 300.0, nodes=9)
        inverse.append(compared("`penalty_product`", [found], [expected], 1e-13))
    return (
        worst(betas),
        worst(multipliers),
        worst(inverse),
        _continuous(),
        _slope(),
        Check("$\\beta\\,\\mathbb E\\lVert y-p\\rVert^2$ in units of its bound $2\\log K$", max(bounds), 1.0),
    )


def _continuous() -> Check:
    """Compare beta for the continuous law with adaptive quadrature at thirty digits."""
    num_classes, penalty = 5, 0.02
    found = ufm.joint_optimum(ufm.Mixup(num_classes), penalty, penalty).beta

    def residual(coefficient: Number, b: Number) -> Number:
        levels, counts = [coefficient, 1 - coefficient, mp.mpf(0)], [1, 1, num_classes - 2]
        return mean_square_residual([(mp.mpf(1), levels, counts)], b)

    def excess(b: Number) -> Number:
        # The integrand is symmetric, and sharp next to the end of the interval.
        nodes = [mp.mpf(0), mp.mpf("0.001"), mp.mpf("0.01"), mp.mpf("0.1"), mp.mpf("0.5")]
        mixed = 2 * mp.quad(lambda coefficient: residual(coefficient, b), nodes, method="gauss-legendre", maxdegree=4)
        same = residual(mp.mpf(1), b)
        return mp.log((same + (num_classes - 1) * mixed) / num_classes / (num_classes - 1)) - 2 * mp.log(
            mp.mpf(penalty)
        )

    with mp.workdps(30):
        b = mp.mpf(float(found))
        # One secant step from ufm's value, relative to it: the error to first order.
        slope = (excess(b * (1 + mp.mpf("1e-6"))) - excess(b)) / mp.mpf("1e-6")
        return Check("`joint_optimum`, beta for the continuous law", float(abs(excess(b) / slope)), 1e-12)


def _slope() -> Check:
    """Compare d||z||^2/dlog(beta) of ufm with a central difference at a hundred digits."""
    num_classes, b, coefficient = 6, 40.0, 0.1875
    counts = [1, 1, num_classes - 2]
    levels = [coefficient, 1 - coefficient, 0.0]
    loss = get_loss("cross_entropy")
    tensors = [torch.tensor([values], dtype=torch.float64) for values in (levels, counts)]
    scale = torch.tensor(b, dtype=torch.float64)
    found = loss.etf_slope(loss.etf_logits(tensors[0], scale, tensors[1]), scale, tensors[1])
    with mp.workdps(100):
        step = mp.mpf(10) ** -30

        def square(shift: Number) -> Number:
            z, _, _ = prox([mp.mpf(level) for level in levels], mp.mpf(b) * mp.exp(shift), counts)
            return mp.fsum(count * entry**2 for count, entry in zip(counts, z, strict=True))

        expected = (square(step) - square(-step)) / (2 * step)
    return compared("`losses.CrossEntropy.etf_slope`", found, [expected], 1e-14)


CLAIM = Claim(
    title="One scalar equation for the joint optimum",
    statement=r"""For a symmetric law of the labels the global optimum over classifier and features is the simplex ETF
with
$$\mathbb E\,\lVert y - p(y;\beta)\rVert^2 = (K-1)\,\lambda_W\lambda_H, \qquad m^2 =
\frac{(K-1)\,\lambda_H\,\beta}{K}.$$
The left side falls strictly from $\mathbb E\lVert y - \mathbf 1/K\rVert^2$ to zero, at most like $2\log K/\beta$.""",
    assumptions=(
        r"As in the claim on the optimality of the ETF; expectation convention.",
        r"The label is not uniform almost surely.",
    ),
    implemented_by=("ufm.joint_optimum", "ufm.penalty_product", "ufm.losses.CrossEntropy.etf_slope"),
    tests=(
        "tests/derivations/test_derivations.py::test_claim_holds",
        "tests/theory/test_joint.py::test_joint_optimum_known_values",
        "tests/theory/test_joint.py::test_joint_optimum_solves_its_equations",
        "tests/labels/test_laws.py::test_continuous_law_against_adaptive_quadrature",
    ),
    derive=derive,
    check=check,
)

if __name__ == "__main__":
    main(CLAIM)
