"""Strong convexity in the features: uniqueness, a bound on the distance to the optimum, and the exact Fenchel gap."""

from typing import Any

import numpy as np
from mpmath import mp

import ufm
from derivations.claim import Check, Claim, Derivation, Step, main
from derivations.reference import Number, compared, cross_entropy, entropy, matrix, numbers, precisely, softmax, worst
from derivations.symbols import (
    SMALL,
    SMALL_TEXT,
    fisher,
    i,
    in_range,
    j,
    k,
    lambda_H,
    logsumexp,
    over_classes,
    simplex,
    softmax as symbolic_softmax,
    sp,
    vector,
    z,
)


def derive() -> tuple[Step, ...]:
    d = Derivation()
    d.say(
        "Fix any classifier $W$ (an ETF or not) and one label $y$. Write $g$ for the gradient in the feature.",
        r"f(h) = \mathrm{CE}(W h, y) + \frac{\lambda_H}{2}\lVert h\rVert^2, \qquad "
        r"g(h) = W^\top (p - y) + \lambda_H h, \quad p = \operatorname{softmax}(W h)",
    )
    total = over_classes(sp.exp(z[k]))
    hessian = sp.diff(sp.log(total), z[j], z[i])
    probability = {index: sp.exp(z[index]) / total for index in (i, j)}
    d.identity(
        "The second derivative of log-sum-exp, and hence of cross entropy, is a covariance matrix.",
        in_range(hessian),
        probability[i] * sp.KroneckerDelta(i, j) - probability[i] * probability[j],
        shown=r"\frac{\partial^2}{\partial z_i \partial z_j} \log\sum_k e^{z_k} = p_i \delta_{ij} - p_i p_j",
    )
    pairs = []
    for size in SMALL:
        v, q = vector("v", size), simplex("p", size)
        mean = q.dot(v)
        pairs.append(((v.T * fisher(q) * v)[0], sum(q[c] * (v[c] - mean) ** 2 for c in range(size))))
    d.identities(
        "Its quadratic form is the variance of $v$ under $p$: never negative, and zero only for constant $v$, because "
        "every $p_k$ is positive.",
        pairs,
        shown=r"v^\top (\operatorname{diag} p - p p^\top) v = \sum_k p_k \left(v_k - \textstyle\sum_l p_l "
        r"v_l\right)^2 \ge 0",
        cases=SMALL_TEXT,
    )
    pairs = []
    for size in (2, 3):
        logits, v, h, e = (vector(name, size) for name in "zvhe")
        label, t = vector("y", size), sp.Symbol("s", real=True)
        moved = logits + t * v
        value = logsumexp(moved) - label.dot(moved) + lambda_H / 2 * (h + t * e).dot(h + t * e)
        curvature = (v.T * fisher(symbolic_softmax(moved)) * v)[0] + lambda_H * e.dot(e)
        pairs.append((sp.diff(value, t, 2), curvature))
    d.identities(
        "Along any direction $e$, where the logits move by $v = W e$, the second derivative of $f$ is this variance "
        "plus that of the penalty: $f$ is strongly convex with modulus $\\lambda_H$, so it has one minimiser $h^*$.",
        pairs,
        shown=r"\frac{\mathrm d^2}{\mathrm ds^2} f(h + s e) = v^\top (\operatorname{diag} p - p p^\top)\, v "
        r"+ \lambda_H \lVert e\rVert^2 \ge \lambda_H \lVert e\rVert^2",
        cases="K = d = 2, 3",
    )
    _error_bound(d)
    _fenchel_gap(d)
    return d.done()


