"""Same-class mixtures: one scalar equation, and features that do not depend on lambda."""

import numpy as np
from mpmath import mp

import ufm
from derivations.claim import Check, Claim, Derivation, Step, main
from derivations.reference import EPS, Number, compared, evaluator, matrix, newton, precisely, worst
from derivations.symbols import K, beta, gram_factor, lam, lambda_H, m, sp

x = sp.Symbol("x", positive=True)
z_y, z_0 = sp.symbols("z_y z_0", real=True)
equation = x * (sp.exp(x) + K - 1) - K * beta


def derive() -> tuple[Step, ...]:
    d = Derivation()
    d.identity(
        "Mixing two samples of one class gives the one-hot label whatever the coefficient, so that nothing that "
        "follows can depend on $\\lambda$.",
        lam * sp.Symbol("e_y") + (1 - lam) * sp.Symbol("e_y"),
        sp.Symbol("e_y"),
        shown=r"\lambda e_y + (1 - \lambda) e_y = e_y",
    )
    d.say(
        "The other $K - 1$ labels are equal, so by uniqueness of the optimum their logits are equal as well: there "
        "are two levels, $z_y$ and $z_0$. Write $x = z_y - z_0$."
    )
    total = sp.exp(z_y) + (K - 1) * sp.exp(z_0)
    difference = beta * (1 - sp.exp(z_y) / total) - beta * (0 - sp.exp(z_0) / total)
    d.identity(
        "Subtracting the off-target component of $z = \\beta(y - p)$ from the target's leaves $x$ alone.",
        difference.subs(z_y, z_0 + x),
        K * beta / (sp.exp(x) + K - 1),
        shown=r"x = z_y - z_0 = \beta\,(1 - p_y + p_0) = \frac{K \beta}{e^x + K - 1}",
    )
    left = x * (sp.exp(x) + K - 1)
    d.identity(
        "The left side of this equation for $x$ vanishes at zero and has a positive slope,",
        sp.diff(left, x),
        sp.exp(x) * (1 + x) + K - 1,
        shown=r"\frac{\mathrm d}{\mathrm dx}\, x\,(e^x + K - 1) = e^x (1 + x) + K - 1 > 0,",
    )
    others = sp.Symbol("n", positive=True)
    d.fact(
        "and it grows without bound: exactly one positive root.",
        sp.And(sp.Eq(left.subs(x, 0), 0), sp.Eq(sp.limit(left.subs(K, 1 + others), x, sp.oo), sp.oo)),
        shown=r"\lim_{x \to \infty} x\,(e^x + K - 1) = \infty, \qquad x\,(e^x + K - 1) = K\beta",
    )
    levels = sp.solve([z_y + (K - 1) * z_0, z_y - z_0 - x], [z_y, z_0], dict=True)[0]
    d.identities(
        "Logits sum to zero, which fixes both levels.",
        [(levels[z_y], x * (1 - 1 / K)), (levels[z_0], -x / K)],
        shown=r"z_y = \frac{K-1}{K}\,x, \quad z_0 = -\frac{x}{K}, \qquad z = x\,\left(e_y - \tfrac1K \mathbf 1\right)",
    )
    w_y = sp.Symbol("w_y")
    # W^T z = z_y w_y + z_0 (sum of the other rows), and the rows sum to zero.
    pulled = levels[z_y] * w_y + levels[z_0] * (-w_y)
    d.identity(
        "The rows of $W$ sum to zero, so the feature is a multiple of the class's own row.",
        (K - 1) / (K * m**2) * pulled,
        (K - 1) * x / (K * m**2) * w_y,
        shown=r"h = \frac{K-1}{K m^2}\, W^\top z = \frac{(K-1)\,x}{K m^2}\, w_y, \qquad "
        r"\lVert h\rVert = \frac{(K-1)\,x}{K m}",
    )
    p_y = sp.exp(x) / (sp.exp(x) + K - 1)
    on_root = {lambda_H: gram_factor / (x * (sp.exp(x) + K - 1) / K)}
    d.identity(
        "The same multiple in terms of the probabilities, with $\\lambda_H$ eliminated by the equation for $x$.",
        ((1 - p_y + p_y * sp.exp(-x)) / lambda_H).subs(on_root),
        (K - 1) * x / (K * m**2),
        shown=r"\frac{1 - p_y + p_0}{\lambda_H} = \frac{(K-1)\,x}{K m^2}",
    )
    c = sp.Symbol("c", positive=True)
    d.identities(
        "Read the other way round, the equation gives the $\\beta$ at which the prediction of the class is a wanted "
        "confidence $c$.",
        [
            ((p_y / (1 - p_y)).subs(x, sp.log((K - 1) * c / (1 - c))), c / (1 - c)),
            (sp.solve(equation, beta)[0], x * (sp.exp(x) + K - 1) / K),
        ],
        shown=r"p_y = c \iff x = \log\frac{(K-1)\,c}{1-c}, \qquad \beta = \frac{x\,(e^x + K - 1)}{K}",
    )
    return d.done()


