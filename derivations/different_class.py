"""Different-class mixtures: features in the plane of the two classes' rows, with explicit coefficients."""

import numpy as np
from mpmath import mp

import ufm
from derivations.claim import Check, Claim, Derivation, Step, main
from derivations.reference import EPS, compared, matrix, precisely, prox, worst
from derivations.symbols import K, beta, beta_of_m, lam, lambda_H, m, sp

p_a, p_b, p_0 = sp.symbols("p_a p_b p_0", positive=True)
w_a, w_b = sp.symbols("w_a w_b")
coefficient_a = (lam - p_a + p_0) / lambda_H
coefficient_b = (1 - lam - p_b + p_0) / lambda_H


def derive() -> tuple[Step, ...]:
    d = Derivation()
    d.say(
        "Let $y = \\lambda e_a + (1 - \\lambda) e_b$ with $a \\ne b$. The Wright-omega form gives the $K - 2$ classes "
        "with label zero one common probability.",
        r"p_k = \tfrac1\beta\, \omega(\tau) =: p_0 \qquad (k \ne a, b)",
    )
    rest = -w_a - w_b  # the sum of the other K-2 rows, because all rows sum to zero
    d.identity(
        "The rows of $W$ sum to zero, so the other rows together contribute $-(w_a + w_b)$, and the feature "
        "$h = \\frac{1}{\\lambda_H} W^\\top(y - p)$ is a combination of two rows only.",
        ((lam - p_a) * w_a + (1 - lam - p_b) * w_b + (0 - p_0) * rest) / lambda_H,
        coefficient_a * w_a + coefficient_b * w_b,
        shown=r"h = \frac{1}{\lambda_H}\left[(\lambda - p_a + p_0)\, w_a + (1 - \lambda - p_b + p_0)\, w_b\right]",
    )
    z_a, z_0 = beta * (lam - p_a), beta * (0 - p_0)
    d.identity(
        "In terms of the logits each coefficient is the height of its class above the off-target level.",
        (K - 1) / (K * m**2) * (z_a - z_0).subs(beta, beta_of_m),
        coefficient_a,
        shown=r"\frac{\lambda - p_a + p_0}{\lambda_H} = \frac{K-1}{K m^2}\,(z_a - z_0), \qquad "
        r"\frac{1 - \lambda - p_b + p_0}{\lambda_H} = \frac{K-1}{K m^2}\,(z_b - z_0)",
    )
    d.say(
        "Both heights are positive, because $z_k = \\log\\omega(\\beta y_k + \\tau) - \\tau$ increases with $y_k$: "
        "the feature lies inside the wedge between $w_a$ and $w_b$.",
        r"z_a - z_0 = \log\frac{\omega(\beta\lambda + \tau)}{\omega(\tau)} > 0 \qquad (0 < \lambda < 1)",
    )
    inner = -(m**2) / (K - 1)
    d.identity(
        "For $K \\ge 3$ the two rows are linearly independent (their Gram determinant is positive), so the features "
        "of all $\\lambda$ lie in one plane and their coordinates in it are unique. For $K = 2$ the determinant is "
        "zero and the plane becomes the line of $w_a = -w_b$.",
        sp.Matrix([[m**2, inner], [inner, m**2]]).det(),
        m**4 * K * (K - 2) / (K - 1) ** 2,
        shown=r"\det\begin{pmatrix} m^2 & -\frac{m^2}{K-1} \\ -\frac{m^2}{K-1} & m^2 \end{pmatrix} "
        r"= \frac{m^4 K (K-2)}{(K-1)^2}",
    )
    swap = {lam: 1 - lam, p_a: p_b, p_b: p_a}
    d.identity(
        "Exchanging the classes together with $\\lambda \\leftrightarrow 1 - \\lambda$ exchanges the coefficients; at "
        "$\\lambda = 1/2$ they are equal and the feature lies on the bisector $w_a + w_b$.",
        coefficient_a.subs(swap, simultaneous=True),
        coefficient_b,
        shown=r"c_a(1 - \lambda) = c_b(\lambda)",
    )
    d.identity(
        "At $\\lambda = 1$ class $b$ is an off-target class and its coefficient vanishes: the same-class feature is "
        "the endpoint of the family.",
        coefficient_b.subs({lam: 1, p_b: p_0}),
        sp.Integer(0),
        shown=r"\lambda = 1: \qquad p_b = \tfrac1\beta\,\omega(\tau) = p_0, \qquad c_b = 0",
    )
    return d.done()


@precisely
def check() -> tuple[Check, ...]:
    coordinates, off_plane = [], []
    for num_classes in (3, 5, 10):
        norm = 1.25
        classifier = ufm.simplex_etf(num_classes, num_classes - 1, norm).numpy()
        w = matrix(classifier)
        for b in (0.5, 96.5, 1e5):
            # The float64 penalty is what ufm is given; beta follows from it exactly.
            decay = norm**2 * num_classes / ((num_classes - 1) * b)
            exact = mp.mpf(norm) ** 2 * num_classes / ((num_classes - 1) * mp.mpf(decay))
            for lam_value in (0.03125, 0.25, 0.5, 0.875):
                label = [0.0] * num_classes
                label[2], label[0] = lam_value, 1 - lam_value
                found = ufm.fixed_classifier(classifier, np.array([label]), decay).features
                z, _, q = prox([mp.mpf(lam_value), mp.mpf(1 - lam_value), mp.mpf(0)], exact, [1, 1, num_classes - 2])
                first = (lam_value - q[0] + q[2]) / mp.mpf(decay)
                second = (1 - lam_value - q[1] + q[2]) / mp.mpf(decay)
                height = (num_classes - 1) / (num_classes * mp.mpf(norm) ** 2) * (z[0] - z[2])
                off_plane.append(abs(height - first) / first)
                expected = [first * u + second * v for u, v in zip(w[2, :], w[0, :], strict=True)]
                coordinates.append(compared("features of `fixed_classifier`", found, expected, 64 * EPS))
    return (
        Check("both forms of the coefficient agree at fifty digits", float(max(off_plane)), 1e-35),
        worst(coordinates),
    )


CLAIM = Claim(
    title="Different-class mixtures lie in a plane",
    statement=r"""For $y = \lambda e_a + (1-\lambda) e_b$, $a \ne b$, the optimal feature for a fixed ETF is
$$h = \frac{1}{\lambda_H}\left[(\lambda - p_a + p_0)\, w_a + (1 - \lambda - p_b + p_0)\, w_b\right],$$
with $p_0$ the common probability of the other classes. It lies in $\operatorname{span}(w_a, w_b)$, in the wedge
between the two rows, and both coefficients depend on $\lambda$.""",
    assumptions=(r"A fixed simplex ETF, as in the first claim; $K \ge 3$ for the plane to be one; $0 < \lambda < 1$.",),
    implemented_by=("ufm.fixed_classifier",),
    tests=(
        "tests/derivations/test_derivations.py::test_claim_holds",
        "tests/theory/test_joint.py::test_features_lie_in_the_span_of_the_two_rows",
    ),
    derive=derive,
    check=check,
)

if __name__ == "__main__":
    main(CLAIM)
