"""Fixed simplex-ETF classifier: optimal logits, features and the Wright-omega form, for any soft label."""

import numpy as np
import torch
from mpmath import mp

import ufm
from derivations.claim import Check, Claim, Derivation, Step, main
from derivations.reference import EPS, Number, compared, matrix, numbers, precisely, prox, softmax, worst, wright_omega
from derivations.symbols import (
    K,
    beta,
    beta_of_m,
    fisher,
    gram_factor,
    i,
    in_range,
    j,
    k,
    lambda_H,
    linear,
    m,
    omega,
    over_classes,
    simplex,
    softmax as symbolic_softmax,
    sp,
    tau,
    vector,
    y,
    z,
)

u, L, nu, w = sp.Symbol("u", real=True), sp.Symbol("L", real=True), sp.Symbol("nu", real=True), sp.Symbol("w")
x = omega + sp.log(omega)


def derive() -> tuple[Step, ...]:
    d = Derivation()
    _stationarity(d)
    _wright_omega(d)
    _dual(d)
    _derivatives(d)
    return d.done()


def _stationarity(d: Derivation) -> None:
    gram = gram_factor * (sp.KroneckerDelta(i, j) - 1 / K)
    d.identities(
        "The Gram matrix $W W^\\top = g\\,(I - \\mathbf 1\\mathbf 1^\\top/K)$ with $g = m^2 K/(K-1)$ has rows of norm "
        "$m$ and inner products $-m^2/(K-1)$ between different rows.",
        [(gram.subs(j, i), m**2), (gram.subs(sp.KroneckerDelta(i, j), 0), -(m**2) / (K - 1))],
        shown=r"w_i^\top w_i = g\,(1 - \tfrac1K) = m^2, \qquad w_i^\top w_j = -\tfrac{g}{K} = -\tfrac{m^2}{K-1}",
    )
    d.identity(
        "Its rows therefore add up to zero, because the squared norm of their sum has $K$ terms of the first kind "
        "and $K(K-1)$ of the second.",
        K * gram.subs(j, i) + K * (K - 1) * gram.subs(sp.KroneckerDelta(i, j), 0),
        sp.Integer(0),
        shown=r"\lVert \sum_k w_k \rVert^2 = K m^2 - K(K-1)\,\tfrac{m^2}{K-1} = 0",
    )
    total = over_classes(sp.exp(z[k]))
    cross_entropy = sp.log(total) - over_classes(y[k] * z[k])
    d.identity(
        "The gradient of cross entropy in the logits is softmax minus label.",
        in_range(sp.diff(cross_entropy, z[j])),
        sp.exp(z[j]) / total - y[j],
        shown=r"\frac{\partial}{\partial z_j}\left[\log\sum_k e^{z_k} - \sum_k y_k z_k\right] = p_j - y_j, "
        r"\qquad p = \operatorname{softmax}(z)",
    )
    d.say(
        "By the chain rule through $z = W h$, the feature is stationary exactly if",
        r"W^\top (p - y) + \lambda_H h = 0 \quad\Longleftrightarrow\quad h = \tfrac{1}{\lambda_H} W^\top (y - p)",
    )
    residual = sp.IndexedBase("r")
    row = sp.Sum(gram.subs({i: j, j: k}, simultaneous=True) * residual[k] / lambda_H, (k, 1, K))
    d.identity(
        "Multiplying by $W$ turns this into an equation for the logits alone: the mean of $y - p$ vanishes because "
        "both sum to one, so the Gram matrix acts as multiplication by $g$.",
        in_range(linear(row)).subs(over_classes(residual[k]), 0),
        beta_of_m * residual[j],
        shown=r"z = W h = \tfrac{1}{\lambda_H} W W^\top (y - p) = \beta\,(y - p), "
        r"\qquad \beta = \frac{m^2 K}{(K-1)\,\lambda_H}",
    )
    d.identity(
        "The features follow from the logits by one multiplication.",
        u / lambda_H,
        (K - 1) / (K * m**2) * (beta_of_m * u),
        shown=r"h = \tfrac{1}{\lambda_H} W^\top (y - p) = \frac{K-1}{K m^2}\, W^\top z",
    )
    back = sp.Sum((K - 1) / (K * m**2) * gram.subs({i: j, j: k}, simultaneous=True) * z[k], (k, 1, K))
    d.identity(
        "Conversely, if $z = \\beta (y - p)$ then $z$ sums to zero, this $h$ has logits $W h = z$, and it is "
        "stationary.",
        in_range(linear(back)).subs(over_classes(z[k]), 0),
        z[j],
        shown=r"W h = \frac{K-1}{K m^2}\, W W^\top z = z \quad\text{if } \textstyle\sum_k z_k = 0",
    )


