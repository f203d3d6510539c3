"""The features eliminated: the reduced function, its derivatives, and what the solver does with them."""

from typing import Any

import numpy as np
import torch
from mpmath import mp

import ufm
from derivations.claim import Check, Claim, Derivation, Step, main
from derivations.reference import (
    Number,
    compared,
    cross_entropy,
    entropy,
    matrix,
    numbers,
    precisely,
    softmax as precise_softmax,
)
from derivations.symbols import SMALL, SMALL_TEXT, centring, fisher, lambda_H, lambda_W, simplex, softmax, sp, vector
from ufm.losses import SoftmaxCurvature, get_loss
from ufm.solvers.elimination import Gram, linear_response, response
from ufm.solvers.method import Point
from ufm.solvers.newton import _Variables
from ufm.solvers.reduced import Reduced

s, c = sp.symbols("s c", positive=True)
FEW, FEW_TEXT = (2, 3), "K = 2, 3"


def derive() -> tuple[Step, ...]:
    d = Derivation()
    _reduced_function(d)
    _convexity(d)
    _linear_response(d)
    _linear_system(d)
    _balancing(d)
    _chord(d)
    return d.done()


def _general(name: str, rows: int, columns: int) -> Any:
    return sp.Matrix(rows, columns, sp.symbols(f"{name}_1:{rows * columns + 1}", real=True))


def _symmetric(name: str, size: int) -> Any:
    entries = _general(name, size, size)
    return sp.Matrix(size, size, lambda row, column: entries[min(row, column), max(row, column)])


def _reduced_function(d: Derivation) -> None:
    d.say(
        "For a fixed classifier and bias, each target's problem is strongly convex in its feature (see the claim on "
        "uniqueness). Write $r = p - y$ for the residual of the prediction. Stationarity puts the feature into the "
        "row space of $W$, with $K$ dual numbers $a$ for coordinates.",
        r"W^\top r + \lambda_H h = 0 \quad\Longrightarrow\quad h = W^\top a, \qquad a = -\frac{r}{\lambda_H}",
    )
    pairs = []
    for K, dim in ((2, 3), (3, 2)):
        W, a = _general("W", K, dim), vector("a", K)
        h, M = W.T * a, W * W.T
        pairs += [(W * h, M * a), (sp.Matrix([h.dot(h)]), a.T * M * a)]
    d.identities(
        "Logits and penalty then depend on the classifier through $M = W W^\\top$ only. So does the minimum over all "
        "features.",
        pairs,
        shown=r"z = W h + b = M a + b, \qquad \lVert h\rVert^2 = a^\top M a, \qquad \varphi(M, b) = \mathbb E "
        r"\min_a \left[\ell(M a + b, y) + \frac{\lambda_H}{2}\,a^\top M a\right]",
        cases="K, d = 2, 3 and 3, 2",
    )
    pairs = []
    for K in FEW:
        M, change = _symmetric("M", K), _symmetric("D", K)
        a, moved, shift = (vector(name, K) for name in "aeb")
        # The loss changes by r.dz, whatever the loss; r = -lambda_H a at the optimal response.
        dz = change * a + M * moved + shift
        penalty = lambda_H * (a.T * M * moved)[0] + lambda_H / 2 * (a.T * change * a)[0]
        pairs.append(((-lambda_H * a).dot(dz) + penalty, -lambda_H * (a.dot(shift) + (a.T * change * a)[0] / 2)))
    d.identities(
        "*First derivatives.* Change $M$ by $\\mathrm dM$ and $b$ by $\\mathrm db$, and let $a$ move by any $\\mathrm "
        "da$. At the optimal response what $\\mathrm da$ contributes cancels.",
        pairs,
        shown=r"\mathrm d\varphi = -\lambda_H\,\mathbb E\left[\tfrac12\,a^\top \mathrm dM\,a + a^\top \mathrm "
        r"db\right] \quad\Longrightarrow\quad \frac{\partial\varphi}{\partial M} = -\frac{\lambda_H}{2}\,\mathbb "
        r"E\,a a^\top, \qquad \frac{\partial\varphi}{\partial b} = -\lambda_H\,\mathbb E\,a",
        cases=FEW_TEXT,
    )
    pairs = []
    for K, dim in ((2, 3), (3, 2)):
        W, moment = _general("W", K, dim), _symmetric("A", K)
        change = (lambda_W * sp.eye(K) - lambda_H * moment) / 2
        value = (change * W * W.T).trace()
        gradient = sp.Matrix(K, dim, lambda row, column, v=value, w=W: sp.diff(v, w[row, column]))
        pairs.append((gradient, lambda_W * W - lambda_H * moment * W))
    d.identities(
        "With the classifier's penalty $\\frac{\\lambda_W}{2}\\operatorname{tr} M$, the chain rule for $M = W W^\\top$ "
        "gives the gradient in $W$, with $A = \\mathbb E\\,a a^\\top$.",
        pairs,
        shown=r"\frac{\partial}{\partial M} = \tfrac12\left(\lambda_W I - \lambda_H A\right), \qquad "
        r"\frac{\partial}{\partial W} = \lambda_W W - \lambda_H A\,W",
        cases="K, d = 2, 3 and 3, 2",
    )


