"""The channel: width and depth of different-class logits as the penalties vanish, limit shape, and length ratio."""

import numpy as np
from mpmath import mp

import ufm
from derivations.claim import Check, Claim, Derivation, Step, main
from derivations.reference import EPS, Number, compared, evaluator, precisely, prox, worst
from derivations.symbols import SMALL, K, beta, lam, sp

width, center = sp.symbols("w z_c", real=True)
depth, s, c, epsilon, x = sp.symbols("D s c epsilon x", positive=True)
p_0 = sp.Symbol("p_0", positive=True)

WIDTH_LIMIT = sp.log(lam / (1 - lam))
RATIO = sp.sqrt(2 * (K - 2) / (K - 1))
DEPTH_LIMIT = sp.LambertW(K * beta / 2 * sp.sqrt(lam * (1 - lam)))


def derive() -> tuple[Step, ...]:
    d = Derivation()
    _exact_equations(d)
    _limits(d)
    _shape(d)
    return d.done()


def _exact_equations(d: Derivation) -> None:
    d.say(
        "Let $y = \\lambda e_a + (1-\\lambda) e_b$, $K \\ge 3$. The components of $z = \\beta(y - p)$ at $a$, $b$ and "
        "any other class are three equations; $p_a + p_b + (K-2) p_0 = 1$.",
        r"w = z_a - z_b, \qquad D = \tfrac12 (z_a + z_b) - z_0",
    )
    p_a, p_b = sp.symbols("p_a p_b", positive=True)
    z_a, z_b, z_0 = beta * (lam - p_a), beta * (1 - lam - p_b), -beta * p_0
    d.identity(
        "The depth is proportional to the probability that is left to each of the other classes.",
        ((z_a + z_b) / 2 - z_0).subs(p_b, 1 - p_a - (K - 2) * p_0),
        K * beta / 2 * p_0,
        shown=r"D = \frac\beta2 (1 - p_a - p_b) + \beta p_0 = \frac{K\beta}{2}\, p_0",
    )
    softmax_depth = (sp.log(p_a) + sp.log(p_b)) / 2 - sp.log(p_0)
    d.identity(
        "It is also the logarithm of a ratio of probabilities, since $z_k = \\log p_k$ up to one constant. Together: "
        "$D$ is a Lambert $W$, exactly and at every $\\beta$.",
        sp.expand_log(sp.log(depth) + softmax_depth.subs(p_0, 2 * depth / (K * beta))),
        sp.expand_log(sp.log(K * beta / 2 * sp.sqrt(p_a * p_b))),
        shown=r"D = \log\frac{\sqrt{p_a p_b}}{p_0} \quad\Longrightarrow\quad "
        r"D\,e^D = \frac{K\beta}{2}\sqrt{p_a p_b}, \qquad D = W_0\left(\frac{K\beta}{2}\sqrt{p_a p_b}\right)",
    )
    tanh = sp.tanh(width / 2).rewrite(sp.exp)
    first, second = s / (1 + sp.exp(-width)), s / (1 + sp.exp(width))
    d.identities(
        "With $s = p_a + p_b$ and $p_a/p_b = e^w$, the two target probabilities are functions of $s$ and $w$.",
        [(first / second, sp.exp(width)), (first + second, s), (first - second, s * tanh)],
        shown=r"p_a - p_b = s \tanh\frac w2, \qquad s = 1 - (K-2)\, p_0 = 1 - \frac{2(K-2)}{K}\,\frac{D}{\beta}",
    )
    d.identity(
        "The product of the two, which the depth needs, is",
        first * second,
        s**2 / (4 * sp.cosh(width / 2) ** 2).rewrite(sp.exp),
        shown=r"p_a p_b = \frac{s^2}{4 \cosh^2 (w/2)},",
    )
    d.identity(
        "and the difference of the components at $a$ and $b$ is one exact equation for the width, increasing in $w$.",
        (z_a - z_b).subs({p_a: first, p_b: second}) - beta * (2 * lam - 1 - s * tanh),
        sp.Integer(0),
        shown=r"s \tanh\frac w2 + \frac w\beta = 2\lambda - 1",
    )