def _error_bound(d: Derivation) -> None:
    d.say(
        "Let $e = h - h^*$ and integrate this second derivative along the segment from $h^*$, where $g$ vanishes, to "
        "$h$.",
        r"g(h)^\top e = \left(g(h) - g(h^*)\right)^\top e \ge \int_0^1 \lambda_H \lVert e\rVert^2 \,\mathrm ds "
        r"= \lambda_H \lVert e\rVert^2",
    )
    d.say(
        "By the Cauchy-Schwarz inequality the left side is at most $\\lVert g\\rVert \\lVert e\\rVert$; dividing by "
        "$\\lVert e\\rVert$ bounds the distance to the optimum by what can be measured.",
        r"\lVert h - h^*\rVert \le \frac{\lVert g(h)\rVert}{\lambda_H}",
    )
    h = sp.Symbol("h", positive=True)
    d.identity(
        "No smaller constant would do: for $W = 0$ the loss is constant, $h^* = 0$, and the bound is attained.",
        sp.diff(sp.log(2) + lambda_H * h**2 / 2, h) / lambda_H,
        h,
        shown=r"W = 0: \qquad \lVert g(h)\rVert / \lambda_H = \lVert h\rVert = \lVert h - h^*\rVert",
    )


def _fenchel_gap(d: Derivation) -> None:
    pairs = []
    for size in SMALL:
        logits, label = vector("z", size), vector("y", size)
        q = symbolic_softmax(logits)
        negative_entropy = sum(entry * sp.expand_log(sp.log(entry), force=True) for entry in q)
        pairs.append((logsumexp(logits) - label.dot(logits) + negative_entropy, (q - label).dot(logits)))
    d.identities(
        "The conjugate of cross entropy at $u = p - y$ is $\\sum_k p_k \\log p_k$ (see the claim on the duality gap), "
        "and the Fenchel-Young inequality is an equality there.",
        pairs,
        shown=r"\mathrm{CE}(z, y) + \sum_k p_k \log p_k = (p - y)^\top z \qquad\text{at } p = "
        r"\operatorname{softmax}(z)",
        cases=SMALL_TEXT,
    )
    h, v = sp.symbols("h v", real=True)
    best = sp.solve(sp.diff(-v * h - lambda_H * h**2 / 2, h), h)[0]
    d.identity(
        "Every $u$ gives a lower bound of $f$. The part of it that the penalty contributes separates over coordinates; "
        "with $v = W^\\top u$ each is maximised at $h = -v/\\lambda_H$.",
        (-v * h - lambda_H * h**2 / 2).subs(h, best),
        v**2 / (2 * lambda_H),
        shown=r"f(h) \ge D(u) = -\mathrm{CE}^*(u) - \frac{\lVert W^\top u\rVert^2}{2\lambda_H} "
        r"\qquad\text{for all } h, u",
    )
    d.identity(
        "At $u = p - y$ the difference between objective and bound is a perfect square, again coordinate by "
        "coordinate: the gradient that is at hand is the exact gap.",
        v * h + lambda_H * h**2 / 2 + v**2 / (2 * lambda_H),
        (v + lambda_H * h) ** 2 / (2 * lambda_H),
        shown=r"f(h) - D(p - y) = (p-y)^\top W h + \frac{\lambda_H}{2}\lVert h\rVert^2 "
        r"+ \frac{\lVert W^\top(p-y)\rVert^2}{2\lambda_H} = \frac{\lVert g(h)\rVert^2}{2\lambda_H}",
    )