def _wright_omega(d: Derivation) -> None:
    log_p = sp.log(omega / beta)
    equation = log_p + L - beta * (sp.Symbol("y_k") - omega / beta)
    d.identity(
        "Write $L = \\log\\sum_k e^{z_k}$, so that $\\log p_k = z_k - L$, and put $\\omega_k = \\beta p_k$, "
        "$\\tau = \\log\\beta - L$. Each component of $z = \\beta (y - p)$ becomes the equation of the Wright omega "
        "function, whose only coupling to the others is $\\tau$.",
        sp.expand_log(equation),
        (x - beta * sp.Symbol("y_k") - tau).subs(tau, sp.log(beta) - L),
        shown=r"\log p_k + L = \beta\,(y_k - p_k) \iff \omega_k + \log\omega_k = \beta y_k + \tau "
        r"\iff p_k = \frac{\omega(\beta y_k + \tau)}{\beta}",
    )
    label = (x - tau) / beta
    d.identity(
        "The logits follow in two equal forms; the first keeps its digits where $\\omega_k$ is large, the second where "
        "it is small.",
        sp.log(omega) - tau,
        beta * label - omega,
        shown=r"z_k = \log\omega_k - \tau = \beta y_k - \omega_k",
    )
    d.say(
        "Summing the second form over the classes, with labels that sum to one, shows that the one unknown $\\tau$ "
        "is fixed by either of two equivalent conditions.",
        r"\sum_k z_k = \beta - \sum_k \omega_k = 0 \iff \sum_k \omega(\beta y_k + \tau) = \beta",
    )
    slope = 1 / sp.diff(x, omega)
    d.identity(
        "Differentiating $\\omega + \\log\\omega = x$ gives the slope of the Wright omega function.",
        sp.cancel(slope),
        omega / (1 + omega),
        shown=r"\omega'(x) = \frac{1}{1 + 1/\omega} = \frac{\omega}{1 + \omega} > 0",
    )
    d.fact(
        "As $\\omega$ runs from $0$ to $\\infty$ its argument runs from $-\\infty$ to $\\infty$, so that $\\sum_k "
        "\\omega(\\beta y_k + \\tau)$ increases strictly from $0$ to $\\infty$ in $\\tau$: exactly one $\\tau$ solves "
        "the condition.",
        sp.And(
            sp.Eq(sp.limit(x, omega, 0, "+"), -sp.oo),
            sp.Eq(sp.limit(x, omega, sp.oo), sp.oo),
            sp.simplify(slope).is_positive,
        ),
        shown=r"\lim_{\omega \to 0^+} (\omega + \log\omega) = -\infty, \qquad "
        r"\lim_{\omega \to \infty} (\omega + \log\omega) = \infty",
    )
    _newton(d)


