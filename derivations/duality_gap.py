"""The certificate: conjugates of both losses, a dual feasible point for any (W, H), and the bound that it gives."""

import numpy as np
import torch
from mpmath import mp

import ufm
from derivations.claim import Check, Claim, Derivation, Step, main
from derivations.reference import Number, compared, cross_entropy, entropy, matrix, numbers, precisely, softmax, worst
from derivations.symbols import SMALL, SMALL_TEXT, K, logsumexp, simplex, sp, vector
from ufm.losses import get_loss

t, s, c = sp.symbols("t s c", positive=True)


def derive() -> tuple[Step, ...]:
    d = Derivation()
    _cross_entropy(d)
    _mean_squared_error(d)
    _bound(d)
    return d.done()


def _cross_entropy(d: Derivation) -> None:
    d.say(
        "*Conjugate of cross entropy.* Put $q = u + y$ for the dual variable $u$.",
        r"\mathrm{CE}^*(u) = \sup_z \left[u^\top z - \mathrm{CE}(z, y)\right] = \sup_z \left[q^\top z - \log\sum_k "
        r"e^{z_k}\right]",
    )
    level = sp.Symbol("c", real=True)
    pairs = []
    for size in SMALL:
        q, z = simplex("q", size), vector("z", size)
        maximiser = [sp.log(entry) + level for entry in q]
        gradient = [sp.diff(q.dot(z) - logsumexp(z), entry) for entry in z]
        at = dict(zip(z, maximiser, strict=True))
        pairs += [(entry.subs(at), sp.Integer(0)) for entry in gradient]
        negative_entropy = sum(entry * sp.log(entry) for entry in q)
        # log-sum-exp of the maximiser is c, because the entries of q sum to one.
        total = sp.simplify(sum(sp.exp(entry) for entry in maximiser))
        pairs.append((q.dot(sp.Matrix(maximiser)) - sp.expand_log(sp.log(total)), negative_entropy))
    d.identities(
        "If $q$ is a positive distribution, the concave function on the right is stationary at $z = \\log q + "
        "c\\mathbf 1$, and its value there is the negative entropy (by continuity also with zeros in $q$).",
        pairs,
        shown=r"q \in \text{simplex}: \qquad \mathrm{CE}^*(u) = \sum_k q_k\log q_k = -\mathcal H(q)",
        cases=SMALL_TEXT,
    )
    d.fact(
        "Otherwise it is infinite: if $q$ sums to $1 + s$, moving all logits by $\\pm t$ adds $\\pm s t$; if some "
        "$q_k = -s$ is negative, $z = -t e_k$ makes the value grow without bound (below, $c = K - 1$).",
        sp.And(
            sp.Eq(sp.limit((1 + s) * t - (t + sp.log(c)), t, sp.oo), sp.oo),
            sp.Eq(sp.limit(-(1 - s) * t - (-t + sp.log(c)), t, sp.oo), sp.oo),
            sp.Eq(sp.limit(s * t - sp.log(c + sp.exp(-t)), t, sp.oo), sp.oo),
        ),
        shown=r"\lim_{t\to\infty}\left[s\,t - \log(K - 1 + e^{-t})\right] = \infty",
    )


def _mean_squared_error(d: Derivation) -> None:
    z, u, centred = sp.symbols("z_k u_k c_k", real=True)
    inner = u * z - (z - centred) ** 2 / 2
    best = sp.solve(sp.diff(inner, z), z)[0]
    d.identity(
        "*Conjugate of mean squared error* $\\frac12\\lVert z + \\mathbf 1/K - y\\rVert^2$. Coordinate by coordinate, "
        "with $c_k = y_k - 1/K$, the supremum is at $z_k = c_k + u_k$.",
        inner.subs(z, best),
        u**2 / 2 + u * centred,
        shown=r"\mathrm{MSE}^*(u) = \tfrac12\lVert u\rVert^2 + u^\top\left(y - \tfrac1K\mathbf 1\right)",
    )