def _convexity(d: Derivation) -> None:
    pairs = []
    for K, dim in ((2, 3), (3, 2)):
        W, u, h = _general("W", K, dim), vector("u", K), vector("h", dim)
        residual = lambda_H * h + W.T * u
        lhs = (u.T * W * h)[0] + lambda_H / 2 * h.dot(h) + (u.T * W * W.T * u)[0] / (2 * lambda_H)
        pairs.append((lhs, residual.dot(residual) / (2 * lambda_H)))
    d.identities(
        "*Convexity.* Replace the loss by the supremum of $u^\\top z - \\ell^*(u)$ and minimise over the feature by "
        "completing the square.",
        pairs,
        shown=r"\min_h \left[u^\top W h + \frac{\lambda_H}{2}\lVert h\rVert^2\right] = -\frac{u^\top M u}{2\lambda_H}",
        cases="K, d = 2, 3 and 3, 2",
    )
    d.say(
        "The gap between both sides is zero at $u = r$ for the optimal feature (see the claim on uniqueness), so the "
        "order of minimum and supremum does not matter. What remains is a maximum of functions that are linear in $M$ "
        "and $b$, and so convex: the reduced problem has no bad local minimum in $M$.",
        r"\varphi(M, b) = \mathbb E\,\max_u \left[-\ell^*(u) + u^\top b - \frac{u^\top M u}{2\lambda_H}\right]",
    )


def _linear_response(d: Derivation) -> None:
    pairs = []
    for K in FEW:
        M, change = _symmetric("M", K), _symmetric("D", K)
        a, moved, shift, b, x = (vector(name, K) for name in "aefbx")
        logits = (M + s * change) * (a + s * moved) + b + s * shift
        S = softmax(x).jacobian(x)
        derivative = sp.diff(logits, s).subs(s, 0)
        pairs += [(derivative, change * a + M * moved + shift), (S, fisher(softmax(x)))]
    d.identities(
        "*Linear response.* Differentiate the condition $p + \\lambda_H a = y$, with $S$ the loss's Hessian in the "
        "logits ($\\operatorname{diag} p - p p^\\top$ for cross entropy, $I$ for mean squared error).",
        pairs,
        shown=r"\left(\lambda_H I + S M\right)\mathrm da = -S\left(\mathrm dM\,a + \mathrm db\right)",
        cases=f"cross entropy, {FEW_TEXT}",
    )
    pairs = []
    K, dim = 2, 3
    W, change, a, moved = _general("W", K, dim), _general("V", K, dim), vector("a", K), vector("e", K)
    line, dual = W + s * change, a + s * moved
    gradient = lambda_W * line - lambda_H * dual * dual.T * line
    product = lambda_W * change - lambda_H * ((moved * a.T + a * moved.T) * W + a * a.T * change)
    pairs.append((sp.diff(gradient, s).subs(s, 0), product))
    pairs.append((sp.diff(line * line.T, s).subs(s, 0), change * W.T + W * change.T))
    d.identities(
        "*Product with the Hessian.* Along $V$ in the classifier, $M$ changes by $V W^\\top + W V^\\top$; the product "
        "rule gives the change of the gradient.",
        pairs,
        shown=r"\nabla^2 [V] = \lambda_W V - \lambda_H\left(\mathbb E\left[\mathrm da\,a^\top + a\,\mathrm "
        r"da^\top\right] W + A\,V\right), \qquad \nabla_b^2 [V] = -\lambda_H\,\mathbb E\,\mathrm da",
        cases="K = 2, d = 3, one target",
    )