def _limits(d: Derivation) -> None:
    a, b = sp.symbols("p_a p_b", positive=True)
    d.identity(
        "Two probabilities that sum to at most one have a product of at most $\\frac14$,",
        sp.Rational(1, 4) - a * b,
        ((a - b) ** 2 + (1 - a - b) * (1 + a + b)) / 4,
        shown=r"\tfrac14 - p_a p_b = \tfrac14\left[(p_a - p_b)^2 + (1 - s)(1 + s)\right] \ge 0,",
    )
    bound = (2 * (K - 2) / K * x / beta).subs(beta, 4 * x * sp.exp(x) / K)
    d.fact(
        "so that the depth is at most $\\bar D = W_0(K\\beta/4)$. Hence $p_0$ is at most of order "
        "$\\log\\beta/\\beta$ and $s \\to 1$; in the limit below $\\beta = 4 \\bar D e^{\\bar D}/K$.",
        sp.And(
            sp.Eq(sp.simplify(bound - (K - 2) / 2 * sp.exp(-x)), 0),
            sp.Eq(sp.limit(bound, x, sp.oo), 0),
        ),
        shown=r"(K-2)\,p_0 = \frac{2(K-2)}{K}\,\frac D\beta \le \frac{2(K-2)}{K}\,\frac{\bar D}{\beta} "
        r"= \frac{K-2}{2}\,e^{-\bar D} \to 0",
    )
    d.say(
        "Exchanging the classes changes the sign of $w$; let $\\lambda \\ge 1/2$. Then $0 \\le w \\le 2 "
        "\\operatorname{artanh}((2\\lambda - 1)/s)$ stays bounded as $s \\to 1$, so that $w/\\beta \\to 0$. What is "
        "left of the width's equation is $\\tanh(w/2) = 2\\lambda - 1$."
    )
    d.identity(
        "Its solution is the logit of $\\lambda$: no $\\beta$, $K$ or $\\alpha$.",
        sp.tanh(WIDTH_LIMIT / 2).rewrite(sp.exp),
        2 * lam - 1,
        shown=r"w \to \log\frac{\lambda}{1 - \lambda}",
    )
    product = (1 / (4 * sp.cosh(width / 2) ** 2)).rewrite(sp.exp).subs(width, WIDTH_LIMIT)
    d.identity(
        "At this width and $s = 1$ the product of the target probabilities is $\\lambda(1-\\lambda)$, which gives the "
        "depth.",
        product,
        lam * (1 - lam),
        shown=r"p_a p_b \to \lambda(1 - \lambda), \qquad "
        r"D \sim W_0\left(\frac{K\beta}{2}\sqrt{\lambda(1-\lambda)}\right)",
    )
    implicit = (1 - 2 * (K - 2) / K * depth * epsilon) * sp.tanh(width / 2) + width * epsilon - (2 * lam - 1)
    at_limit = implicit.subs({epsilon: 0, width: WIDTH_LIMIT}).rewrite(sp.exp)
    rate = -(sp.diff(implicit, epsilon) / sp.diff(implicit, width)).subs(epsilon, 0).rewrite(sp.exp)
    d.identities(
        "To first order in the two small quantities $1/\\beta$ and $D/\\beta$, implicit differentiation of the width's "
        "equation gives the correction: the limit is approached at the rate $\\log\\beta/\\beta$, as long as "
        "$\\lambda(1-\\lambda)$ is well above it.",
        [(at_limit, sp.Integer(0)), (rate.subs(width, WIDTH_LIMIT), CORRECTION)],
        shown=r"w = \log\frac{\lambda}{1-\lambda} + \frac{1}{\beta}\,"
        r"\frac{\frac{2(K-2)}{K}(2\lambda-1)\,D - \log\frac{\lambda}{1-\lambda}}{2\lambda(1-\lambda)} + \dots",
    )
    slope, half = sp.Symbol("w'", positive=True), sp.Rational(1, 2)
    # At lambda = 1/2 the width is zero, so that a change of s does not move s tanh(w/2).
    crossing = sp.solve(s * sp.diff(sp.tanh(width / 2), width).subs(width, 0) * slope + slope / beta - 2, slope)[0]
    d.identities(
        "At the boundary, $\\lambda = 1/2$ and $w = 0$, differentiating the same equation gives the slope of the "
        "width; a straight line between the same-class ends, where $w$ is $\\mp x$, has the slope $2x$.",
        [
            (crossing, 2 * beta / (1 + beta * (half * s))),
            (sp.limit(crossing.subs(s, 1), beta, sp.oo), sp.Integer(4)),
        ],
        shown=r"\frac{\mathrm dw}{\mathrm d\lambda}(\tfrac12) = \frac{2}{s/2 + 1/\beta} "
        r"= \frac{2\beta}{1 + \beta p_a} \to 4, \qquad p_a = \frac s2",
    )


