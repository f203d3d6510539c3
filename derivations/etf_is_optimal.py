"""The simplex ETF is the global optimum over classifier and features: the symmetry argument, step by step."""

from itertools import permutations
from typing import Any

import numpy as np
import torch
from mpmath import mp

import ufm
from derivations.claim import Check, Claim, Derivation, Step, main
from derivations.reference import EPS, compared, precisely, worst
from derivations.symbols import (
    SMALL,
    SMALL_TEXT,
    K,
    centring,
    fisher,
    gram_factor,
    lambda_H,
    lambda_W,
    logsumexp,
    m,
    simplex,
    sp,
    vector,
)


def derive() -> tuple[Step, ...]:
    d = Derivation()
    d.say(
        "Collect columns $\\sqrt{\\pi_j}\\,h_j$ in $\\tilde H$ and $\\sqrt{\\pi_j}\\,z_j$ in $\\tilde Z = W \\tilde "
        "H$, and let $f(\\tilde Z) = \\sum_j \\pi_j \\mathrm{CE}(z_j, y_j)$. Then",
        r"F(W, H) = f(\tilde Z) + \frac{\lambda_W}{2} \lVert W\rVert_F^2 + \frac{\lambda_H}{2} \lVert\tilde "
        r"H\rVert_F^2",
    )
    _relaxation(d)
    _uniqueness(d)
    _symmetry(d)
    _classifier(d)
    return d.done()


def _relaxation(d: Derivation) -> None:
    a, b, s = sp.symbols("a b sigma", positive=True)
    d.identity(
        "*Relaxation.* Arithmetic and geometric mean: with $a = \\lVert W\\rVert_F$ and $b = \\lVert\\tilde "
        "H\\rVert_F$ the two penalties are at least $\\sqrt{\\lambda_W\\lambda_H}\\,ab$,",
        lambda_W * a**2 / 2 + lambda_H * b**2 / 2 - sp.sqrt(lambda_W * lambda_H) * a * b,
        (sp.sqrt(lambda_W) * a - sp.sqrt(lambda_H) * b) ** 2 / 2,
        shown=r"\frac{\lambda_W}{2}a^2 + \frac{\lambda_H}{2}b^2 - \sqrt{\lambda_W\lambda_H}\,ab "
        r"= \tfrac12\left(\sqrt{\lambda_W}\,a - \sqrt{\lambda_H}\,b\right)^2 \ge 0,",
    )
    d.say(
        "and $ab$ is at least the nuclear norm of the product: with the singular value decomposition "
        "$\\tilde Z = U \\Sigma V^\\top$ the Cauchy-Schwarz inequality gives",
        r"\lVert\tilde Z\rVert_* = \langle U V^\top, W\tilde H\rangle = \langle U^\top W, (\tilde H V)^\top\rangle "
        r"\le \lVert W\rVert_F \lVert\tilde H\rVert_F",
    )
    quarter = (lambda_H / lambda_W) ** sp.Rational(1, 4)
    w, h = quarter * sp.sqrt(s), sp.sqrt(s) / quarter
    d.identities(
        "Both are equalities for balanced factors, which exist once $d \\ge \\operatorname{rank}\\tilde Z$; below, "
        "one singular value $\\sigma$ at a time. Factors that attain the minimum therefore minimise the convex "
        "function on the right.",
        [
            (w * h, s),
            (sp.powsimp(lambda_W * w**2 / 2 + lambda_H * h**2 / 2), sp.sqrt(lambda_W * lambda_H) * s),
        ],
        shown=r"W = \left(\tfrac{\lambda_H}{\lambda_W}\right)^{1/4} U \Sigma^{1/2}, \quad "
        r"\tilde H = \left(\tfrac{\lambda_W}{\lambda_H}\right)^{1/4} \Sigma^{1/2} V^\top: \qquad "
        r"\min_{W\tilde H = \tilde Z} F = f(\tilde Z) + \sqrt{\lambda_W\lambda_H}\,\lVert\tilde Z\rVert_*",
    )