def _bound(d: Derivation) -> None:
    d.say(
        "*Weak duality.* Let $f(\\tilde Z) = \\sum_j\\pi_j\\,\\ell(z_j, y_j)$ with columns $\\tilde z_j = "
        "\\sqrt{\\pi_j}\\,z_j$, and let $G$ have columns $\\sqrt{\\pi_j}\\,u_j$. The definition of the conjugate, and "
        "$\\langle G, \\tilde Z\\rangle \\ge -\\lVert G\\rVert_2\\lVert\\tilde Z\\rVert_*$ (singular vectors of "
        "$\\tilde Z$, one singular value at a time), give",
        r"f(\tilde Z) + \rho\,\lVert\tilde Z\rVert_* \ge \langle G, \tilde Z\rangle - f^*(G) + \rho\,\lVert\tilde "
        r"Z\rVert_* \ge -f^*(G) \qquad\text{if } \lVert G\rVert_2 \le \rho = \sqrt{\lambda_W\lambda_H}",
    )
    weight, dual, logit, value = sp.symbols("pi_j u_j z_j ell_j", real=True, positive=True)
    scaled = (sp.sqrt(weight) * dual) * (sp.sqrt(weight) * logit) - weight * value
    d.identity(
        "The scaling of the columns turns the conjugate of $f$ into a weighted sum of conjugates.",
        scaled,
        weight * (dual * logit - value),
        shown=r"f^*(G) = \sup_{\tilde Z} \sum_j \left[\pi_j u_j^\top z_j - \pi_j\,\ell(z_j, y_j)\right] = \sum_j "
        r"\pi_j\,\ell^*(u_j)",
    )
    d.say(
        "By the relaxation step of the claim on the optimality of the ETF, $F(W, H) \\ge f(\\tilde Z) + "
        "\\rho\\lVert\\tilde Z\\rVert_*$ for every $d$, whatever the labels. So $-f^*(G)$ is below $F$ everywhere."
    )
    label, prediction = sp.symbols("y_k p_k", nonnegative=True)
    d.identity(
        "*A feasible point.* Scale the gradient that is at hand, $u_j = t\\,(p_j - y_j)$, so that the spectral norm "
        "is at most $\\rho$; then $q_j$ is a mixture of two distributions and lies on the simplex.",
        label + t * (prediction - label),
        t * prediction + (1 - t) * label,
        shown=r"t = \min\left(1, \frac{\rho}{\lVert G_1\rVert_2}\right), \quad q_j = y_j + t\,(p_j - y_j) = t\,p_j + "
        r"(1-t)\,y_j \quad\Longrightarrow\quad F \ge \sum_j \pi_j\,\mathcal H(q_j)",
    )
    square, rho = sp.symbols("S rho", positive=True)
    norm = sp.sqrt(square / (K - 1))
    d.identity(
        "*Tightness.* At the joint optimum $G_1 G_1^\\top = \\mathbb E[(y-p)(y-p)^\\top]$ is $\\lambda_W\\lambda_H$ "
        "times the centring, so that $\\lVert G_1\\rVert_2 = \\rho$, $t = 1$, $q_j = p_j$, and the bound is the mean "
        "predictive entropy, which is $F^*$.",
        (rho / norm).subs(square, (K - 1) * rho**2),
        sp.Integer(1),
        shown=r"t = \frac{\rho}{\lVert G_1\rVert_2} = \sqrt{\frac{(K-1)\,\lambda_W\lambda_H}{\mathbb E\lVert "
        r"y-p\rVert^2}} = 1",
    )


@precisely
def check() -> tuple[Check, ...]:
    rng = np.random.default_rng(11)
    K_, dim, N = 4, 3, 6
    labels = rng.integers(0, 9, (N, K_)) + 1.0 * np.eye(N, K_)
    labels /= labels.sum(1, keepdims=True)
    weights = np.array([1, 2, 2, 3, 4, 4]) / 16
    checks: dict[str, list[Check]] = {}
    for loss in ("cross_entropy", "mean_squared_error"):
        # Penalties for which the scaling t is active, and one for which it is not.
        for weight_decay, feature_decay, size in ((0.02, 0.05, 1.0), (0.5, 0.25, 0.125), (4.0, 2.0, 0.5)):
            classifier, features = size * rng.normal(size=(K_, dim)), size * rng.normal(size=(N, dim))
            problem = ufm.UFM(ufm.Targets(labels, weights), dim, weight_decay, feature_decay, loss)
            found = ufm.certify(problem, classifier, features)
            bound, objective = _certificate(loss, labels, weights, classifier, features, weight_decay, feature_decay)
            for text, value, expected in (
                (f"objective of `certify`, {loss.replace('_', ' ')}", found.objective, objective),
                (f"lower bound of `certify`, {loss.replace('_', ' ')}", found.lower_bound, bound),
            ):
                row = compared(text, [value], [expected], 1e-14, scale=max(abs(objective), 1))
                checks.setdefault(text, []).append(row)
    conjugates = [_conjugate_excess(loss) for loss in ("cross_entropy", "mean_squared_error")]
    return (
        *(worst(rows) for rows in checks.values()),
        Check("largest $u^\\top z - \\ell(z, y) - \\ell^*(u)$ over random $z$ (never positive)", max(conjugates), 0.0),
        _relaxed(),
        Check("relative gap at the joint optimum, where the bound is tight", _tightness(), 1e-13),
    )