CORRECTION = (2 * (K - 2) / K * (2 * lam - 1) * depth - WIDTH_LIMIT) / (2 * lam * (1 - lam))


def _shape(d: Derivation) -> None:
    center_value = sp.solve(2 * (depth + center) + (K - 2) * center, center)[0]
    d.identities(
        "Logits sum to zero, so width and depth determine all of them.",
        [
            (center_value, -2 * depth / K),
            (depth + center_value + width / 2, depth * (1 - 2 / K) + width / 2),
        ],
        shown=r"z = D\,\left(e_a + e_b - \tfrac2K \mathbf 1\right) + \frac w2\,(e_a - e_b)",
    )
    n, growth = sp.symbols("n beta", positive=True)  # n: the other K-1 classes
    log_mixed = sp.expand_log(sp.log(sp.solve(sp.Eq(x * sp.exp(x), c * growth), growth)[0]))
    log_same = sp.expand_log(sp.log(sp.solve(sp.Eq(x * (sp.exp(x) + n), (1 + n) * growth), growth)[0]))
    d.fact(
        "Both $D$ and the same-class gap $x$ grow like $\\log\\beta$: from $D e^D = c\\,\\beta$ and $x (e^x + K - 1) = "
        "K\\beta$, with $\\log\\beta$ as a function of the solution.",
        sp.And(
            sp.Eq(sp.expand(log_mixed - (x + sp.log(x) - sp.log(c))), 0),
            sp.Eq(sp.expand(log_same - (sp.log(x) + sp.log(sp.exp(x) + n) - sp.log(1 + n))), 0),
            sp.Eq(sp.limit(x / log_mixed, x, sp.oo), 1),
            sp.Eq(sp.limit(x / log_same, x, sp.oo), 1),
        ),
        shown=r"\frac{D}{\log\beta} = \frac{D}{D + \log D - \log c} \to 1, \qquad "
        r"\frac{x}{\log\beta} = \frac{x}{\log x + \log(e^x + K - 1) - \log K} \to 1",
    )
    d.say(
        "The bounded width drops out after division by $\\log\\beta$: one point for all $\\lambda$ strictly between 0 "
        "and 1.",
        r"\frac{z}{\log\beta} \to e_a + e_b - \tfrac2K \mathbf 1 \quad\text{(different class)}, \qquad "
        r"\frac{z}{\log\beta} \to e_y - \tfrac1K \mathbf 1 \quad\text{(same class)}",
    )
    support, label_sum = sp.symbols("r S", positive=True)
    above = beta * (label_sum - (1 - (K - support) * p_0)) / support + beta * p_0
    d.identity(
        "The same holds for a label with any number $r < K$ of positive entries, whatever their values: with the depth "
        "$D_r$ measured from their mean logit, $p_0 = r D_r/(K\\beta)$, and logits on the support differ by a bounded "
        "amount.",
        above.subs(label_sum, 1),
        K * beta * p_0 / support,
        shown=r"D_r = \frac1r\sum_{y_k > 0} z_k - z_0 = \frac{K\beta}{r}\,p_0, \qquad "
        r"\frac{z}{\log\beta} \to \mathbf 1_{y > 0} - \frac rK\,\mathbf 1",
    )
    pairs = []
    for size in SMALL[1:]:
        mixed = sp.Matrix([1 - sp.Rational(2, size)] * 2 + [-sp.Rational(2, size)] * (size - 2))
        same = sp.Matrix([1 - sp.Rational(1, size)] + [-sp.Rational(1, size)] * (size - 1))
        pairs.append((mixed.dot(mixed) / same.dot(same), (RATIO**2).subs(K, size)))
    generic = (2 * (1 - 2 / K) ** 2 + (K - 2) * (2 / K) ** 2, (1 - 1 / K) ** 2 + (K - 1) / K**2)
    d.identities(
        "Feature norms are proportional to logit norms ($h = \\frac{K-1}{Km^2} W^\\top z$ and $W W^\\top$ is $g$ "
        "times the identity on centred vectors), so the limit of the ratio of lengths is",
        [*pairs, (generic[0] / generic[1], RATIO**2)],
        shown=r"\frac{\lVert h_{ab}\rVert}{\lVert h_y\rVert} \to "
        r"\sqrt{\frac{2(1-\frac2K)^2 + (K-2)\frac{4}{K^2}}{(1-\frac1K)^2 + (K-1)\frac{1}{K^2}}} "
        r"= \sqrt{\frac{2(K-2)}{K-1}}",
    )
    d.identities(
        "Mixed and same-class features end up equally long for three classes; for many classes the ratio tends to "
        "$\\sqrt 2$.",
        [
            (RATIO.subs(K, 3), sp.Integer(1)),
            (sp.limit(RATIO.subs(K, x), x, sp.oo), sp.sqrt(2)),
        ],
        shown=r"\sqrt{\frac{2(K-2)}{K-1}} = 1 \quad\text{for } K = 3, \qquad \to \sqrt 2 \quad\text{for } K \to \infty",
    )