def _newton(d: Derivation) -> None:
    d.identity(
        "*How it is solved.* The right side is at hand: $\\tau \\le \\tau_0 = \\log(\\beta/K)$, because by convexity "
        "(Jensen) the sum of $\\omega(\\beta y_k + \\tau_0)$ is at least $K\\,\\omega(\\beta/K + \\tau_0)$, and "
        "$\\omega = \\beta/K$ solves the equation at that argument.",
        x.subs(omega, beta / K),
        beta / K + sp.log(beta / K),
        shown=r"\sum_k \omega(\beta y_k + \tau_0) \ge K\,\omega\left(\tfrac{\beta}{K} + \log\tfrac{\beta}{K}\right) "
        r"= K \cdot \tfrac{\beta}{K} = \beta",
    )
    size = sp.Symbol("u", positive=True)
    excess = (1 + size) * sp.log(1 + size) - size
    d.identities(
        "Likewise $\\omega(x) \\le \\ell = \\log(1 + u)$ with $u = e^x$, because $\\ell e^\\ell \\ge u = \\omega "
        "e^\\omega$: the difference vanishes at $u = 0$ and increases.",
        [(excess.subs(size, 0), sp.Integer(0)), (sp.diff(excess, size), sp.log(1 + size))],
        shown=r"\frac{\mathrm d}{\mathrm du}\left[(1 + u)\log(1 + u) - u\right] = \log(1 + u) \ge 0",
    )
    truths = []
    for number in (1, 2, 3):
        v, counts, labels = (vector(name, number, positive=True) for name in ("v", "c", "y"))
        unknowns = [*v, tau]
        system = [sp.exp(v[c]) + v[c] - beta * labels[c] - tau for c in range(number)]
        system.append(sum(counts[c] * (tau - v[c]) for c in range(number)))
        jacobian = sp.Matrix(system).jacobian(unknowns)
        truths += [sp.factor(entry).is_positive is True for entry in jacobian.inv()]
        truths += [
            sp.diff(f, a, b).is_nonnegative is True
            for f in system
            for n, a in enumerate(unknowns)
            for b in unknowns[n:]
        ]
    d.fact(
        "`ufm` applies Newton's method to $v_k = \\log\\omega_k$ and $\\tau$ together, with $c_k$ equal entries $k$. "
        "All functions are convex, and the inverse of their Jacobian has no negative entry: so every step but the "
        "first lowers all unknowns and stays above the root (monotone Newton theorem).",
        all(truths),
        shown=r"e^{v_k} + v_k - \beta y_k - \tau = 0, \quad \sum_k c_k (\tau - v_k) = 0, \qquad "
        r"\begin{pmatrix} \operatorname{diag}(1 + \omega) & -\mathbf 1 \\ -c^\top & \sum_k c_k \end{pmatrix}^{-1} > 0",
        cases="one, two and three distinct entries",
    )


def _derivatives(d: Derivation) -> None:
    implicit, inverse = [], []
    for size in (2, 3):
        logits, labels, p = vector("z", size), vector("y", size), simplex("p", size)
        prediction = symbolic_softmax(logits)
        condition = logits - beta * (labels - prediction)
        implicit += [
            (condition.jacobian(logits), sp.eye(size) + beta * fisher(prediction)),
            (condition.jacobian(labels), -beta * sp.eye(size)),
            (condition.diff(beta), prediction - labels),
        ]
        g = vector("g", size)
        damped = sp.Matrix([g[c] / (1 + beta * p[c]) for c in range(size)])
        share = sp.Matrix([p[c] / (1 + beta * p[c]) for c in range(size)])
        solution = damped + beta * share * (p.dot(damped) / sum(share))
        inverse.append(((sp.eye(size) + beta * fisher(p)) * solution, g))
    d.identities(
        "*Derivatives.* The solution moves with label and $\\beta$ by the implicit function theorem.",
        implicit,
        shown=r"(I + \beta J)\,\mathrm dz = \beta\,\mathrm dy + (y - p)\,\mathrm d\beta, \qquad "
        r"J = \operatorname{diag} p - p p^\top",
        cases="K = 2, 3",
    )
    d.identities(
        "The matrix is a diagonal one plus one of rank one, so that a system with it costs one pass over the classes.",
        inverse,
        shown=r"(I + \beta J)^{-1} g = \hat g + \beta\,\frac{p^\top \hat g}{\sum_k q_k}\,q, \qquad "
        r"\hat g_k = \frac{g_k}{1 + \beta p_k}, \quad q_k = \frac{p_k}{1 + \beta p_k}",
        cases="K = 2, 3",
    )