def _linear_system(d: Derivation) -> None:
    pairs, steps = [], []
    for K in FEW:
        M, S, w, e = _symmetric("M", K), _symmetric("S", K), vector("w", K), vector("e", K)
        identity = sp.eye(K)
        pairs.append(((lambda_H * identity + S * M) * S * w, (lambda_H * S + S * M * S) * w))
        quadratic = lambda_H * (w.T * S * w)[0] + ((S * w).T * M * (S * w))[0]
        pairs.append(((w.T * (lambda_H * S + S * M * S) * w)[0], quadratic))
        steps.append(((lambda_H * identity + S * M) * (-e / lambda_H) + S * M * e / lambda_H, -e))
        t = sp.Symbol("t", real=True)
        line = e - t * e
        steps.append((sp.diff((line.T * M * line)[0], t).subs(t, 0), -2 * (e.T * M * e)[0]))
    d.identities(
        "Every such system, and every Newton step, is of the form $(\\lambda_H I + S M)\\,x = S\\,v$. Its solution is "
        "in the range of $S$; with $x = S w$ it becomes symmetric and positive semidefinite, so that conjugate "
        "gradients apply.",
        pairs,
        shown=r"\left(\lambda_H S + S M S\right) w = S\,v, \qquad w^\top\left(\lambda_H S + S M S\right) w = "
        r"\lambda_H\,w^\top S w + (S w)^\top M\,(S w) \ge 0",
        cases=FEW_TEXT,
    )
    d.identities(
        "Newton's step for $e(a) = p - y + \\lambda_H a = 0$ splits into $-e/\\lambda_H$ and such a response. Along it "
        "the squared norm $e^\\top M e$ of the gradient in the feature falls: its slope is minus twice itself.",
        steps,
        shown=r"\left(\lambda_H I + S M\right)\delta = -e: \qquad \delta = -\frac{e}{\lambda_H} + x, \quad "
        r"\left(\lambda_H I + S M\right) x = S\,\frac{M e}{\lambda_H}",
        cases=FEW_TEXT,
    )
    pairs = []
    for K in (2, 3, 4):
        S = fisher(simplex("p", K))
        pairs.append((S * (c * centring(K)) * S, c * S * S))
    d.identities(
        "*Preconditioner.* For a simplex ETF, $M = c\\,(I - \\mathbf 1\\mathbf 1^\\top/K)$; because $S\\mathbf 1 = 0$ "
        "for cross entropy, the system factors. For any other $M$ the factor is a preconditioner, with $c = "
        "\\operatorname{tr} M/(K-1)$; where conjugate gradients need its product with a residual $S\\,t$, that is "
        "$(\\lambda_H I + c S)^{-1} t$.",
        pairs,
        shown=r"\lambda_H S + S M S = S\left(\lambda_H I + c\,S\right)",
        cases="K = 2, 3, 4",
    )
    pairs, denominators = [], []
    for K in FEW:
        p = simplex("p", K)
        q = sp.Matrix([entry / (lambda_H + c * entry) for entry in p])
        total = sum(q)
        diagonal = sp.diag(*(1 / (lambda_H + c * entry) for entry in p))
        inverse = diagonal + c / (lambda_H * total) * q * q.T
        pairs.append(((lambda_H * sp.eye(K) + c * fisher(p)) * inverse, sp.eye(K)))
        denominators.append((1 - c * sum(entry**2 / (lambda_H + c * entry) for entry in p), lambda_H * total))
    d.identities(
        "Its inverse is that of a diagonal less a rank-one matrix. Sherman and Morrison's denominator cancels where "
        "$\\lambda_H$ is small; as $\\sum_k p_k = 1$ it is a sum of positive numbers.",
        denominators,
        shown=r"1 - c\sum_k\frac{p_k^2}{\lambda_H + c\,p_k} = \lambda_H\sum_k q_k, \qquad q_k = "
        r"\frac{p_k}{\lambda_H + c\,p_k}",
        cases=FEW_TEXT,
    )
    d.identities(
        "The inverse in this form.",
        pairs,
        shown=r"\left(\lambda_H I + c\,S\right)^{-1} = \operatorname{diag}\frac{1}{\lambda_H + c\,p} + "
        r"\frac{c}{\lambda_H\sum_k q_k}\;q\,q^\top",
        cases=FEW_TEXT,
    )