def _uniqueness(d: Derivation) -> None:
    shift = sp.Symbol("c", real=True)
    pairs = []
    for size in SMALL:
        logits, label = vector("z", size), simplex("y", size)
        moved = logits + shift * sp.ones(size, 1)
        # log-sum-exp of the moved logits, with the common factor e^c taken out by hand.
        pairs.append(
            (
                sp.log(sp.factor(sp.expand(sum(sp.exp(entry) for entry in moved), power_exp=True))) - label.dot(moved),
                logsumexp(logits) - label.dot(logits),
            )
        )
    d.identities(
        "*Uniqueness.* Adding a constant to a column changes no prediction and no loss.",
        pairs,
        shown=r"\mathrm{CE}(z + c\mathbf 1, y) = \mathrm{CE}(z, y)",
        cases=SMALL_TEXT,
    )
    d.identities(
        "The centring $P = I - \\mathbf 1\\mathbf 1^\\top/K$ is an orthogonal projection, so that centring all "
        "columns keeps $f$ and cannot increase the nuclear norm; applied to $W$ it keeps $f$ and lowers $\\lVert "
        "W\\rVert_F$ unless $W$ is centred already. Every global minimiser is centred.",
        [(centring(size) ** 2, centring(size)) for size in SMALL],
        shown=r"P^2 = P = P^\top, \qquad \lVert P W\rVert_F^2 = \lVert W\rVert_F^2 - \lVert (I - P) W\rVert_F^2",
        cases=SMALL_TEXT,
    )
    pairs = []
    for size in SMALL:
        q = simplex("p", size)
        product = sp.prod(list(q))
        pairs.append((fisher(q)[: size - 1, : size - 1].det(method="berkowitz"), product))
    d.identities(
        "On centred columns $f$ is strictly convex: the Hessian $\\operatorname{diag} p - pp^\\top$ annihilates only "
        "the constants, because dropping its last row and column leaves a matrix with the determinant below, which is "
        "positive. A centred minimiser $\\tilde Z$ exists, as the loss is not negative and the nuclear norm grows "
        "without bound, and it is the only one.",
        pairs,
        shown=r"\det\left[\operatorname{diag} p - p p^\top\right]_{1..K-1} = \prod_{k=1}^{K} p_k > 0",
        cases=SMALL_TEXT,
    )


def _symmetry(d: Derivation) -> None:
    logits, label = list(vector("z", 3)), list(vector("y", 3))
    value = logsumexp(logits) - sum(a * b for a, b in zip(label, logits, strict=True))
    pairs = []
    for order in permutations(range(3)):
        moved_z, moved_y = [logits[index] for index in order], [label[index] for index in order]
        pairs.append((logsumexp(moved_z) - sum(a * b for a, b in zip(moved_y, moved_z, strict=True)), value))
    d.identities(
        "*Symmetry.* Let a permutation $\\Pi$ of the classes act on logits and labels. The loss does not change; with "
        "balanced classes the law of the labels does not either, so that $\\Pi$ moves targets to targets of equal "
        "weight: a permutation $Q$ of columns. Rotations change no singular value.",
        pairs,
        shown=r"\mathrm{CE}(\Pi z, \Pi y) = \mathrm{CE}(z, y), \qquad f(\Pi\tilde Z Q^\top) = f(\tilde Z), \qquad "
        r"\lVert\Pi\tilde Z Q^\top\rVert_* = \lVert\tilde Z\rVert_*",
        cases="K = 3, every permutation",
    )
    d.say(
        "$\\Pi\\tilde Z Q^\\top$ is thus another centred minimiser, and there is only one: $\\tilde Z = \\Pi\\tilde Z "
        "Q^\\top$. Squaring removes $Q$.",
        r"\tilde Z\tilde Z^\top = \Pi\,\tilde Z\tilde Z^\top\,\Pi^\top \qquad\text{for every permutation } \Pi",
    )
    truths = []
    for size in SMALL:
        commutant = _commutant(size)
        generic = sp.Symbol("a") * sp.eye(size) + sp.Symbol("b") * sp.ones(size, size)
        truths += [len(commutant) == 2, _in_span(sp.eye(size), commutant), _in_span(sp.ones(size, size), commutant)]
        solution = sp.solve(list(generic * sp.ones(size, 1)), sp.Symbol("b"), dict=True)[0]
        truths.append((generic.subs(solution) - sp.Symbol("a") * centring(size)).expand().is_zero_matrix)
    d.fact(
        "A matrix that commutes with every permutation (adjacent transpositions suffice) has one value on the "
        "diagonal and one off it; one that also annihilates $\\mathbf 1$ is a multiple of the centring.",
        all(truths),
        shown=r"\tilde Z\tilde Z^\top = a I + b\,\mathbf 1\mathbf 1^\top, \quad \tilde Z\tilde Z^\top\mathbf 1 = 0 "
        r"\quad\Longrightarrow\quad \tilde Z\tilde Z^\top = a\,\left(I - \tfrac1K\mathbf 1\mathbf 1^\top\right)",
        cases=SMALL_TEXT,
    )


