"""The certificate of a network: how far its features can be from the optimal ones for its own classifier."""

import numpy as np
import torch
from mpmath import mp

import ufm
from derivations.claim import Check, Claim, Derivation, Step, main
from derivations.reference import Number, compared, cross_entropy, newton, numbers, precisely, prox, worst
from derivations.symbols import SMALL, K, lambda_H, lambda_W, m, sp, vector
from ufm.networks.network_certificate import distance_of_gap

t, s, span, mu = sp.symbols("t s D mu", positive=True)

# The share of the curvature at one end that is left, on average, on the way to the other; it weighs with 1 - t.
LEFT = (sp.exp(-s) + s - 1) / s**2


def derive() -> tuple[Step, ...]:
    d = Derivation()
    d.say(
        "For a fixed classifier every sample has an objective of its own, with $h^*$ its minimiser. Let $u = h - h^*$ "
        "and $\\varphi(t) = f(h^* + t u)$, so that $\\varphi'(0) = 0$.",
        r"f(h) = \ell(W h + b, y) + \tfrac{\lambda_H}{2}\lVert h\rVert^2, \qquad "
        r"f(h) - f(h^*) = \int_0^1 (1-t)\,\varphi''(t)\,dt",
    )
    curvature = sp.Symbol("c", positive=True)
    d.identity(
        "*Strong convexity.* The penalty alone gives $\\varphi'' \\ge \\lambda_H\\lVert u\\rVert^2$; the rest is "
        "$\\varphi_0''$, that of log-sum-exp.",
        sp.integrate((1 - t) * curvature, (t, 0, 1)),
        curvature / 2,
        shown=r"f(h) - f(h^*) \ge \tfrac{\lambda_H}{2}\lVert u\rVert^2 + \int_0^1 (1-t)\,\varphi_0''(t)\,dt",
    )
    _self_concordance(d)
    d.identity(
        "*Integrated.* So the curvature at $h^*$ counts with the factor below.",
        sp.simplify(sp.integrate((1 - t) * sp.exp(-s * t), (t, 0, 1))),
        LEFT,
        shown=r"\int_0^1 (1-t)\,e^{-s t}\,dt = \frac{e^{-s} + s - 1}{s^2}",
    )
    size = sp.Symbol("t", positive=True)
    bend = mu * (sp.exp(-span * size) + span * size - 1) / span**2
    d.identity(
        "*The bound.* The integrand falls with $s \\le D\\lVert u\\rVert$, $D = \\max_{k,l}\\lVert w_k - w_l\\rVert$, "
        "and $\\varphi_0''(0) \\ge \\mu\\lVert u\\rVert^2$ for $u$ in the row space of $W$, with $\\mu$ the least "
        "eigenvalue there. With $t = \\lVert u\\rVert$ the squares cancel.",
        mu * size**2 * LEFT.subs(s, span * size),
        bend,
        shown=r"\tfrac{\lambda_H}{2} t^2 + \mu\,\frac{e^{-D t} + D t - 1}{D^2} \le f(h) - f(h^*)",
    )
    d.identity(
        "The left side grows with $t$, so that each gap allows distances up to one $t$ only.",
        sp.diff(lambda_H / 2 * size**2 + bend, size),
        lambda_H * size + mu * (1 - sp.exp(-span * size)) / span,
        shown=r"\frac{d}{dt} = \lambda_H t + \mu\,\frac{1 - e^{-D t}}{D} > 0",
    )
    d.say(
        "*Outside the row space* log-sum-exp is flat and $h^*$ is zero: that part of $h$ is known, and has "
        "$\\tfrac{\\lambda_H}{2}\\lVert h_\\perp\\rVert^2$ of the gap.",
    )
    square = sp.Symbol("E", positive=True)
    d.identity(
        "*Which $\\lambda_H$.* At a stationary point $\\lambda_W W^\\top W = \\lambda_H\\,\\mathbb E[h h^\\top]$; the "
        "traces give it for any network. For a classifier of $K$ rows of length $m$:",
        sp.solve(sp.Eq(lambda_W * K * m**2, lambda_H * square), lambda_H)[0],
        lambda_W * K * m**2 / square,
        shown=r"\lambda_H = \lambda_W\,\frac{\lVert W\rVert_F^2}{\mathbb E\lVert h\rVert^2}",
    )
    return d.done()


def _self_concordance(d: Derivation) -> None:
    step = sp.Symbol("t", real=True)
    pairs = []
    for size in SMALL[:3]:
        # x stands for exp z, so that everything is rational.
        x, v = vector("x", size, positive=True), vector("v", size)
        along = sp.log(sum(a * sp.exp(step * b) for a, b in zip(x, v, strict=True)))
        p = x / sum(x)
        for order in (2, 3):
            central = sum(weight * (entry - p.dot(v)) ** order for weight, entry in zip(p, v, strict=True))
            pairs.append((sp.diff(along, step, order).subs(step, 0), central))
    d.identities(
        "*Self-concordance.* Along a line, with $v = W u$, the derivatives of log-sum-exp are central moments of $v$ "
        "under $p$.",
        pairs,
        shown=r"\varphi_0''(t) = \sum_k p_k (v_k - \bar v)^2, \qquad \varphi_0'''(t) = \sum_k p_k (v_k - \bar v)^3",
        cases="K = 2, 3, 4",
    )
    d.say(
        "No $v_k$ is further from the mean than the span $s = \\max_k v_k - \\min_k v_k$. So the third derivative is "
        "at most $s$ times the second one, and the curvature falls by no more than a factor.",
        r"|\varphi_0'''| \le s\,\varphi_0'' \quad\Longrightarrow\quad \varphi_0''(t) \ge e^{-s t}\,\varphi_0''(0)",
    )