def _dual(d: Derivation) -> None:
    total = over_classes(sp.exp(z[k]))
    objective = sp.log(total) - over_classes(y[k] * z[k]) + over_classes(z[k] ** 2) / (2 * beta)
    d.identity(
        "The same $z$ is the proximal point of log-sum-exp: the stationarity condition of the strictly convex function "
        "below is $z = \\beta (y - p)$ again.",
        in_range(sp.diff(objective, z[j])),
        sp.exp(z[j]) / total - y[j] + z[j] / beta,
        shown=r"\frac{\partial}{\partial z_j}\left[\log\sum_k e^{z_k} - y^\top z + \frac{\lVert "
        r"z\rVert^2}{2\beta}\right] = p_j - y_j + \frac{z_j}{\beta}",
    )
    q, label = sp.Symbol("p_k", positive=True), (x - tau) / beta
    lagrangian = q * sp.log(q) + beta / 2 * (q - sp.Symbol("y_k")) ** 2 - nu * q
    stationary = sp.diff(lagrangian, q).subs({q: omega / beta, sp.Symbol("y_k"): label})
    d.identity(
        "Dually, $p$ minimises negative entropy plus a quadratic pull towards the label over the simplex, with "
        "multiplier $\\nu$ for $\\sum_k p_k = 1$: inserting $p_k = \\omega_k/\\beta$ leaves one constant for all "
        "classes, which $\\nu$ absorbs.",
        sp.expand(sp.expand_log(stationary)),
        1 - sp.log(beta) + tau - nu,
        shown=r"\frac{\partial}{\partial p_k}\left[\sum_k p_k \log p_k + \frac\beta2 \lVert p - y\rVert^2 "
        r"- \nu \sum_k p_k\right] = 1 - \log\beta + \tau - \nu",
    )


LABELS = (
    (0.75, 0.25, 0.0, 0.0),
    (0.5, 0.25, 0.125, 0.125),
    (1.0, 0.0, 0.0),
    (0.625, 0.375),
    (0.0625, 0.5, 0.0, 0.0, 0.4375),
)
BETAS = (0.0009765625, 1.0, 96.5, 10000.0, 1048576.0)


@precisely
def check() -> tuple[Check, ...]:
    solved = [(label, b, *prox(numbers(label), mp.mpf(b))) for label in LABELS for b in BETAS]
    stationarity = max(
        max(abs(a + mp.mpf(b) * (q - c)) for a, q, c in zip(logits, softmax(logits), label, strict=True))
        for label, b, logits, _, _ in solved
    )
    points = [-600.0, -20.0, -1.0, 0.5, 3.0, 40.0, 1000.0]
    omegas = [
        compared("Wright omega, relative", ufm.wright_omega(np.array([point])), [wright_omega(mp.mpf(point))], 8 * EPS)
        for point in points
    ]
    columns: list[tuple[Check, ...]] = []
    for label, b, logits, scalar, probabilities in solved:
        found = ufm.prox_logsumexp(np.array(label), b)
        # tau and the probabilities inherit the rounding of the logits, whose unit is their largest magnitude.
        unit = max(1, *(abs(entry) for entry in logits))
        columns.append(
            (
                compared("logits of `prox_logsumexp`", found.logits, logits, 64 * EPS),
                compared("scalar $\\tau$", [found.tau], [scalar], 32 * EPS, scale=unit),
                compared("probabilities", found.probabilities, probabilities, 32 * EPS, scale=unit),
                _features(label, b, logits),
            )
        )
    return (
        Check("the derived logits solve $z = \\beta(y - p)$ at fifty digits", float(stationarity), 1e-35),
        worst(omegas),
        *(worst(rows) for rows in zip(*columns, strict=True)),
        worst([_gradient(label, b) for label in LABELS for b in BETAS]),
    )