def _certificate(
    loss: str,
    labels: np.ndarray,
    weights: np.ndarray,
    classifier: np.ndarray,
    features: np.ndarray,
    weight_decay: float,
    feature_decay: float,
) -> tuple[Number, Number]:
    """Return the derived lower bound and the objective, at the working precision."""
    w, H = matrix(classifier), matrix(features)
    lambda_w, lambda_h = mp.mpf(weight_decay), mp.mpf(feature_decay)
    N, K_ = labels.shape
    objective = lambda_w / 2 * mp.norm(w, 2) ** 2
    gradients, rows = mp.zeros(K_, N), []
    for n in range(N):
        y, pi, z = numbers(labels[n]), mp.mpf(float(weights[n])), list(w * H[n, :].T)
        if loss == "cross_entropy":
            prediction, value = softmax(z), cross_entropy(z, y)
        else:
            prediction = [entry + mp.mpf(1) / K_ for entry in z]
            value = mp.fsum((a - b) ** 2 for a, b in zip(prediction, y, strict=True)) / 2
        objective += pi * (value + lambda_h / 2 * mp.fsum(entry**2 for entry in H[n, :]))
        residual = [a - b for a, b in zip(prediction, y, strict=True)]
        rows.append((pi, y, residual))
        for index, entry in enumerate(residual):
            gradients[index, n] = mp.sqrt(pi) * entry
    largest = mp.sqrt(max(mp.eigsy(gradients * gradients.T, eigvals_only=True)))
    scale = min(mp.mpf(1), mp.sqrt(lambda_w * lambda_h) / largest)
    bound = mp.mpf(0)
    for pi, y, residual in rows:
        u = [scale * entry for entry in residual]
        if loss == "cross_entropy":
            bound += pi * entropy(a + b for a, b in zip(y, u, strict=True))
        else:
            bound -= pi * mp.fsum(a**2 / 2 + a * (b - mp.mpf(1) / K_) for a, b in zip(u, y, strict=True))
    return bound, objective


def _conjugate_excess(name: str) -> float:
    """Return the largest amount by which a random z violates the Fenchel-Young inequality in ufm's loss and dual."""
    generator = torch.Generator().manual_seed(2)
    loss = get_loss(name)
    z, other = (3 * torch.randn(1000, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    y = torch.softmax(torch.randn(1000, 5, generator=generator, dtype=torch.float64), -1)
    u = loss.residual(other, y)
    return float(((u * z).sum(-1) - loss.value(z, y) + loss.dual(u, y)).max())


def _relaxed() -> Check:
    """Compare the optimum of the relaxation by a conic solver with the closed form of the joint optimum."""
    law, penalties = ufm.Mixup(3), (0.05, 0.04)
    problem = ufm.UFM(law.targets(2), 3, *penalties)
    found = ufm.nuclear_norm_optimum(problem, tol=1e-9)
    optimum = ufm.joint_optimum(law, *penalties, nodes=2)
    return Check(
        "optimum of `nuclear_norm_optimum` against `joint_optimum`, relative",
        abs(found.value / float(optimum.objective) - 1),
        1e-7,
    )


def _tightness() -> float:
    targets, penalties = ufm.Mixup(4).targets(5), (0.03, 0.02)
    gaps = []
    for loss in ("cross_entropy", "mean_squared_error"):
        optimum = ufm.joint_optimum(ufm.Mixup(4), *penalties, loss, nodes=5)
        problem = ufm.UFM(targets, 4, *penalties, loss)
        certificate = ufm.certify(problem, optimum.classifier(), optimum.response(targets.labels).features)
        gaps.append(abs(certificate.gap) / certificate.objective)
    return max(gaps)


CLAIM = Claim(
    title="A certificate for any point",
    statement=r"""Let $(W, H)$ be any point, $p_j$ its predictions, $G_1$ the matrix of columns $\sqrt{\pi_j}\,(p_j -
y_j)$ and $t = \min(1, \sqrt{\lambda_W\lambda_H}/\lVert G_1\rVert_2)$. For cross entropy, with $\mathcal H$ the
entropy,
$$F(W', H') \ge \sum_j \pi_j\,\mathcal H\left(t\,p_j + (1-t)\,y_j\right) \qquad\text{for all } (W', H'),$$
and for mean squared error the summand is $-\frac12\lVert u_j\rVert^2 - u_j^\top(y_j - \mathbf 1/K)$ with $u_j =
t\,(p_j - y_j)$. The difference bounds how far $F(W, H)$ is above its global minimum; it is zero at the joint
optimum.""",
    assumptions=(
        r"$\lambda_W, \lambda_H > 0$, expectation convention; any labels on the simplex, any weights, any $d$.",
        r"Tightness: $d$ at least the rank of the optimal logits (for a symmetric law, $K - 1$).",
    ),
    implemented_by=(
        "ufm.certify",
        "ufm.nuclear_norm_optimum",
        "ufm.losses.CrossEntropy.dual",
        "ufm.losses.MeanSquaredError.dual",
    ),
    tests=(
        "tests/derivations/test_derivations.py::test_claim_holds",
        "tests/solvers/test_certificate.py::test_bound_against_the_conic_solver",
        "tests/solvers/test_certificate.py::test_gap_vanishes_at_the_closed_form",
        "tests/test_losses.py::test_residual_is_the_gradient_and_the_dual_its_conjugate",
    ),
    derive=derive,
    check=check,
)

if __name__ == "__main__":
    main(CLAIM)