def _commutant(size: int) -> list[Any]:
    """Return a basis of the matrices that commute with every permutation matrix."""
    entries = sp.Matrix(size, size, lambda row, column: sp.Symbol(f"m_{row}_{column}"))
    equations: list[Any] = []
    for index in range(size - 1):
        swap = sp.eye(size).elementary_row_op("n<->m", row1=index, row2=index + 1)
        equations += [entry for entry in swap * entries - entries * swap if entry != 0]
    system, _ = sp.linear_eq_to_matrix(equations, list(entries))
    return [sp.Matrix(size, size, list(solution)) for solution in system.nullspace()]


def _in_span(matrix: Any, basis: list[Any]) -> bool:
    columns = sp.Matrix.hstack(*(member.reshape(len(member), 1) for member in basis))
    return sp.Matrix.hstack(columns, matrix.reshape(len(matrix), 1)).rank() == columns.rank()


def _classifier(d: Derivation) -> None:
    d.say(
        "*From logits to classifier.* At a minimum both partial gradients vanish. With $G = \\nabla f(\\tilde Z)$, "
        "multiply one by $W^\\top$ from the left and the other by $\\tilde H^\\top$ from the right: the factors are "
        "balanced.",
        r"G\tilde H^\top + \lambda_W W = 0, \quad W^\top G + \lambda_H\tilde H = 0 \quad\Longrightarrow\quad "
        r"\lambda_W W^\top W = -W^\top G \tilde H^\top = \lambda_H\tilde H\tilde H^\top",
    )
    a, scale = sp.symbols("a rho", positive=True)
    squares = []
    for size in SMALL:
        gram = scale * centring(size)
        ratio = sp.solve(sp.Eq(lambda_W / lambda_H * scale**2, a), scale)[0]
        squares.append((lambda_W / lambda_H * (gram**2).subs(scale, ratio), a * centring(size)))
    d.identities(
        "Hence $\\tilde Z\\tilde Z^\\top = W\\tilde H\\tilde H^\\top W^\\top = \\frac{\\lambda_W}{\\lambda_H}(W "
        "W^\\top)^2$. A positive semidefinite matrix has one positive semidefinite root, and $P^2 = P$.",
        squares,
        shown=r"W W^\top = \left(\frac{\lambda_H}{\lambda_W}\,\tilde Z\tilde Z^\top\right)^{1/2} "
        r"= \sqrt{\frac{a\,\lambda_H}{\lambda_W}}\,\left(I - \tfrac1K\mathbf 1\mathbf 1^\top\right)",
        cases=SMALL_TEXT,
    )
    g = sp.Symbol("g", positive=True)
    d.identity(
        "That is the Gram matrix of a simplex ETF whose row norm $m$ the diagonal gives, or of $W = 0$ if $a = 0$. "
        "Its rank $K - 1$ is what $d$ has to hold.",
        sp.solve(sp.Eq(g * (1 - 1 / K), m**2), g)[0],
        gram_factor,
        shown=r"W W^\top = \frac{m^2 K}{K-1}\left(I - \tfrac1K\mathbf 1\mathbf 1^\top\right)",
    )