@precisely
def check() -> tuple[Check, ...]:
    limits = [evaluator((lam, K, beta), form) for form in (WIDTH_LIMIT, DEPTH_LIMIT)]
    correction = evaluator((lam, K, depth), CORRECTION)
    exact, asymptotic, closed, remainder, lengths, slopes, far = [], [], [], [], [], [], []
    for num_classes in (3, 10, 100):
        for b in (1.0, 1e4, 2.0**40):
            for coefficient in (0.03125, 0.5, 0.8125):
                found = ufm.channel(coefficient, b, num_classes)
                z, _, q = prox(
                    [mp.mpf(coefficient), mp.mpf(1 - coefficient), mp.mpf(0)], mp.mpf(b), [1, 1, num_classes - 2]
                )
                w, deep = z[0] - z[1], (z[0] + z[1]) / 2 - z[2]
                unit = max(abs(entry) for entry in z)
                exact.append(
                    compared(
                        "width and depth of `channel`", [found.width, found.depth], [w, deep], 32 * EPS, scale=unit
                    )
                )
                expected = [limit(mp.mpf(coefficient), num_classes, mp.mpf(b)) for limit in limits]
                shown = [found.width_asymptotic, found.depth_asymptotic]
                asymptotic.append(compared("asymptotic width and depth of `channel`", shown, expected, 16 * EPS))
                lambert = mp.lambertw(num_classes * mp.mpf(b) / 2 * mp.sqrt(q[0] * q[1]))
                closed.append(abs(deep - lambert) / deep)
                if b > 1:
                    step = correction(mp.mpf(coefficient), num_classes, deep) / mp.mpf(b)
                    remainder.append(abs(w - expected[0] - step) / (deep / (b * coefficient * (1 - coefficient))) ** 2)
        lengths += [_length_ratio(num_classes, b) for b in (0.5, 300.0, 1e10)]
        slopes += [_amplification(num_classes, b) for b in (0.5, 300.0, 1e10)]
        limit_ratio = mp.mpf(2 * (num_classes - 2)) / (num_classes - 1)
        far.append(abs(_exact_ratio(num_classes, mp.exp(10000), mp.mpf("0.25")) - mp.sqrt(limit_ratio)) * 10000)
    shapes = ufm.limit_shape(np.array([[0.5, 0.25, 0.25, 0.0], [0.0, 0.0, 1.0, 0.0]]))
    quarter = mp.mpf(1) / 4
    return (
        worst(exact),
        worst(asymptotic),
        Check("the exact Lambert-W form of the depth at fifty digits", float(max(closed)), 1e-35),
        Check(
            "remainder after the width's first correction, in units of $(D/(\\beta\\lambda(1-\\lambda)))^2$",
            float(max(remainder)),
            1.0,
        ),
        worst(slopes),
        worst(lengths),
        Check("length ratio at $\\log\\beta = 10^4$ against its limit, times $\\log\\beta$", float(max(far)), 5.0),
        compared(
            "`limit_shape`",
            shapes,
            [quarter, quarter, quarter, -3 * quarter, -quarter, -quarter, 3 * quarter, -quarter],
            EPS,
        ),
    )


