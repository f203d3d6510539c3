"""The implicit scalar equation behind the paper's Theorem 3.1, in our notation: everything from one constant."""

from typing import Any

import numpy as np
from mpmath import mp

import ufm
from derivations.claim import Check, Claim, Derivation, Step, main
from derivations.reference import EPS, Number, compared, evaluator, matrix, newton, precisely, worst
from derivations.symbols import K, beta, beta_of_m, lam, lambda_H, m, omega, sp, tau

kappa, label = sp.symbols("kappa y_k", positive=True)
x = sp.Symbol("x", positive=True)


def omega_of(target: Any) -> Any:
    """Return omega(beta y + tau) with tau expressed by kappa, as a Lambert W: omega(t) = W0(e^t)."""
    return sp.LambertW(kappa * sp.exp(kappa + beta * target))


# The equation for the constant: zero at kappa = K_lambda.
EQUATION = omega_of(lam) + omega_of(1 - lam) + (K - 2) * kappa - beta


def derive() -> tuple[Step, ...]:
    d = Derivation()
    d.say(
        "An off-target class has label zero, so both forms of its logit in the fixed-ETF claim involve only $\\tau$. "
        "Name its negative; this is the constant that we identify with the paper's $K_\\lambda$.",
        r"\kappa := -z_0 = \omega(\tau) = \beta p_0 > 0",
    )
    d.identity(
        "The equation of the Wright omega function at a zero label expresses $\\tau$ by $\\kappa$, one to one.",
        sp.solve(sp.Eq(omega + sp.log(omega), tau), tau)[0].subs(omega, kappa),
        kappa + sp.log(kappa),
        shown=r"\tau = \kappa + \log\kappa",
    )
    w = omega_of(label)
    # Lambert's W is defined by W e^W = argument, which eliminates the exponential of W.
    defining = sp.log(kappa * sp.exp(kappa + beta * label) / w)
    d.identity(
        "For every other class $\\omega$ becomes a Lambert $W$ of an explicit argument: with "
        "$W_0(t) = t\\,e^{-W_0(t)}$, the expression below solves $\\omega + \\log\\omega = \\beta y_k + \\tau$.",
        sp.expand_log(defining, force=True) + sp.log(w),
        beta * label + kappa + sp.log(kappa),
        shown=r"\omega(\beta y_k + \tau) = W_0\left(\kappa\, e^{\kappa + \beta y_k}\right), \qquad "
        r"W_0 + \log W_0 = \beta y_k + \kappa + \log\kappa",
    )
    d.say(
        "The condition $\\sum_k \\omega_k = \\beta$, with one class at $\\lambda$, one at $1 - \\lambda$ and $K - 2$ "
        "at zero, is the implicit equation.",
        r"W_0\left(\kappa\, e^{\kappa + \beta\lambda}\right) + W_0\left(\kappa\, e^{\kappa + \beta(1-\lambda)}\right) "
        r"+ (K-2)\,\kappa = \beta",
    )
    d.fact(
        "Each $W_0$ is at least $W_0(\\kappa e^\\kappa) = \\kappa$, so that the left side is at least $K\\kappa$ and "
        "reaches $\\beta$ at or before $\\kappa = \\beta/K$; and it starts from zero.",
        sp.Eq(sp.limit(EQUATION.subs({kappa: x, beta: sp.Symbol("beta", positive=True)}) + beta, x, 0, "+"), 0),
        shown=r"\lim_{\kappa \to 0^+} \left[ W_0\left(\kappa\, e^{\kappa + \beta\lambda}\right) "
        r"+ W_0\left(\kappa\, e^{\kappa + \beta(1-\lambda)}\right) + (K-2)\,\kappa \right] = 0",
    )
    slope = sp.diff(EQUATION, kappa)
    expected = sum((1 + 1 / kappa) * omega_of(target) / (1 + omega_of(target)) for target in (lam, 1 - lam)) + (K - 2)
    d.identity(
        "It increases strictly in $\\kappa$ (for $K = 2$ too, through the bracket): exactly one root, in $(0, "
        "\\beta/K]$.",
        slope,
        expected,
        shown=r"\frac{\mathrm d}{\mathrm d\kappa}\left[\omega_a + \omega_b + (K-2)\,\kappa\right] = \left(1 + "
        r"\frac1\kappa\right) \left[\frac{\omega_a}{1 + \omega_a} + \frac{\omega_b}{1 + \omega_b}\right] + K - "
        r"2 > 0",
    )
    _features(d)
    return d.done()