def _gradient(label: tuple[float, ...], b: float) -> Check:
    """Compare the gradient of one weighted sum of logits, which torch takes, with a dense solve at fifty digits."""
    y = torch.tensor(label, dtype=torch.float64, requires_grad=True)
    beta_leaf = torch.tensor(b, dtype=torch.float64, requires_grad=True)
    weights = [mp.mpf(k + 1) / len(label) for k in range(len(label))]
    logits = torch.as_tensor(ufm.prox_logsumexp(y, beta_leaf).logits)
    (logits @ torch.tensor([float(weight) for weight in weights], dtype=torch.float64)).backward()
    assert y.grad is not None
    assert beta_leaf.grad is not None
    z, _, p = prox(numbers(label), mp.mpf(b))
    q, exact = mp.matrix(p), mp.matrix([mp.mpf(float(weight)) for weight in weights])
    adjoint = mp.lu_solve(mp.eye(len(label)) + mp.mpf(b) * (mp.diag(p) - q * q.T), exact)
    expected = [mp.mpf(b) * entry for entry in adjoint] + [mp.fdot(adjoint, z) / mp.mpf(b)]
    found = [*y.grad.tolist(), beta_leaf.grad.item()]
    return compared("gradient of the logits in label and beta", found, expected, 1e-13)


def _features(label: tuple[float, ...], b: float, logits: list[Number]) -> Check:
    """Compare the features for an ETF of row norm 1.5 with both derived forms' common value."""
    size, norm = len(label), 1.5
    classifier = ufm.simplex_etf(size, size + 1, norm).numpy()
    decay = norm**2 * size / ((size - 1) * b)
    features = ufm.fixed_classifier(classifier, np.array([label]), decay).features
    transposed = matrix(classifier.T)
    expected = (size - 1) / (size * mp.mpf(norm) ** 2) * transposed * mp.matrix(logits)
    return compared("features of `fixed_classifier`", features, list(expected), 128 * EPS)


CLAIM = Claim(
    title="Optimal features for a fixed simplex ETF",
    statement=r"""Let $W W^\top = m^2 \frac{K}{K-1} (I - \mathbf 1\mathbf 1^\top/K)$ and let $y$ be any soft label.
The minimiser of $\mathrm{CE}(W h, y) + \frac{\lambda_H}{2}\lVert h\rVert^2$ has logits $z = \beta\,(y - p)$ with $p =
\operatorname{softmax}(z)$ and $\beta = m^2 K / ((K-1)\lambda_H)$. They are closed up to one scalar $\tau$: with the
Wright omega function, $\omega + \log\omega = x$,
$$p_k = \frac{\omega(\beta y_k + \tau)}{\beta}, \qquad z_k = \log\omega(\beta y_k + \tau) - \tau, \qquad
\sum_k z_k = 0, \qquad h = \frac{K-1}{K m^2} W^\top z = \frac{1}{\lambda_H} W^\top (y - p).$$""",
    assumptions=(
        r"$K \ge 2$, $d \ge K - 1$, $m > 0$, $\lambda_H > 0$; the penalty is in the expectation convention.",
        r"$y$ lies on the simplex; nothing else is assumed of it.",
    ),
    implemented_by=("ufm.wright_omega", "ufm.prox_logsumexp", "ufm.fixed_classifier"),
    tests=(
        "tests/derivations/test_derivations.py::test_claim_holds",
        "tests/test_prox.py::test_prox_is_exact_to_rounding",
        "tests/test_prox.py::test_prox_gradients",
        "tests/theory/test_joint.py::test_fixed_classifier_against_scipy",
    ),
    derive=derive,
    check=check,
)

if __name__ == "__main__":
    main(CLAIM)
