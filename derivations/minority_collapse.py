"""Minority collapse: from which imbalance on the rows of the rare classes coincide, with and without mixup."""

from itertools import product
from typing import Any

import numpy as np
import torch

import ufm
from derivations.claim import Check, Claim, Derivation, Step, main
from derivations.symbols import alpha, lambda_H, lambda_W, sp

n, ratio, q, r = sp.symbols("n R q r", positive=True)
square = sp.Symbol("s", positive=True)

SPREAD = (alpha + 1) / (2 * alpha + 1)
COLLAPSE = r / (n * lambda_W * lambda_H) - 1


def derive() -> tuple[Step, ...]:
    d = Derivation()
    d.say(
        "Let the law be unchanged by permutations of the rare classes, each of probability $q$. As in the claim that "
        "the ETF is optimal, the centred minimiser $\\tilde Z$ of the relaxation is unique, so that it is unchanged "
        "by them too (acting on rows and columns), and so is the residual's Gram matrix $GG^\\top$. The vectors $v$ "
        "supported on the rare classes with $\\sum_k v_k = 0$ are an irreducible space of these permutations that "
        "occurs once in $\\mathbb R^K$: $\\tilde Z\\tilde Z^\\top$ and $GG^\\top$ are multiples of the identity on it, "
        "and do not mix it with the rest. The rare rows coincide exactly if $\\tilde Z$ vanishes on it."
    )
    d.identities(
        "Then the logits of the rare classes are equal in every target, hence so are their probabilities, $v^\\top p = "
        "0$, and the residual is minus the label's part. For two classes drawn independently and $\\lambda$ "
        "exchangeable with $1-\\lambda$, enumerating all pairs of classes, with $s = \\mathbb E\\lambda^2$ and "
        "$\\mathbb E\\lambda(1-\\lambda) = \\tfrac12 - s$:",
        [_enumerated(frequent, rare) for frequent, rare in ((1, 2), (2, 2), (2, 3))],
        shown=r"v^\top GG^\top v = \mathbb E (v^\top y)^2 = 2 s\, q \lVert v\rVert^2 = r\,q\,\lVert v\rVert^2, \qquad "
        r"r = \mathbb E[\lambda^2 + (1-\lambda)^2]",
        cases="1, 2, 2 frequent with 2, 2, 3 rare classes",
    )
    d.say(
        "The optimality condition of the relaxation where $\\tilde Z$ vanishes is that $G$ has norm at most "
        "$\\sqrt{\\lambda_W\\lambda_H}$ there; on the rest it is that of the problem with equal rare rows, which has a "
        "minimiser. So the rare rows coincide at the global optimum",
        r"\text{if and only if}\quad r\,q \le \lambda_W\lambda_H",
    )
    d.identity(
        "With as many frequent as rare classes, $n$ of each and the frequent ones $R$ times as probable, $q = "
        "1/(n(R+1))$, and this is a bound on the ratio:",
        sp.solve(sp.Eq(r / (n * (ratio + 1)), lambda_W * lambda_H), ratio)[0],
        COLLAPSE,
        shown=r"R \ge R^* = \frac{r}{n\,\lambda_W\lambda_H} - 1",
    )
    d.identity(
        "Mixup has $r = \\frac{\\alpha+1}{2\\alpha+1}$, below one by",
        1 - SPREAD,
        alpha / (2 * alpha + 1),
        shown=r"1 - r = \frac{\alpha}{2\alpha+1} > 0, \qquad \frac{R^*_\text{mixup} + 1}{R^*_\text{unmixed} + 1} = r",
    )
    return d.done()


def _enumerated(frequent: int, rare: int) -> tuple[Any, Any]:
    """Return E (v.y)^2 by enumeration of the pairs of classes, and r q ||v||^2 with r = 2 s."""
    free = sp.symbols(f"v1:{rare}", real=True)
    v = [*[sp.Integer(0)] * frequent, *free, -sum(free)]
    common = (1 - rare * q) / frequent
    weights = [*[common] * frequent, *[q] * rare]
    total = sp.Integer(0)
    for a, b in product(range(frequent + rare), repeat=2):
        second = square * (v[a] ** 2 + v[b] ** 2) + 2 * (sp.Rational(1, 2) - square) * v[a] * v[b]
        total += weights[a] * weights[b] * second
    return sp.expand(total), sp.expand(2 * square * q * sum(x**2 for x in v))


def check() -> tuple[Check, ...]:
    decay, half, misjudged, gaps = 0.05, 2, 0, []
    for value in (None, 0.2, 1.0, 4.0):
        spread = 1.0 if value is None else float(SPREAD.subs(alpha, value))
        predicted = spread / (half * decay**2) - 1
        for factor in (0.97, 1.03):
            total = half * (factor * predicted + 1)
            priors = (factor * predicted / total,) * half + (1 / total,) * half
            law = ufm.Unmixed(4, priors) if value is None else ufm.Mixup(4, value, priors=priors)
            solution = ufm.solve(ufm.UFM(law.targets(3), 4, decay, decay), "newton", tol=1e-13, device="cpu")
            rows = solution.classifier[half:]
            apart = torch.linalg.matrix_norm(rows - rows.mean(0)) > 1e-6 * torch.linalg.matrix_norm(solution.classifier)
            misjudged += bool(apart) != (factor < 1)
            gaps.append(abs(solution.certificate.relative_gap))
    return (
        Check("certified optima judged wrongly at 3 % below or above the derived ratio", float(misjudged), 0.0),
        Check("largest certified gap of these, relative", max(gaps), 1e-10),
        Check("second moment of the label along rare differences (NumPy) against $r q$", _moment_error(), 1e-14),
    )


def _moment_error() -> float:
    """Return the error of r q against the second moment of the written-out labels of an unbalanced law."""
    priors = np.array([0.4, 0.3, 0.1, 0.1, 0.1])
    targets = ufm.Mixup(5, 0.7, priors=tuple(priors)).targets(6)
    labels, weights = targets.labels.numpy(), targets.weights.numpy()
    v = np.array([0.0, 0.0, 1.0, 0.5, -1.5])
    expected = float(SPREAD.subs(alpha, sp.Rational(7, 10))) * 0.1 * float(v @ v)
    return abs(float(np.sum(weights * np.square(labels @ v))) / expected - 1)


CLAIM = Claim(
    title="Minority collapse comes earlier with mixup",
    statement=r"""Let the law be unchanged by permutations of the rare classes, each of probability $q$, and $d \ge
K-1$. At the global optimum the classifier rows of the rare classes coincide if and only if $r\,q \le
\lambda_W\lambda_H$, with $r = 1$ without mixing and $r = \frac{\alpha+1}{2\alpha+1} < 1$ for mixup. With $n$
frequent classes, $R$ times as probable as $n$ rare ones, that is from the ratio $R^* = r/(n\lambda_W\lambda_H) - 1$
on.""",
    assumptions=(
        r"Cross entropy without bias, or mean squared error; at least two rare classes; expectation convention.",
        r"The classes of a pair are drawn independently, $\lambda$ independently of them and symmetric about $1/2$.",
    ),
    implemented_by=("ufm.solve", "ufm.Mixup", "ufm.Unmixed"),
    tests=(
        "tests/derivations/test_derivations.py::test_claim_holds",
        "tests/solvers/test_methods.py::test_minority_rows_coincide_from_the_predicted_ratio_on",
    ),
    derive=derive,
    check=check,
)

if __name__ == "__main__":
    main(CLAIM)