def _features(d: Derivation) -> None:
    z_a, z_0 = beta * lam - omega_of(lam), -kappa
    d.identity(
        "The features follow from $\\kappa$ alone.",
        (K - 1) / (K * m**2) * (z_a - z_0).subs(beta, beta_of_m),
        ((lam - (omega_of(lam) - kappa) / beta) / lambda_H).subs(beta, beta_of_m),
        shown=r"h = c(\lambda)\, w_a + c(1 - \lambda)\, w_b, \qquad c(\lambda) = \frac{1}{\lambda_H}\left[\lambda - "
        r"\frac{W_0(\kappa\, e^{\kappa + \beta\lambda}) - \kappa}{\beta}\right]",
    )
    omega_y = beta - (K - 1) * kappa
    d.identity(
        "For a same-class label one class is at $1$ and $K - 1$ at zero, so $\\omega_y = \\beta - (K-1)\\kappa$; its "
        "logit difference is $K\\kappa$.",
        (beta - omega_y) - (-kappa),
        K * kappa,
        shown=r"x = z_y - z_0 = (\beta - \omega_y) + \kappa = K\kappa",
    )
    wright = sp.exp(omega_y + sp.log(omega_y) - beta - kappa - sp.log(kappa))
    ratio = sp.simplify(wright.subs(kappa, x / K)) * x * sp.exp(x)
    d.identity(
        "Inserting this into $\\omega_y + \\log\\omega_y = \\beta + \\kappa + \\log\\kappa$ recovers the equation of "
        "the same-class claim, $x\\,(e^x + K - 1) = K\\beta$: the two claims agree at $\\lambda = 1$.",
        sp.expand(ratio + (K - 1) * x),
        K * beta,
        shown=r"\frac{\omega_y}{\kappa} = e^{K\kappa} \iff K\beta - (K-1)\,x = x\,e^x",
    )


def constant(num_classes: int, coefficient: Number, b: Number) -> Number:
    """Return the root kappa of the derived equation, at the working precision."""
    arguments = (kappa, K, lam, beta)
    residual, slope = (evaluator(arguments, form) for form in (EQUATION, sp.diff(EQUATION, kappa) * kappa))
    # Newton's method in log kappa, where the equation is close to linear over many decades.
    root = newton(
        lambda t: residual(mp.exp(t), num_classes, coefficient, b),
        lambda t: slope(mp.exp(t), num_classes, coefficient, b),
        mp.log(b / num_classes),
    )
    return mp.exp(root)


@precisely
def check() -> tuple[Check, ...]:
    off_target, scalars, features = [], [], []
    for num_classes in (2, 3, 10):
        for b in (0.25, 96.5, 1e5):
            for coefficient in (0.0625, 0.5, 0.875):
                kappa_value = constant(num_classes, mp.mpf(coefficient), mp.mpf(b))
                label_value = [coefficient, 1 - coefficient] + [0.0] * (num_classes - 2)
                found = ufm.prox_logsumexp(np.array(label_value), b)
                unit = max(abs(float(z)) for z in found.logits)
                scalars.append(
                    compared(
                        "$\\tau$ of `prox_logsumexp`",
                        [found.tau],
                        [kappa_value + mp.log(kappa_value)],
                        16 * EPS,
                        scale=max(unit, 1),
                    )
                )
                if num_classes > 2:
                    off_target.append(
                        compared("$-z_0$ of `prox_logsumexp`", [-found.logits[2]], [kappa_value], 32 * EPS, scale=unit)
                    )
                features.append(_feature(num_classes, b, coefficient, kappa_value))
    return worst(off_target), worst(scalars), worst(features)


def _feature(num_classes: int, b: float, coefficient: float, kappa_value: Number) -> Check:
    classifier = ufm.simplex_etf(num_classes, num_classes, 1.0).numpy()
    decay = num_classes / ((num_classes - 1) * b)
    label_value = [coefficient, 1 - coefficient] + [0.0] * (num_classes - 2)
    found = ufm.fixed_classifier(classifier, np.array([label_value]), decay).features

    def along(weight: Number) -> Number:
        pulled = mp.lambertw(kappa_value * mp.exp(kappa_value + mp.mpf(b) * weight)).real - kappa_value
        return (weight - pulled / mp.mpf(b)) * mp.mpf(b) * (num_classes - 1) / num_classes

    w = matrix(classifier)
    first, second = along(mp.mpf(coefficient)), along(mp.mpf(1 - coefficient))
    expected = [first * u + second * v for u, v in zip(w[0, :], w[1, :], strict=True)]
    scale = max(abs(first), abs(second))
    return compared("features of `fixed_classifier`", found, expected, 64 * EPS, scale=scale)


CLAIM = Claim(
    title="One implicit constant per mixing coefficient",
    statement=r"""For a mixture of two classes and a fixed ETF, logits and features are explicit in one constant
$\kappa = -z_0$, the negative of the common off-target logit. It is the only root of
$$W_0\left(\kappa\, e^{\kappa + \beta\lambda}\right) + W_0\left(\kappa\, e^{\kappa + \beta(1-\lambda)}\right)
+ (K-2)\,\kappa = \beta$$
(Lambert $W$), lies in $(0, \beta/K]$, and gives $h = c(\lambda)\,w_a + c(1-\lambda)\,w_b$ with $c(\lambda) =
\frac{1}{\lambda_H}\left[\lambda - (W_0(\kappa e^{\kappa+\beta\lambda}) - \kappa)/\beta\right]$.

Theorem 3.1 of Fisher, Meng and Papyan (ICLR 2024) describes the optimal features through a constant $K_\lambda$ that
is defined by an implicit equation. This is an equation of that form in our notation. That their constant is our
off-target logit, up to scale, is our own identification; their constants are not quoted here.""",
    assumptions=(
        r"A fixed simplex ETF, as in the first claim; $K \ge 2$ (for $K = 2$ no class is off target and $\kappa$ is a "
        r"mere reparametrisation of $\tau$).",
    ),
    implemented_by=("ufm.prox_logsumexp", "ufm.fixed_classifier"),
    tests=("tests/derivations/test_derivations.py::test_claim_holds",),
    derive=derive,
    check=check,
)

if __name__ == "__main__":
    main(CLAIM)