def _balancing(d: Derivation) -> None:
    d.say(
        "*Balancing.* Keep the logits, let $\\Sigma = \\mathbb E\\,z z^\\top$ (without bias), and look for the "
        "cheapest factors. The shortest feature with $W h = z$ has $\\lVert h\\rVert^2 = z^\\top M^{-1} z$ "
        "(on the range of $M$, which has to contain the logits).",
        r"\min_M\;\tfrac12\left[\lambda_W\operatorname{tr} M + \lambda_H\operatorname{tr}\left(M^{-1}\Sigma\right)"
        r"\right]",
    )
    M, R = _symmetric("M", 2), _symmetric("R", 2)
    one, other = sp.sqrt(lambda_W), sp.sqrt(lambda_H)
    difference = one * M - other * R
    lhs = lambda_W * M.trace() + lambda_H * (M.inv() * R * R).trace() - 2 * one * other * R.trace()
    d.identity(
        "With the square root $R = \\Sigma^{1/2}$ the excess over $2\\sqrt{\\lambda_W\\lambda_H}\\operatorname{tr} R$ "
        "is a square in the norm of $M^{-1}$.",
        lhs,
        (difference * M.inv() * difference).trace(),
        shown=r"\lambda_W\operatorname{tr} M + \lambda_H\operatorname{tr}\left(M^{-1} R^2\right) - "
        r"2\sqrt{\lambda_W\lambda_H}\operatorname{tr} R = \operatorname{tr}\left[\left(\sqrt{\lambda_W} M - "
        r"\sqrt{\lambda_H} R\right) M^{-1}\left(\sqrt{\lambda_W} M - \sqrt{\lambda_H} R\right)\right] \ge 0",
    )
    value, mu = sp.symbols("sigma mu", positive=True)
    cost = (lambda_W * mu + lambda_H * value**2 / mu) / 2
    best = sp.solve(sp.diff(cost, mu), mu)[0]
    d.identities(
        "So the best factorisation has $M$ proportional to $R$, and what is left of the penalty is a multiple of the "
        "nuclear norm; here for one singular value $\\sigma$ of the scaled logits.",
        [(best, sp.sqrt(lambda_H / lambda_W) * value), (cost.subs(mu, best), sp.sqrt(lambda_W * lambda_H) * value)],
        shown=r"M = \sqrt{\frac{\lambda_H}{\lambda_W}}\left(\mathbb E\,z z^\top\right)^{1/2}, \qquad "
        r"\text{penalty} = \sqrt{\lambda_W\lambda_H}\;\lVert\tilde Z\rVert_*",
    )
    M, a = _symmetric("M", 3), vector("a", 3)
    d.identity(
        "In dual numbers, $z = M a$. The loss is unchanged and the penalty not larger, so the objective cannot rise; "
        "the best features for the new $M$ can only lower it further.",
        (M * a) * (M * a).T,
        M * (a * a.T) * M,
        shown=r"\mathbb E\,z z^\top = M A\,M",
    )


def _chord(d: Derivation) -> None:
    pairs = []
    t = sp.Symbol("t", positive=True)
    for K in SMALL:
        p, y = simplex("p", K), vector("y", K, positive=True)
        q = t * p + (1 - t) * y
        value = -sum(entry * sp.log(entry) for entry in q)
        curvature = -sum((a - b) ** 2 / e for a, b, e in zip(p, y, q, strict=True))
        pairs.append((sp.diff(value, t, 2), curvature))
    r, centred = sp.symbols("r_k c_k", real=True)
    pairs.append((sp.diff(-((t * r) ** 2 / 2 + t * r * centred), t, 2), -(r**2)))
    d.identities(
        "*A bound in one pass.* Let $D(t)$ be the certificate's dual value at $t$ times the residuals. It is concave, "
        "here for cross entropy; for mean squared error $D''(t) = -\\mathbb E\\lVert r\\rVert^2$.",
        pairs,
        shown=r"D(t) = \mathbb E\,\mathcal H\left(t\,p + (1-t)\,y\right), \qquad D''(t) = -\mathbb E\sum_k "
        r"\frac{(p_k - y_k)^2}{t\,p_k + (1-t)\,y_k} \le 0",
        cases=SMALL_TEXT,
    )
    d.say(
        "A concave function is above its chord. Both ends can be summed before the scale $t = \\min(1, "
        "\\sqrt{\\lambda_W\\lambda_H}/\\lVert G_1\\rVert_2)$ is known, and at an optimum $t = 1$ loses nothing.",
        r"D(t) \ge t\,D(1) + (1-t)\,D(0), \qquad 0 \le t \le 1",
    )