@precisely
def check() -> tuple[Check, ...]:
    rng = np.random.default_rng(5)
    rows = []
    for gap, decay, mu_, width in ((0.002, 5e-4, 7e-4, 2.4), (1e-9, 1e-3, 1e-3, 1.7), (3.0, 0.1, 0.02, 5.0)):
        g, c = torch.tensor([[gap], [mu_]], dtype=torch.float64)
        found = distance_of_gap(g, decay, c, width)
        rows.append(compared("`distance_of_gap`", found.numpy(), [_root(gap, decay, mu_, width)], 1e-12))
    K_, beta, feature_decay = 4, 40.0, 0.03
    W = ufm.simplex_etf(K_, 5, generator=torch.Generator().manual_seed(0))
    size = float(W.square().sum() / (K_ - 1))
    decay = size / beta
    a, b = (torch.from_numpy(rng.integers(K_, size=8)) for _ in range(2))
    lam = torch.from_numpy(rng.integers(0, 9, 8) / 8)
    h = torch.from_numpy(rng.normal(size=(8, 5)))
    activations = ufm.Activations(h, h @ W.T, a, b, lam, W)
    found = ufm.certify_network(activations, feature_decay, decay)
    gap = _gap(activations, size, beta)
    excess = max(
        ufm.certify_network(ufm.Activations(scale * h, scale * h @ W.T, a, b, lam, W), 0.1, scale * decay).distance
        - ufm.certify_network(ufm.Activations(scale * h, scale * h @ W.T, a, b, lam, W), 0.1, scale * decay).bound
        for scale in (1e-3, 0.1, 1.0, 10.0)
    )
    return (
        worst(rows),
        compared("`inner_gap` of `certify_network` against the closed form", [found.inner_gap], [gap], 1e-13),
        Check("largest excess of the true distance over its bound (never positive)", excess, 0.0),
    )


def _root(gap: float, decay: float, mu_: float, width: float) -> Number:
    g, lam, c, w = (mp.mpf(x) for x in (gap, decay, mu_, width))

    return newton(
        lambda x: lam / 2 * x**2 + c * (mp.exp(-w * x) + w * x - 1) / w**2 - g,
        lambda x: lam * x + c * (1 - mp.exp(-w * x)) / w,
        mp.sqrt(2 * g / lam),
    )


def _gap(activations: ufm.Activations, size: float, beta: float) -> Number:
    """Return the mean of f(h) - f(h*) over the samples, with h* from the closed form."""
    w, total = mp.mpf(size), mp.mpf(0)
    b = mp.mpf(beta)
    for y_row, h_row in zip(activations.labels.numpy(), activations.features.numpy(), strict=True):
        y, h = numbers(y_row), numbers(h_row)
        rows = [numbers(row) for row in activations.classifier.numpy()]
        z = [mp.fdot(row, h) for row in rows]
        best = prox(y, b)[0]
        value = cross_entropy(z, y) + w / b / 2 * mp.fdot(h, h)
        optimum = cross_entropy(best, y) + w / b / 2 * mp.fdot(best, best) / w
        total += value - optimum
    return total / len(activations.labels)


CLAIM = Claim(
    title="The certificate of a network",
    statement=r"""For a fixed classifier $W$ and cross entropy, every feature $h$ with the objective $f(h)$ and the
optimal $h^*$ has, with $t$ the length of the part of $h - h^*$ in the row space of $W$,
$$\frac{\lambda_H}{2} t^2 + \mu\,\frac{e^{-D t} + D t - 1}{D^2} \le f(h) - f(h^*),$$
where $\mu$ is the least eigenvalue of $W^\top(\mathrm{diag}\,p^* - p^* p^{*\top})W$ there and
$D = \max_{k,l} \lVert w_k - w_l\rVert$. For any loss that is convex it holds with $\mu = 0$.""",
    assumptions=(
        "Any labels, any classifier and bias, any $\\lambda_H > 0$.",
        "The gap may be replaced by any upper bound on it, such as Fenchel's.",
    ),
    implemented_by=("ufm.certify_network",),
    tests=(
        "tests/derivations/test_derivations.py::test_claim_holds",
        "tests/networks/test_network_certificate.py::test_the_bounds_are_never_below_the_distance",
    ),
    derive=derive,
    check=check,
)

if __name__ == "__main__":
    main(CLAIM)