def gap(num_classes: int, b: Number) -> Number:
    """Return the root x of the derived equation, at the working precision."""
    residual, slope = (evaluator((x, K, beta), form) for form in (equation, sp.diff(equation, x)))
    # The left side is convex, and larger than the right at this start: Newton's iterates fall to the root.
    start = min(b, 1 + mp.log(1 + num_classes * b))
    return newton(lambda t: residual(t, num_classes, b), lambda t: slope(t, num_classes, b), start)


@precisely
def check() -> tuple[Check, ...]:
    differences, features = [], []
    for num_classes in (2, 3, 10, 100):
        for b in (2.0**-10, 1.0, 96.5, 1e4, 1e9):
            root = gap(num_classes, mp.mpf(b))
            label = np.zeros(num_classes)
            for coefficient in (0.25, 0.5, 0.8125):
                label[1] = coefficient + (1 - coefficient)
                logits = ufm.prox_logsumexp(label, b).logits
                differences.append(
                    compared("$z_y - z_0$ of `prox_logsumexp`", [logits[1] - logits[0]], [root], 16 * EPS)
                )
            norm = 0.75
            classifier = ufm.simplex_etf(num_classes, num_classes, norm).numpy()
            decay = norm**2 * num_classes / ((num_classes - 1) * b)
            found = ufm.fixed_classifier(classifier, label[None], decay).features
            multiple = (num_classes - 1) * root / (num_classes * mp.mpf(norm) ** 2)
            expected = [multiple * entry for entry in matrix(classifier)[1, :]]
            features.append(compared("features of `fixed_classifier`", found, expected, 64 * EPS))
    confidences = []
    for num_classes, c in ((2, 0.75), (10, 0.125), (100, 0.9990234375)):
        x_value = mp.log((num_classes - 1) * mp.mpf(c) / (1 - mp.mpf(c)))
        expected = x_value * (mp.exp(x_value) + num_classes - 1) / num_classes
        confidences.append(
            compared("`beta_for_confidence`", [ufm.beta_for_confidence(c, num_classes)], [expected], 16 * EPS)
        )
    return worst(differences), worst(features), worst(confidences)


CLAIM = Claim(
    title="Same-class mixtures",
    statement=r"""For a label $\lambda e_y + (1-\lambda) e_y$ the optimal logits for a fixed ETF are $z = x\,(e_y -
\mathbf 1/K)$, where $x = z_y - z_0 > 0$ is the only positive root of
$$x\,(e^x + K - 1) = K\beta,$$
and the optimal feature is $h = \frac{(K-1)\,x}{K m^2}\, w_y$. Neither depends on $\lambda$.""",
    assumptions=(r"A fixed simplex ETF, as in the first claim; $K \ge 2$, $\beta > 0$.",),
    implemented_by=("ufm.prox_logsumexp", "ufm.fixed_classifier", "ufm.beta_for_confidence"),
    tests=(
        "tests/derivations/test_derivations.py::test_claim_holds",
        "tests/theory/test_joint.py::test_same_class_logits_solve_their_equation",
        "tests/theory/test_joint.py::test_same_class_features_do_not_depend_on_lambda",
    ),
    derive=derive,
    check=check,
)

if __name__ == "__main__":
    main(CLAIM)