@precisely
def check() -> tuple[Check, ...]:
    rng = np.random.default_rng(4)
    K, dim, decay = 4, 3, 0.0625
    y, pi = rng.integers(1, 9, (3, K)) / 1.0, np.array([1, 1, 2]) / 4
    y /= y.sum(1, keepdims=True)
    W, b, V, change = rng.normal(size=(K, dim)), rng.normal(size=K), rng.normal(size=(K, dim)), rng.normal(size=K)
    problem = ufm.UFM(ufm.Targets(y, pi), dim, 0.125, decay, bias_decay=0.25)
    reduced = Reduced(problem, store=True, distributed=False)
    variables = _Variables(problem, Point(torch.from_numpy(W), None, torch.from_numpy(b)))
    state = variables.evaluate(reduced, variables.start, 1e-14)

    def moved(step: Number) -> Number:
        return _reduced(matrix(W) + step * matrix(V), mp.matrix(b) + step * mp.matrix(change), y, pi)[0]

    here, gram, features, bound = _reduced(matrix(W), mp.matrix(b), y, pi)
    direction = torch.from_numpy(np.column_stack([V, change]))
    step = mp.mpf(10) ** -12
    slope, curve = (moved(step) - moved(-step)) / (2 * step), (moved(step) - 2 * here + moved(-step)) / step**2
    image = (variables.product(state, direction, 1e-12) * direction).sum()
    lost = state.objective - reduced.bound(state.reduction)
    found = response(state.reduction.gram, torch.from_numpy(y), torch.zeros(3, K, dtype=torch.float64), 1e-15)
    return (
        compared("objective of the reduced function", [state.objective], [here], 1e-14),
        compared("features of `response`", found.dual.numpy() @ W, features, 1e-13),
        compared("slope along a direction", [(state.gradient * direction).sum()], [slope], 1e-13, scale=here),
        compared("curvature along it", [image], [curve], 1e-10),
        compared("$W W^\\top$ of the balancing step", variables.balanced(state).reduction.gram.matrix, gram, 1e-12),
        compared("gap of `Reduced.bound`", [lost], [here - bound], 1e-13, scale=here),
        *_linear_checks(),
    )


def _linear_checks() -> tuple[Check, ...]:
    """Compare the linear response and the resolvent for an ill-conditioned system with dense solutions."""
    rng = np.random.default_rng(9)
    K, decay = 5, 2.0**-10
    p = np.array([0.9, 0.09, 0.009, 0.0009, 0.0001])
    v, W = rng.normal(size=K), rng.normal(size=(K, K))
    S = mp.diag(numbers(p)) - mp.matrix(p) * mp.matrix(p).T
    curvature, right = SoftmaxCurvature(torch.from_numpy(p)[None]), torch.from_numpy(v)[None]
    gram = Gram(torch.from_numpy(W @ W.T), torch.zeros(K, dtype=torch.float64), decay, get_loss("cross_entropy"))
    x = linear_response(gram, curvature, right, torch.full((1, 1), 1e-26, dtype=torch.float64))
    system = mp.mpf(decay) * mp.eye(K) + S * matrix(W @ W.T)
    inverse = mp.lu_solve(mp.mpf(decay) * mp.eye(K) + S, mp.matrix(v))
    resolved = curvature.resolvent(decay, torch.tensor(1.0, dtype=torch.float64))(right)
    return (
        compared(
            "`linear_response` for $\\lambda_H = 2^{-10}$", x[0], list(mp.lu_solve(system, S * mp.matrix(v))), 1e-9
        ),
        compared("`resolvent` for $\\lambda_H = 2^{-10}$", resolved[0], list(inverse), 1e-13),
    )