@precisely
def check() -> tuple[Check, ...]:
    grams = []
    for num_classes in SMALL:
        found = ufm.simplex_etf(num_classes, num_classes + 1, 1.5, generator=torch.Generator().manual_seed(1))
        exact = mp.mpf("2.25") * num_classes / (num_classes - 1)
        expected = [
            exact * ((row == column) - mp.mpf(1) / num_classes)
            for row in range(num_classes)
            for column in range(num_classes)
        ]
        grams.append(compared("Gram matrix of `simplex_etf`", found @ found.T, expected, 32 * EPS))
    gaps, distances = [], []
    for law, dim in ((ufm.Mixup(3), 2), (ufm.Mixup(4, 0.5), 5)):
        optimum = ufm.joint_optimum(law, 0.05, 0.04, nodes=3)
        problem = ufm.UFM(law.targets(3), dim, 0.05, 0.04)
        features = optimum.response(problem.targets.labels, dim).features
        certificate = ufm.certify(problem, optimum.classifier(dim), features)
        gaps.append(abs(certificate.gap) / certificate.objective)
        solution = ufm.solve(problem, "lbfgs", tol=1e-11, max_iter=5000, seed=3, device="cpu")
        gram, ideal = (w @ w.T for w in (solution.classifier, optimum.classifier(dim)))
        distances.append(float((gram - ideal).abs().max() / ideal.abs().max()))
    return (
        worst(grams),
        Check("change of `Mixup(3).targets` under the worst permutation of the classes", _asymmetry(), 1e-15),
        Check("certified distance of `joint_optimum` from the global optimum, relative", max(gaps), 1e-13),
        Check("Gram matrix of a direct solve from a random start against the ETF", max(distances), 1e-7),
    )


def _asymmetry() -> float:
    """Return how far mixup's weighted labels are from those with the classes permuted, as sets of rows."""
    targets = ufm.Mixup(3, 0.5).targets(3)
    labels, weights = targets.labels.numpy(), targets.weights.numpy()

    def ordered(order: tuple[int, ...]) -> np.ndarray:
        rows = np.column_stack([labels[:, list(order)], weights])
        return rows[np.lexsort(rows[:, ::-1].round(9).T)]

    identity = ordered((0, 1, 2))
    return max(float(np.abs(ordered(order) - identity).max()) for order in permutations(range(3)))


CLAIM = Claim(
    title="The simplex ETF is the global optimum",
    statement=r"""For a law of the labels that no permutation of the classes changes (mixup with balanced classes is
one) and $d \ge K - 1$, every global minimiser $(W, H)$ of $F$ satisfies
$$W W^\top = \frac{m^2 K}{K-1}\left(I - \tfrac1K \mathbf 1\mathbf 1^\top\right):$$
the classifier is a simplex ETF (or zero). Nothing about its shape is assumed.""",
    assumptions=(
        r"Cross entropy without bias; $\lambda_W, \lambda_H > 0$ in the expectation convention.",
        r"The law of $y$ is invariant under class permutations; $d \ge K - 1$.",
    ),
    implemented_by=("ufm.simplex_etf", "ufm.joint_optimum", "ufm.certify", "ufm.solve"),
    tests=(
        "tests/derivations/test_derivations.py::test_claim_holds",
        "tests/runs/test_verification.py::test_everything_agrees_below_and_above_the_threshold",
    ),
    derive=derive,
    check=check,
)

if __name__ == "__main__":
    main(CLAIM)
