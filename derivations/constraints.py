"""The certificate beyond the plain problem: a bias, nonnegative features, features and rows of fixed norm."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from mpmath import mp

import ufm
from derivations.claim import Check, Claim, Derivation, Step, main
from derivations.reference import Number, compared, cross_entropy, entropy, matrix, numbers, precisely, softmax, worst
from derivations.symbols import SMALL, SMALL_TEXT, K, lambda_H, lambda_W, m, simplex, sp, vector

theta = sp.Symbol("theta", positive=True)
rho = sp.Symbol("rho", positive=True)


def derive() -> tuple[Step, ...]:
    d = Derivation()
    _bias(d)
    _mixing(d)
    _multipliers(d)
    _etf(d)
    _fixed_classifier(d)
    return d.done()


def _bias(d: Derivation) -> None:
    d.say(
        "Let $u_j$ be dual variables, $\\bar u = \\sum_j\\pi_j u_j$, and $o$ a constant offset of the logits. The weak "
        "duality of the claim on the certificate, for logits $W h_j + b + o$, leaves a function of the bias.",
        r"F \ge -\sum_j\pi_j\,\ell^*(u_j) + o^\top\bar u + \left[b^\top\bar u + \frac{\lambda_b}{2}\lVert "
        r"b\rVert^2\right] \qquad\text{if } \lVert G\rVert_2 \le \sqrt{\lambda_W\lambda_H}",
    )
    b, mean = sp.symbols("b_k ubar_k", real=True)
    decay = sp.Symbol("lambda_b", positive=True)
    inner = b * mean + decay * b**2 / 2
    d.identity(
        "A penalised bias: the minimum over $b$, coordinate by coordinate. At a stationary point it is attained, as "
        "$\\bar u + \\lambda_b b = 0$ there.",
        inner.subs(b, sp.solve(sp.diff(inner, b), b)[0]),
        -(mean**2) / (2 * decay),
        shown=r"\min_b \left[b^\top\bar u + \frac{\lambda_b}{2}\lVert b\rVert^2\right] = -\frac{\lVert\bar "
        r"u\rVert^2}{2\lambda_b}, \qquad u_j = t\,r_j: \quad -\frac{\lVert t\,\bar r\rVert^2}{2\lambda_b}",
    )
    size = sp.Symbol("n", positive=True)
    d.fact(
        "A bias without penalty: the bracket has no lower bound unless $\\bar u = 0$, so the mean of the dual "
        "variables has to vanish.",
        sp.Eq(sp.limit(-size * sp.Symbol("s", positive=True), size, sp.oo), -sp.oo),
        shown=r"\inf_b b^\top\bar u = -\infty \quad\text{unless}\quad \bar u = \sum_j\pi_j u_j = 0",
    )
    u, y = sp.symbols("u_k y_k", real=True)
    d.identity(
        "The mean squared error of the library contains a bias $1/K$ of its own. With a bias of the user's it is "
        "taken away by the offset $o = -\\mathbf 1/K$, and the conjugate becomes that of $\\frac12\\lVert z - "
        "y\\rVert^2$.",
        -(u**2 / 2 + u * (y - 1 / K)) - u / K,
        -(u**2 / 2 + u * y),
        shown=r"-\mathrm{MSE}^*(u) + o^\top u = -\tfrac12\lVert u\rVert^2 - u^\top y",
    )


def _mixing(d: Derivation) -> None:
    r, bar = sp.symbols("r rbar", real=True)
    weight = sp.Symbol("pi", positive=True)
    d.identity(
        "*Removing the mean.* For mean squared error every dual variable is allowed: subtract the mean $\\bar r$.",
        weight * (r - bar) + (1 - weight) * ((bar - weight * r) / (1 - weight) - bar),
        sp.Integer(0),
        shown=r"u_j = r_j - \bar r, \qquad \sum_j\pi_j u_j = 0",
    )
    average, mean = sp.symbols("ybar_k rbar_k", real=True)
    other = average - (1 - theta) / theta * mean
    d.identity(
        "For cross entropy $q_j = y_j + u_j$ has to stay on the simplex. Mix every prediction with one distribution "
        "$v$, with the share $\\theta$, so that the average becomes that of the labels.",
        (1 - theta) * (average + mean) + theta * other,
        average,
        shown=r"q_j = (1-\theta)\,p_j + \theta\,v, \quad v = \bar y - \frac{1-\theta}{\theta}\,\bar r "
        r"\quad\Longrightarrow\quad \sum_j\pi_j q_j = \bar y, \qquad u_j = (1-\theta)\,r_j + \theta\,(v - y_j)",
    )
    d.identity(
        "$v$ sums to one because $\\bar r$ sums to zero. It is nonnegative exactly if $\\theta$ is at least each of "
        "$\\bar r_k/(\\bar y_k + \\bar r_k)$; the denominators are the mean predictions, which are positive.",
        theta * other,
        theta * (average + mean) - mean,
        shown=r"\theta\,v_k = \theta\,(\bar y_k + \bar r_k) - \bar r_k \ge 0 \iff \theta \ge \frac{\bar r_k}{\bar "
        r"y_k + \bar r_k}, \qquad \theta = \max_k \frac{\bar r_k}{\bar y_k + \bar r_k} \in [0, 1]",
    )
    d.say("Where the bias is stationary, $\\bar r = 0$ and $\\theta = 0$: the correction costs nothing at an optimum.")
    pairs = []
    for size in SMALL:
        v, y = simplex("v", size), simplex("y", size)
        squares = sum(a * (1 - a) + b * (1 - b) + 2 * a * b for a, b in zip(v, y, strict=True))
        pairs.append((2 - (v - y).dot(v - y), squares))
    d.identities(
        "*In one pass,* before $\\theta$ is known: the difference of two distributions is at most $\\sqrt 2$ long.",
        pairs,
        shown=r"2 - \lVert v - y\rVert^2 = \sum_k \left[v_k(1-v_k) + y_k(1-y_k) + 2 v_k y_k\right] \ge 0",
        cases=SMALL_TEXT,
    )
    d.say(
        "Entropy is concave and not negative, and norms obey the triangle inequality, so that the correction changes "
        "the bound by no more than this.",
        r"\mathcal H(q_j) \ge (1-\theta)\,\mathcal H(p_j), \qquad \lVert G\rVert_2 \le (1-\theta)\lVert G_1\rVert_2 + "
        r"\theta\sqrt 2",
    )


def _multipliers(d: Derivation) -> None:
    loss, penalty, multiplier, square = sp.symbols("L lambda nu Q", real=True)
    d.identity(
        "*Fixed norms.* Where $\\lVert W\\rVert_F^2 = K m^2$ on the whole feasible set, a multiplier $\\nu_W$ can take "
        "the penalty's place, at the cost of a constant; likewise $\\nu_H$ with $\\lVert h_j\\rVert = \\rho$. Without "
        "the constraint the minimum is not larger, and the certificate holds for it if both factors are positive.",
        loss + penalty / 2 * square,
        loss + multiplier / 2 * square + (penalty - multiplier) / 2 * square,
        shown=r"F = F_\nu + \frac{\lambda_W - \nu_W}{2}\,K m^2 + \frac{\lambda_H - \nu_H}{2}\,\rho^2 \ge \min F_\nu "
        r"+ \text{constants} \qquad\text{for all } \nu_W, \nu_H > 0",
    )
    inner = sp.Symbol("g", real=True)
    best = sp.solve(inner + (multiplier - penalty) * square, multiplier)[0]
    d.identity(
        "The multiplier for which the gradient of $F_\\nu$ is orthogonal to $W$, with $g = \\langle W, \\partial "
        "F/\\partial W\\rangle$; at a stationary point with equal multipliers for all rows it makes $F_\\nu$ "
        "stationary.",
        best,
        penalty - inner / square,
        shown=r"\nu_W = \lambda_W - \frac{\langle W, \partial F/\partial W\rangle}{\lVert W\rVert_F^2}, \qquad \nu_H "
        r"= \lambda_H - \frac{\sum_j \langle h_j, \partial F/\partial h_j\rangle}{\sum_j\pi_j\lVert h_j\rVert^2}",
    )


def _etf(d: Derivation) -> None:
    q, g = sp.symbols("q g", positive=True)
    target, rest = -q, q / (K - 1)
    centred = (1 - 1 / K, -1 / K)
    d.identities(
        "*Tightness.* Let classes be balanced, labels unmixed, $W$ a simplex ETF of row norm $m$ and $h_y = \\rho "
        "w_y/m$. Then the logits are $g\\,(e_y - \\mathbf 1/K)$; with $q = 1 - p_y$ the residual is along the same "
        "vector.",
        [(target, -q * K / (K - 1) * centred[0]), (rest, -q * K / (K - 1) * centred[1])],
        shown=r"z = g\left(e_y - \tfrac1K\mathbf 1\right), \quad g = \frac{m\rho K}{K-1}, \qquad r = "
        r"-\frac{q K}{K-1}\left(e_y - \tfrac1K\mathbf 1\right)",
    )
    product = target * g * centred[0] + (K - 1) * rest * g * centred[1]
    d.identity(
        "Both multipliers follow from $\\langle r, z\\rangle$, the same for every class.",
        product,
        -q * g,
        shown=r"\langle r, z\rangle = -q\,g, \qquad \nu_W = \frac{q\,g}{K m^2}, \quad \nu_H = \frac{q\,g}{\rho^2}",
    )
    d.identity(
        "The spectral norm of $G_1$ is exactly $\\sqrt{\\nu_W\\nu_H}$, because $G_1 G_1^\\top$ is $\\left(\\frac{q "
        "K}{K-1}\\right)^2\\frac1K$ times the centring. So $t = 1$.",
        sp.sqrt(q * g / (K * m**2) * q * g / rho**2).subs(g, m * rho * K / (K - 1)),
        q * K / (K - 1) / sp.sqrt(K),
        shown=r"\sqrt{\nu_W\nu_H} = \frac{q\sqrt K}{K-1} = \lVert G_1\rVert_2",
    )
    loss, dual = sp.symbols("ell dual", real=True)
    lhs = loss + lambda_W / 2 * K * m**2 + lambda_H / 2 * rho**2
    multipliers = q * g / (K * m**2), q * g / rho**2
    rhs = dual + (lambda_W - multipliers[0]) / 2 * K * m**2 + (lambda_H - multipliers[1]) / 2 * rho**2
    d.identity(
        "By Fenchel's equality $\\ell(z, y) = -\\ell^*(r) + \\langle r, z\\rangle$ bound and objective agree: the ETF "
        "is a global optimum, for either loss (as long as $q > 0$).",
        (lhs - rhs).subs(loss, dual - q * g),
        sp.Integer(0),
        shown=r"F - \left[-\ell^*(r) + \frac{\lambda_W - \nu_W}{2} K m^2 + \frac{\lambda_H - \nu_H}{2}\rho^2\right] = "
        r"\langle r, z\rangle + q\,g = 0",
    )


def _fixed_classifier(d: Derivation) -> None:
    h, v = sp.symbols("h v", real=True)
    positive, negative = sp.Symbol("x", positive=True), -sp.Symbol("x", positive=True)
    value = -v * h - lambda_H * h**2 / 2
    best = sp.solve(sp.diff(value, h), h)[0]
    d.fact(
        "*Fixed classifier, nonnegative features.* With $v = W^\\top r$ the conjugate of penalty and bound separates "
        "over coordinates. The maximiser $-v/\\lambda_H$ is feasible for $v \\le 0$; for $v > 0$ the function falls on "
        "$h \\ge 0$ and the maximum is $0$, at $h = 0$.",
        sp.And(
            best.subs(v, negative).is_positive,
            sp.Eq(sp.simplify(value.subs(h, best) - v**2 / (2 * lambda_H)), 0),
            sp.diff(value, h).subs({v: positive, h: sp.Symbol("e", nonnegative=True)}).is_negative,
        ),
        shown=r"\sup_{h\ge0} \left[-v h - \frac{\lambda_H}{2} h^2\right] = \frac{\max(0, -v)^2}{2\lambda_H}",
    )
    gradient, penalty = v + lambda_H * h, lambda_H * h
    gap = v * h + lambda_H * h**2 / 2
    d.identities(
        "Objective and bound differ by Fenchel's gap. With the gradient $g = v + \\lambda_H h$ and $c = \\lambda_H h$, "
        "both cases are products of small numbers near the optimum, so that nothing cancels.",
        [
            (gap + v**2 / (2 * lambda_H), gradient**2 / (2 * lambda_H)),
            (gap, penalty * (2 * gradient - penalty) / (2 * lambda_H)),
        ],
        shown=r"v h + \frac{\lambda_H}{2} h^2 + \frac{\max(0, -v)^2}{2\lambda_H} = \frac{g^2}{2\lambda_H} "
        r"\quad\text{for } g \le c, \qquad \frac{c\,(2 g - c)}{2\lambda_H} \quad\text{for } g > c",
    )
    pairs = []
    for size in (2, 3, 4):
        a, b = vector("v", size), vector("h", size)
        squares = sum((a[i] * b[k] - a[k] * b[i]) ** 2 for i in range(size) for k in range(i))
        pairs.append((a.dot(a) * b.dot(b) - a.dot(b) ** 2, squares))
    d.identities(
        "*Fixed classifier, features of norm $\\rho$.* By Lagrange's identity $-v^\\top h \\le \\rho\\lVert v\\rVert$, "
        "with equality at $h = -\\rho\\,v/\\lVert v\\rVert$.",
        pairs,
        shown=r"\sup_{\lVert h\rVert = \rho} \left[-v^\top h - \frac{\lambda_H}{2}\lVert h\rVert^2\right] = \rho\,"
        r"\lVert W^\top r\rVert - \frac{\lambda_H}{2}\rho^2",
        cases="d = 2, 3, 4",
    )
    d.say(
        "So for a fixed classifier there is no scaling $t$; the conjugates $\\chi$ of the features and that of the "
        "bias are subtracted.",
        r"F \ge -\sum_j\pi_j\left[\ell^*(u_j) + \chi(W^\top u_j)\right] - \frac{\lVert\bar u\rVert^2}{2\lambda_b} + "
        r"\frac{\lambda_W}{2}\lVert W\rVert_F^2",
    )
    d.say(
        "In one pass the triangle inequality bounds the features' part after the mixing.",
        r"\sqrt{\mathbb E\lVert W^\top u\rVert^2} \le (1-\theta)\sqrt{\mathbb E\lVert W^\top r\rVert^2} + "
        r"\theta\sqrt2\,\lVert W\rVert_2",
    )


# Constraints of the comparison, with a name for each.
CASES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("a free bias", {"bias_decay": 0.0}),
    ("a penalised bias", {"bias_decay": 0.375}),
    ("a fixed classifier and a free bias", {"bias_decay": 0.0, "classifier": True}),
    ("a fixed classifier, a penalised bias", {"bias_decay": 0.375, "classifier": True}),
    ("a fixed classifier, nonnegative features", {"nonnegative": True, "classifier": True}),
    ("a fixed classifier, features of fixed norm", {"feature_norm": 1.5, "classifier": True}),
    ("rows of fixed norm", {"row_norm": 0.75}),
    ("rows and features of fixed norm, a free bias", {"row_norm": 0.75, "feature_norm": 0.125, "bias_decay": 0.0}),
)


@precisely
def check() -> tuple[Check, ...]:
    rng = np.random.default_rng(12)
    classes, dim, N = 4, 3, 5
    labels = rng.integers(0, 9, (N, classes)) + 1.0 * np.eye(N, classes)
    labels /= labels.sum(1, keepdims=True)
    weights = np.array([1, 2, 3, 4, 6]) / 16
    checks: list[Check] = []
    for text, constraints in CASES:
        rows = []
        for loss in ("cross_entropy", "mean_squared_error"):
            W, H, b = 0.5 * rng.normal(size=(classes, dim)), rng.normal(size=(N, dim)), 0.25 * rng.normal(size=classes)
            fields = {**constraints, "classifier": W if "classifier" in constraints else None}
            if "row_norm" in fields:
                W *= fields["row_norm"] / np.linalg.norm(W, axis=1, keepdims=True)
                # Features that agree with the labels, so that the multipliers are positive.
                H = (labels - 1 / classes) @ W
            if "feature_norm" in fields:
                H *= fields["feature_norm"] / np.linalg.norm(H, axis=1, keepdims=True)
            H = np.maximum(H, 0) if "nonnegative" in fields else H
            problem = ufm.UFM(ufm.Targets(labels, weights), dim, 0.125, 0.25, loss, **fields)
            found = ufm.certify(problem, W, H, b if problem.has_bias else None)
            bound, objective = _certificate(problem, W, H, b)
            rows.append(compared(f"lower bound with {text}", [found.lower_bound], [bound], 1e-13, scale=objective))
        checks.append(worst(rows))
    return (
        *checks,
        Check("relative gap at the ETF with both norms fixed, room for rounding included", _tightness(), 5e-14),
    )


def _certificate(
    problem: ufm.UFM, classifier: np.ndarray, features: np.ndarray, bias: np.ndarray
) -> tuple[Number, Number]:
    """Return the derived bound and the objective."""
    w, H = matrix(classifier), matrix(features)
    decays = [mp.mpf(problem.weight_decay), mp.mpf(problem.feature_decay)]
    lambda_b, squared = mp.mpf(problem.bias_decay or 0), problem.loss == "mean_squared_error"
    weights, labels = numbers(problem.targets.weights), [mp.matrix(numbers(row)) for row in problem.targets.labels]

    def mean(terms: Iterable[Any]) -> Any:
        total = [pi * term for pi, term in zip(weights, terms, strict=True)]
        return sum(total[1:], total[0])

    b = mp.matrix(bias if problem.has_bias else np.full(w.rows, 1 / w.rows if squared else 0.0))
    scores = [w * H[row, :].T for row in range(len(labels))]
    predictions = [z + b if squared else mp.matrix(softmax(list(z + b))) for z in scores]
    duals = residuals = [p - y for p, y in zip(predictions, labels, strict=True)]
    values = [
        mp.fdot(r, r) / 2 if squared else cross_entropy(list(z + b), list(y))
        for r, z, y in zip(residuals, scores, labels, strict=True)
    ]
    squares = [mp.norm(w, 2) ** 2, mean(mp.fdot(h, h) for h in (H[row, :] for row in range(len(labels))))]
    penalties = decays[0] / 2 * squares[0] + decays[1] / 2 * squares[1]
    objective = mean(values) + penalties + (lambda_b / 2 * mp.fdot(b, b) if problem.has_bias else 0)

    rest, average = mean(residuals), mean(labels)
    if problem.bias_decay == 0 and squared:
        duals = [r - rest for r in residuals]
    elif problem.bias_decay == 0:
        share = max(rest[k] / (average[k] + rest[k]) for k in range(w.rows))
        mixed = average - (1 - share) / share * rest
        duals = [(1 - share) * r + share * (mixed - y) for r, y in zip(residuals, labels, strict=True)]
    t, constant = mp.mpf(1), mp.mpf(0)
    if problem.classifier is None:
        slope = mean(mp.fdot(r, z) for r, z in zip(residuals, scores, strict=True))
        for index, norm in enumerate((problem.row_norm, problem.feature_norm)):
            if norm is not None:
                # The penalty's own part of the gradient drops out of the multiplier.
                constant += (decays[index] + slope / squares[index]) / 2 * squares[index]
                decays[index] = -slope / squares[index]
        largest = max(mp.eigsy(mean(u * u.T for u in duals), eigvals_only=True))
        t = min(t, mp.sqrt(decays[0] * decays[1] / largest))
    else:
        pulled, radius = [w.T * u for u in duals], mp.mpf(problem.feature_norm or 0)
        conjugates = [mp.fdot(v, v) / (2 * decays[1]) for v in pulled]
        if problem.nonnegative:
            conjugates = [mp.fsum(min(entry, 0) ** 2 for entry in v) / (2 * decays[1]) for v in pulled]
        if problem.feature_norm is not None:
            conjugates = [radius * mp.norm(v) - decays[1] / 2 * radius**2 for v in pulled]
        constant = decays[0] / 2 * squares[0] - mean(conjugates)
    if lambda_b:
        constant -= t**2 * mp.fdot(rest, rest) / (2 * lambda_b)
    # Without a bias of the user's, the mean squared error has its own of 1/K.
    own = mp.matrix([mp.mpf(int(not problem.has_bias)) / w.rows] * w.rows)
    terms = [
        -(mp.fdot(t * u, t * u) / 2 + mp.fdot(t * u, y - own)) if squared else entropy(y + t * u)
        for u, y in zip(duals, labels, strict=True)
    ]
    return mean(terms) + constant, objective


def _tightness() -> float:
    """Return the larger relative gap of both losses at a simplex ETF with aligned features."""
    gaps = []
    for loss in ("cross_entropy", "mean_squared_error"):
        W = ufm.simplex_etf(5, 6, 0.75).numpy()
        problem = ufm.UFM(ufm.Targets(np.eye(5)), 6, 0.0, 0.125, loss, feature_norm=0.625, row_norm=0.75)
        certificate = ufm.certify(problem, W, 0.625 / 0.75 * W)
        gaps.append(abs(certificate.relative_gap))
    return max(gaps)


CLAIM = Claim(
    title="The certificate with a bias and with constraints",
    statement=r"""The certificate of a point with residuals $r_j = p_j - y_j$ and mean residual $\bar r$ extends as