def _reduced(
    w: Any, b: Any, labels: np.ndarray, weights: np.ndarray
) -> tuple[Number, list[Number], list[Number], Number]:
    """Return the minimum over the features, the balanced Gram matrix, the features and the chord's bound."""
    lambda_w, lambda_h, lambda_b = (mp.mpf(x) for x in (0.125, 0.0625, 0.25))
    K = w.rows
    value = lambda_w / 2 * mp.norm(w, 2) ** 2 + lambda_b / 2 * mp.norm(b) ** 2
    covariance, moment, mean = mp.zeros(K), mp.zeros(K), mp.zeros(K, 1)
    ends, features = [mp.mpf(0), mp.mpf(0)], []
    for label, weight in zip(labels, weights, strict=True):
        y, pi, h = mp.matrix(numbers(label)), mp.mpf(weight), mp.zeros(w.cols, 1)
        for _ in range(100):
            p = mp.matrix(precise_softmax(list(w * h + b)))
            gradient = w.T * (p - y) + lambda_h * h
            if mp.norm(gradient) < mp.mpf(10) ** -44:
                break
            h -= mp.lu_solve(w.T * (mp.diag(list(p)) - p * p.T) * w + lambda_h * mp.eye(w.cols), gradient)
        else:
            raise ArithmeticError("Newton's method did not converge")
        z, r = w * h, p - y
        value += pi * (cross_entropy(list(z + b), list(y)) + lambda_h / 2 * mp.fdot(h, h))
        covariance, moment, mean = covariance + pi * z * z.T, moment + pi * r * r.T, mean + pi * r
        ends = [ends[0] + pi * entropy(y), ends[1] + pi * entropy(p)]
        features += list(h)
    squares, vectors = mp.eigsy(covariance)
    roots = mp.diag([mp.sqrt(lambda_h / lambda_w * max(x, 0)) for x in squares])
    t = min(mp.mpf(1), mp.sqrt(lambda_w * lambda_h / max(mp.eigsy(moment, eigvals_only=True))))
    bound = t * ends[1] + (1 - t) * ends[0] - t**2 * mp.fdot(mean, mean) / (2 * lambda_b)
    return value, list(vectors * roots * vectors.T), features, bound


CLAIM = Claim(
    title="The features eliminated",
    statement=r"""For fixed $W$ and $b$, each target's best feature is $h = W^\top a$ with $a = -(p - y)/\lambda_H$. Let
$A = \mathbb E\,a a^\top$. The minimum over the features is a convex function of $M = W W^\top$ and $b$, and
$$\frac{\partial F}{\partial W} = \lambda_W W - \lambda_H A\,W, \qquad
\left(\lambda_H I + S M\right)\mathrm da = -S\left(\mathrm dM\,a + \mathrm db\right),$$
where $S$ is the loss's Hessian in the logits. With $c = \operatorname{tr} M/(K-1)$, the system is solved by conjugate
gradients preconditioned with $S(\lambda_H I + c\,S)$, which is exact for a simplex ETF. For given logits the best
classifier has $M = \sqrt{\lambda_H/\lambda_W}\,(\mathbb E\,z z^\top)^{1/2}$. The certificate's bound is at least
$t\,D(1) + (1-t)\,D(0)$.""",
    assumptions=(
        r"$\lambda_H > 0$, expectation convention; features without constraint; any classifier, labels and bias.",
        r"Balancing: a free classifier with $\lambda_W > 0$, of $d$ at least the rank of the logits.",
    ),
    implemented_by=(
        "ufm.solvers.elimination.response",
        "ufm.solvers.elimination.linear_response",
        "ufm.solvers.reduced.Reduced.evaluate",
        "ufm.solvers.reduced.Reduced.bound",
        "ufm.solvers.newton.Newton",
        "ufm.losses.SoftmaxCurvature.resolvent",
    ),
    tests=(
        "tests/derivations/test_derivations.py::test_claim_holds",
        "tests/solvers/test_elimination.py::test_linear_response_against_a_dense_solve",
        "tests/solvers/test_elimination.py::test_resolvent_is_the_inverse",
        "tests/solvers/test_elimination.py::test_response_is_that_of_the_fixed_classifier",
        "tests/solvers/test_elimination.py::test_reduced_gradient_and_hessian_product",
        "tests/solvers/test_elimination.py::test_balancing_never_raises_the_objective",
        "tests/solvers/test_elimination.py::test_reduced_function_is_convex_in_the_gram_matrix",
        "tests/solvers/test_elimination.py::test_streaming_gives_the_same_optimum_and_a_bound_close_below",
    ),
    derive=derive,
    check=check,
)

if __name__ == "__main__":
    main(CLAIM)