def _exact_ratio(num_classes: int, b: Number, coefficient: Number) -> Number:
    """Return the length of mixed logits over that of same-class ones, at the working precision."""
    mixed, _, _ = prox([coefficient, 1 - coefficient, mp.mpf(0)], b, [1, 1, num_classes - 2])
    same, _, _ = prox([mp.mpf(1), mp.mpf(0)], b, [1, num_classes - 1])

    def square(logits: list[Number], counts: list[int]) -> Number:
        return mp.fsum(count * entry**2 for count, entry in zip(counts, logits, strict=True))

    return mp.sqrt(square(mixed, [1, 1, num_classes - 2]) / square(same, [1, num_classes - 1]))


def _length_ratio(num_classes: int, b: float) -> Check:
    expected = _exact_ratio(num_classes, mp.mpf(b), mp.mpf("0.125"))
    found = ufm.length_ratio(np.array([0.125]), b, num_classes)
    return compared("`length_ratio`", found, [expected], 32 * EPS)


def _amplification(num_classes: int, b: float) -> Check:
    """Compare with a central difference of the exact width, at twice the digits."""
    with mp.workdps(100):
        step = mp.mpf(10) ** -30
        ends = [
            prox(
                [mp.mpf(1) / 2 + sign * step, mp.mpf(1) / 2 - sign * step, mp.mpf(0)],
                mp.mpf(b),
                [1, 1, num_classes - 2],
            )
            for sign in (1, -1)
        ]
        widths = [logits[0] - logits[1] for logits, _, _ in ends]
        same, _, _ = prox([mp.mpf(1), mp.mpf(0)], mp.mpf(b), [1, num_classes - 1])
        expected = (widths[0] - widths[1]) / (2 * step) / (2 * (same[0] - same[1]))
    return compared("`amplification`", [ufm.amplification(b, num_classes)], [expected], 32 * EPS)


CLAIM = Claim(
    title="The channel",
    statement=r"""For $y = \lambda e_a + (1-\lambda)e_b$ and a fixed ETF put $w = z_a - z_b$ and $D = (z_a+z_b)/2 -
z_0$. At every $\beta$, $D = W_0\left(\frac{K\beta}{2}\sqrt{p_a p_b}\right)$. As $\beta \to \infty$ with $\lambda \in
(0,1)$ fixed,
$$w \to \log\frac{\lambda}{1-\lambda}, \qquad D \sim W_0\left(\frac{K\beta}{2}\sqrt{\lambda(1-\lambda)}\right), \qquad
\frac{z}{\log\beta} \to e_a + e_b - \tfrac2K\mathbf 1.$$
Across the decision boundary the features stay at a bounded distance while along it they run off like $\log\beta$.
Different-class features end up $\sqrt{2(K-2)/(K-1)}$ times as long as same-class ones.""",
    assumptions=(
        r"A fixed simplex ETF, as in the first claim; $K \ge 3$.",
        r"The limits are pointwise in $\lambda$; they need $\lambda(1-\lambda)$ well above $1/(K\beta)$.",
    ),
    implemented_by=("ufm.channel", "ufm.limit_shape", "ufm.length_ratio", "ufm.amplification"),
    tests=(
        "tests/derivations/test_derivations.py::test_claim_holds",
        "tests/theory/test_joint.py::test_channel_approaches_its_asymptotics",
    ),
    derive=derive,
    check=check,
)

if __name__ == "__main__":
    main(CLAIM)