follows. A bias with penalty $\lambda_b$ subtracts $\lVert t\,\bar r\rVert^2/(2\lambda_b)$. A free bias asks for dual
variables of mean zero; for cross entropy a share
$$\theta = \max_k \frac{\bar r_k}{\bar y_k + \bar r_k}$$
of one distribution, mixed into all predictions, provides them. A fixed norm of the rows or features replaces its
penalty by the multiplier for which the gradient is orthogonal to them, and adds a constant. For a fixed classifier
the conjugates are $\frac{1}{2\lambda_H}\lVert\max(0, -W^\top u)\rVert^2$ for nonnegative features and $\rho\lVert
W^\top u\rVert - \frac{\lambda_H}{2}\rho^2$ for features of norm $\rho$.""",
    assumptions=(
        r"Expectation convention; any labels on the simplex, any weights, any $d$; multipliers $\nu_W, \nu_H > 0$.",
        r"Nonnegative features with a free classifier: the bound of the free features holds, and is not tight.",
    ),
    implemented_by=("ufm.certify", "ufm.solvers.reduced.Reduced.bound"),
    tests=(
        "tests/derivations/test_derivations.py::test_claim_holds",
        "tests/solvers/test_constraints.py::test_bound_is_below_every_feasible_point",
        "tests/solvers/test_constraints.py::test_bias_against_the_conic_solver",
        "tests/solvers/test_constraints.py::test_nonnegative_features_against_scipy",
        "tests/solvers/test_constraints.py::test_fixed_norms_have_the_etf_for_their_optimum",
        "tests/solvers/test_elimination.py::test_streaming_gives_the_same_optimum_and_a_bound_close_below",
    ),
    derive=derive,
    check=check,
)

if __name__ == "__main__":
    main(CLAIM)