@precisely
def check() -> tuple[Check, ...]:
    rng = np.random.default_rng(5)
    K, dim, N, decay = 4, 3, 5, 0.125
    labels = rng.integers(1, 9, (N, K)) / 1.0
    labels /= labels.sum(1, keepdims=True)
    weights = np.array([1, 2, 3, 4, 6]) / 16
    classifier, features = rng.normal(size=(K, dim)), rng.normal(size=(N, dim))
    problem = ufm.UFM(ufm.Targets(labels, weights), dim, 0.0, decay, classifier=classifier)
    certificate = ufm.certify(problem, classifier, features)

    w, H, decay = matrix(classifier), matrix(features), mp.mpf(decay)
    gap, distance, bound, objective = mp.mpf(0), mp.mpf(0), mp.mpf(0), mp.mpf(0)
    dual = mp.mpf(0)
    # The classifier is no ETF: Newton's method in ufm, with its own error bound.
    response = ufm.fixed_classifier(classifier, labels, float(decay))
    responses: list[Check] = []
    for n in range(N):
        y, h, pi = numbers(labels[n]), H[n, :].T, mp.mpf(float(weights[n]))
        u = mp.matrix(softmax(list(w * h))) - mp.matrix(y)
        residual = w.T * u + decay * h
        squared = mp.fdot(residual, residual)
        gap += pi * squared / (2 * decay)
        bound = max(bound, mp.sqrt(squared) / decay)
        optimum = _minimiser(w, y, decay)
        distance = max(distance, mp.norm(h - optimum) / (mp.sqrt(squared) / decay))
        text = "features of `fixed_classifier` for a classifier that is no ETF"
        responses.append(compared(text, response.features[n], list(optimum), 1e-13))
        objective += pi * (cross_entropy(list(w * h), y) + decay / 2 * mp.fdot(h, h))
        pulled = w.T * u
        dual += pi * (entropy(u + mp.matrix(y)) - mp.fdot(pulled, pulled) / (2 * decay))
    return (
        Check(
            "objective minus dual value is the mean of $\\lVert g\\rVert^2/(2\\lambda_H)$",
            float(abs(objective - dual - gap)),
            1e-40,
        ),
        worst(responses),
        compared("gap of `certify` for a fixed classifier", [certificate.gap], [gap], 1e-14),
        compared("lower bound of `certify`", [certificate.lower_bound], [dual], 1e-13, scale=objective),
        compared("`feature_error` of `certify`", [certificate.feature_error], [bound], 1e-14),
        Check("largest true distance, in units of the bound", float(distance), 1.0),
        Check("what is missing to equality in the bound for a small classifier", _slack(), 1e-6),
    )


def _slack() -> float:
    """Return 1 - distance/bound for a classifier of size 1e-4 and a feature of size one: the limit W -> 0."""
    rng = np.random.default_rng(6)
    classifier, features, decay = 1e-4 * rng.normal(size=(4, 3)), rng.normal(size=(1, 3)), 0.25
    labels = np.array([[0.5, 0.25, 0.25, 0.0]])
    problem = ufm.UFM(ufm.Targets(labels), 3, 0.0, decay, classifier=classifier)
    bound = ufm.certify(problem, classifier, features).feature_error
    optimum = _minimiser(matrix(classifier), numbers(labels[0]), mp.mpf(decay))
    return float(abs(1 - mp.norm(matrix(features).T - optimum) / mp.mpf(bound)))


def _minimiser(w: Any, label: list[Number], decay: Number) -> Any:
    """Return the minimiser of f by Newton's method with fifty digits."""
    h = mp.zeros(w.cols, 1)
    for _ in range(60):
        q = mp.matrix(softmax(list(w * h)))
        gradient = w.T * (q - mp.matrix(label)) + decay * h
        if mp.norm(gradient) < mp.mpf(10) ** -40:
            return h
        hessian = w.T * (mp.diag(list(q)) - q * q.T) * w + decay * mp.eye(w.cols)
        h -= mp.lu_solve(hessian, gradient)
    raise ArithmeticError("Newton's method did not converge")


CLAIM = Claim(
    title="Uniqueness, error bound and Fenchel gap for a fixed classifier",
    statement=r"""For a fixed classifier of any kind, $f(h) = \mathrm{CE}(W h, y) + \frac{\lambda_H}{2}\lVert
h\rVert^2$ is strongly convex with modulus $\lambda_H$. Its minimiser $h^*$ is unique, and with $g = \nabla f(h)$ every
feature obeys
$$\lVert h - h^*\rVert \le \frac{\lVert g\rVert}{\lambda_H}, \qquad
0 \le f(h) - f(h^*) \le f(h) - D(p - y) = \frac{\lVert g\rVert^2}{2\lambda_H},$$
where $D$ is the Fenchel dual function: the last equality is exact, not an estimate.""",
    assumptions=(
        r"$\lambda_H > 0$; $W$ is any real matrix; $y$ lies on the simplex.",
        r"Over several targets, gaps add up with their weights $\pi_j$ and distances hold target by target.",
    ),
    implemented_by=("ufm.certify", "ufm.fixed_classifier"),
    tests=(
        "tests/derivations/test_derivations.py::test_claim_holds",
        "tests/solvers/test_certificate.py::test_fixed_classifier_gap_and_error_bound",
    ),
    derive=derive,
    check=check,
)

if __name__ == "__main__":
    main(CLAIM)
