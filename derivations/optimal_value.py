"""The optimal value of the regularised objective is the mean entropy of the optimal predictions."""

from mpmath import mp

import ufm
from derivations.claim import Check, Claim, Derivation, Step, main
from derivations.reference import compared, joint_beta, mean_entropy, mixup_orbits, precisely, worst
from derivations.symbols import SMALL, SMALL_TEXT, K, beta, lambda_H, lambda_W, logsumexp, softmax, sp, vector

square = sp.Symbol("S", positive=True)  # E ||y - p||^2


def derive() -> tuple[Step, ...]:
    d = Derivation()
    pairs = []
    for size in SMALL:
        z, y = vector("z", size), vector("y", size)
        p = softmax(z)
        entropy = -sum(q * sp.expand_log(sp.log(q), force=True) for q in p)
        pairs.append((logsumexp(z) - y.dot(z), entropy + (p - y).dot(z)))
    d.identities(
        "Cross entropy is the entropy of the prediction plus a term that is linear in the residual.",
        pairs,
        shown=r"\mathrm{CE}(z, y) = \mathcal H(p) + (p - y)^\top z, \qquad \mathcal H(p) = -\sum_k p_k\log p_k",
        cases=SMALL_TEXT,
    )
    g = beta * lambda_H
    linear = -beta * square
    features = (lambda_H / 2) * (beta**2 * square) / g
    classifier = lambda_W / 2 * (K - 1) * g
    on_root = {lambda_W: square / ((K - 1) * lambda_H)}
    d.identities(
        "At the joint optimum $z = \\beta\\,(y - p)$. With $S = \\mathbb E\\lVert y - p\\rVert^2 = "
        "(K-1)\\lambda_W\\lambda_H$, $g = \\beta\\lambda_H$, $\\lVert h\\rVert^2 = \\lVert z\\rVert^2/g$ and $\\lVert "
        "W\\rVert_F^2 = (K-1) g$, the linear term and the two penalties are multiples of $\\beta S$:",
        [(linear, -beta * square), (features, beta * square / 2), (classifier.subs(on_root), beta * square / 2)],
        shown=r"\mathbb E (p-y)^\top z = -\beta S, \qquad \frac{\lambda_H}{2}\mathbb E\lVert h\rVert^2 = \frac{\beta "
        r"S}{2}, \qquad \frac{\lambda_W}{2}\lVert W\rVert_F^2 = \frac{\beta S}{2}",
    )
    d.identity(
        "They cancel.",
        linear + features + classifier.subs(on_root),
        sp.Integer(0),
        shown=r"F^* = \mathbb E\,\mathcal H(p) - \beta S + \frac{\beta S}{2} + \frac{\beta S}{2} = \mathbb "
        r"E\,\mathcal H(p)",
    )
    norm_w, norm_h = sp.symbols("A B", positive=True)
    balanced = sp.solve(sp.Eq(lambda_W * norm_w, lambda_H * norm_h), norm_h)[0]
    inner = -lambda_W * norm_w
    d.identity(
        "Neither symmetry nor the ETF is needed: at *any* stationary point of $F$, with $A = \\lVert W\\rVert_F^2$, "
        "$B = \\mathbb E\\lVert h\\rVert^2$, tracing stationarity in $W$ against $W$ and in $H$ against $H$ gives "
        "$\\mathbb E (p-y)^\\top z = -\\lambda_W A = -\\lambda_H B$, and the same terms cancel.",
        inner + lambda_W / 2 * norm_w + (lambda_H / 2 * norm_h).subs(norm_h, balanced),
        sp.Integer(0),
        shown=r"F = \mathbb E\,\mathcal H(p) - \lambda_W A + \frac{\lambda_W}{2} A + \frac{\lambda_H}{2} B = \mathbb "
        r"E\,\mathcal H(p)",
    )
    pairs = []
    for size in SMALL:
        uniform = softmax([sp.Integer(0)] * size)
        pairs.append((-sum(q * sp.log(q) for q in uniform), sp.log(size)))
    d.identities(
        "A collapsed optimum is one of them: its predictions are uniform.",
        pairs,
        shown=r"W = 0, \, H = 0: \qquad F = \log K = \mathcal H(\mathbf 1/K)",
        cases=SMALL_TEXT,
    )
    return d.done()


CASES = ((5, 1, 0.02, 0.02), (10, 1, 1e-3, 5e-4), (3, 2, 0.15, 0.3))


@precisely
def check() -> tuple[Check, ...]:
    values, objectives = [], []
    for num_classes, alpha, weight_decay, feature_decay in CASES:
        law = ufm.Mixup(num_classes, float(alpha))
        found = ufm.joint_optimum(law, weight_decay, feature_decay, nodes=9)
        orbits = mixup_orbits(num_classes, alpha, 9)
        root = joint_beta(orbits, mp.mpf(weight_decay) * mp.mpf(feature_decay), mp.mpf(found.beta))
        expected = mean_entropy(orbits, root)
        values.append(compared("`joint_optimum`, objective", [found.objective], [expected], 1e-14))
        targets = law.targets(9)
        problem = ufm.UFM(targets, num_classes, weight_decay, feature_decay)
        features = found.response(targets.labels).features
        objective = ufm.certify(problem, found.classifier(), features).objective
        objectives.append(
            compared(
                "$F$ evaluated at the optimum, term by term, against the mean entropy", [objective], [expected], 1e-14
            )
        )
    collapsed = ufm.joint_optimum(ufm.Mixup(7), 1.0, 1.0).objective
    return (
        worst(values),
        worst(objectives),
        compared("objective of a collapsed optimum", [collapsed], [mp.log(7)], 1e-15),
    )


CLAIM = Claim(
    title="The optimal value is the mean predictive entropy",
    statement=r"""At the joint optimum (at every stationary point, in fact) the loss and the two penalties add up to
$$F^* = \mathbb E\,\mathcal H(p) = -\mathbb E\sum_k p_k\log p_k,$$
the mean entropy of the optimal predictions.""",
    assumptions=(r"Cross entropy without bias, expectation convention; for the closed form, the joint optimum.",),
    implemented_by=("ufm.joint_optimum", "ufm.UFM"),
    tests=(
        "tests/derivations/test_derivations.py::test_claim_holds",
        "tests/theory/test_joint.py::test_joint_optimum_objective_is_the_ufm_objective",
    ),
    derive=derive,
    check=check,
)

if __name__ == "__main__":
    main(CLAIM)
