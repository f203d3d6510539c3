"""Closed forms, laws and solver under attack, and oracles for their answers."""

from typing import Any

import numpy as np
import scipy.special
from flint import arb

import ufm
from experiments.benchmarks.exactness import oracle
from experiments.fuzz.drawing import Arguments, Rng, Subject, close, labelled, labels, pairs, power, size, weights


def _prox(rng: Rng) -> Arguments:
    K = round(power(rng, 0.31, 2))
    rows = size(rng, 1, 4)
    return {"labels": labels(rng, rows, K), "beta": 10.0 ** rng.uniform(-8, 14, rows)}


def _prox_wrong(given: Arguments, found: Any) -> str | None:
    logits = np.asarray(found.logits)
    epsilon = np.finfo(logits.dtype).eps
    for y, b, z in zip(given["labels"], np.broadcast_to(given["beta"], len(logits)), logits, strict=True):
        levels, first, counts = np.unique(y, return_index=True, return_counts=True)
        exact, p = oracle(levels, counts, float(b))
        scale = max(abs(float(v)) for v in exact)
        steep = (float(b) * float(v) / (1 + float(b) * float(q)) for v, q in zip(levels, p, strict=True))
        off = [float(arb(float(z[i])) - e) for i, e in zip(first, exact, strict=True)]
        error = max(off) - min(off) if len(off) > 1 else 0.0
        if error > 64 * epsilon * max(scale, *steep):
            return f"logits off by {error:.2g} at beta {b:g}"
    return None


def _omega(rng: Rng) -> Arguments:
    return {
        "x": rng.uniform(-700, 700, 5)
        if rng.random() < 0.5
        else rng.choice([-1, 1], 5) * 10.0 ** rng.uniform(-12, 300, 5)
    }


def _omega_wrong(given: Arguments, found: Any) -> str | None:
    return close(found, scipy.special.wrightomega(given["x"]), 64 * np.finfo(np.asarray(found).dtype).eps, 1e-300)


def _fixed(rng: Rng) -> Arguments:
    K, d = size(rng, high=6), size(rng, 1, 8)
    given = {
        "W": rng.normal(size=(K, d)) * power(rng, -2, 2),
        "labels": labels(rng, size(rng, 1, 4), K),
        "feature_decay": power(rng, -6, 2),
    }
    return given | ({"bias": rng.normal(size=K)} if rng.random() < 0.3 else {})


def _fixed_wrong(given: Arguments, found: Any) -> str | None:
    """Check the gradient in h, computed anew from the features returned."""
    h, W = np.asarray(found.features, float), given["W"]
    z = h @ W.T + given.get("bias", 0.0)
    pull = (scipy.special.softmax(z, 1) - given["labels"]) @ W
    scale = np.abs(W).sum() * (1 + 1e-9 * np.abs(z).max()) + given["feature_decay"] * np.abs(h).max()
    single = np.asarray(found.features).dtype == np.float32
    # In float32 the rounding of z moves the softmax.
    room = 1e-3 * (1 + np.abs(z).max()) if single else 1e-9
    error = np.abs(pull + given["feature_decay"] * h).max()
    return f"gradient {error:.2g}" if error > room * scale else None


def _at_lam(rng: Rng) -> Arguments:
    return {"lam": rng.random(size(rng, 1, 5)), "beta": power(rng, -6, 8), "num_classes": size(rng, high=1000)}


def _entropy_wrong(given: Arguments, found: Any) -> str | None:
    K = given["num_classes"]
    for lam, value in zip(given["lam"], np.asarray(found), strict=True):
        y = np.sort([max(lam, 1 - lam), min(lam, 1 - lam), *[0.0] * min(K - 2, 1)])
        counts = np.array([K - 2, 1, 1]) if K > 2 else np.array([1, 1])
        _, p = oracle(y, counts, given["beta"])
        exact = -sum(float(n) * float(q * q.log()) for n, q in zip(counts, p, strict=True))
        if wrong := close(value, exact, 1e-9, 1e-12):
            return wrong
    return None


def _law(rng: Rng) -> ufm.Law:
    K = size(rng)
    kind = rng.integers(5)
    if kind == 0:
        return ufm.Unmixed(K)
    if kind == 1:
        return ufm.LabelSmoothing(K, float(rng.random()) * 0.9)
    if kind == 2:
        return ufm.CutMix(K, power(rng, -1, 1))
    return ufm.Mixup(K, power(rng, -1.5, 1.5), ways=int(kind) - 1)


def _joint(rng: Rng) -> Arguments:
    decays = {"weight_decay": power(rng, -6, 0), "feature_decay": power(rng, -6, 0)}
    return {"law": _law(rng), **decays, "nodes": size(rng, 1, 6)}


def _joint_wrong(given: Arguments, found: Any) -> str | None:
    """Evaluate F at the point returned, and check that no other size of the ETF is better."""
    targets = given["law"].targets(given["nodes"])
    y, weights = np.asarray(targets.labels), np.asarray(targets.weights)
    K, w, h = found.num_classes, given["weight_decay"], given["feature_decay"]
    etf = (np.eye(K) - 1 / K) * np.sqrt(K / (K - 1))

    def value(size: float) -> float:
        W = size * etf
        z = np.asarray(ufm.fixed_classifier(W, y, h).logits) if size > 1e-9 else np.zeros_like(y)
        features = z @ np.linalg.pinv(W).T if size > 1e-9 else np.zeros_like(y)
        loss = scipy.special.logsumexp(z, axis=1) - (y * z).sum(1)
        return float(weights @ (loss + h / 2 * (features**2).sum(1)) + w / 2 * (W**2).sum())

    if wrong := close(value(found.multiplier), found.objective, 1e-9):
        return wrong
    others = [value(found.multiplier * factor) for factor in (0.99, 1.01)] if found.multiplier > 1e-6 else [value(0.01)]
    return f"a better size than {found.multiplier:g}" if min(others) < found.objective * (1 - 1e-12) else None


def _trained(rng: Rng) -> Arguments:
    law, nodes, beta, weight_decay = _law(rng), size(rng), power(rng, -2, 4), power(rng, -5, -2)
    # The multiplier of the joint optimum that has this beta.
    feature_decay = ufm.penalty_product(law, beta, nodes=nodes) / weight_decay
    K = law.num_classes
    multiplier = np.sqrt(beta * (K - 1) * feature_decay / K)
    return {"law": law, "weight_decay": weight_decay, "multiplier": float(multiplier), "nodes": nodes}


def _beta_wrong(given: Arguments, found: Any) -> str | None:
    """Hold the inverse against the joint optimum at the penalties that it implies."""
    K, law = given["law"].num_classes, given["law"]
    feature_decay = given["multiplier"] ** 2 * K / ((K - 1) * found)
    optimum = ufm.joint_optimum(law, given["weight_decay"], feature_decay, nodes=given["nodes"])
    return close(optimum.multiplier, given["multiplier"], 1e-5)


def _solve(rng: Rng) -> Arguments:
    K, N, d = size(rng, high=4), size(rng, 1, 6), size(rng, 1, 5)
    problem = ufm.UFM(
        ufm.Targets(rng.dirichlet(np.ones(K), N), rng.dirichlet(np.ones(N))),
        d,
        power(rng, -4, -0.5),
        power(rng, -4, -0.5),
        loss=str(rng.choice(["cross_entropy", "mean_squared_error"])),
        bias_decay=None if rng.random() < 0.5 else float(rng.random()),
    )
    return {"problem": problem, "max_iter": size(rng, 0, 60), "seed": size(rng, 0, 99)}


def _certificate_wrong(given: Arguments, found: Any) -> str | None:
    found = getattr(found, "certificate", found)
    return None if found.lower_bound <= found.objective else f"bound {found.lower_bound} above {found.objective}"


def _certify(rng: Rng) -> Arguments:
    problem = _solve(rng)["problem"]
    K, d = problem.targets.num_classes, problem.dim
    size = power(rng, -2, 1)
    given = {"problem": problem, "classifier": rng.normal(size=(K, d)) * size}
    given["features"] = rng.normal(size=(len(problem.targets), d)) * size
    return given | ({"bias": rng.normal(size=K)} if problem.has_bias else {})


def _pair_targets(rng: Rng) -> Arguments:
    K, rows = size(rng), size(rng, 1, 30)
    return {"num_classes": K, **pairs(rng, rows, K), "weights": weights(rng, rows), "smoothing": rng.random() * 0.9}


def _targets(rng: Rng) -> Arguments:
    given = labelled(rng)
    return given | {"weights": weights(rng, len(given["labels"]))}


# Infinite where nothing is proved, and NaN at the origin.
_CERTIFIED = ("relative_gap", "gap", "lower_bound", "history", "feature_error")
THEORY: dict[str, Subject] = {
    "prox_logsumexp": Subject(ufm.prox_logsumexp, _prox, _prox_wrong, 3),
    "wright_omega": Subject(ufm.wright_omega, _omega, _omega_wrong, 3),
    "fixed_classifier": Subject(ufm.fixed_classifier, _fixed, _fixed_wrong, 3),
    "limit_shape": Subject(ufm.limit_shape, labelled),
    "channel": Subject(
        ufm.channel, lambda rng: _at_lam(rng) | {"lam": rng.uniform(0.01, 0.99, 3), "num_classes": size(rng, 3, 1000)}
    ),
    "confidence": Subject(ufm.confidence, _at_lam),
    "entropy": Subject(ufm.entropy, _at_lam, _entropy_wrong),
    "length_ratio": Subject(ufm.length_ratio, lambda rng: _at_lam(rng) | {"num_classes": size(rng, 3)}),
    "amplification": Subject(
        ufm.amplification, lambda rng: {"beta": power(rng, -3, 8), "num_classes": size(rng, 3, 1000)}
    ),
    "beta_for_confidence": Subject(
        ufm.beta_for_confidence, lambda rng: {"confidence": float(rng.uniform(0.6, 0.99)), "num_classes": size(rng)}
    ),
    "simplex_etf": Subject(
        ufm.simplex_etf,
        lambda rng: {"num_classes": size(rng), "dim": size(rng, 12, 20), "multiplier": power(rng, -9, 9)},
    ),
    "nearest_etf": Subject(
        ufm.nearest_etf,
        lambda rng: {"W": rng.normal(size=(size(rng), size(rng, 11, 14))) * power(rng, -3, 3)},
        weight=2,
    ),
    "classifier_plane": Subject(
        ufm.classifier_plane, lambda rng: {"rows": rng.normal(size=(3, size(rng))) * power(rng, -3, 3)}
    ),
    "Targets": Subject(ufm.Targets, _targets),
    "PairTargets": Subject(ufm.PairTargets, _pair_targets),
    "CustomLaw": Subject(lambda **x: ufm.CustomLaw(**x).targets(), _targets),
    "Mixup": Subject(
        lambda nodes, **x: ufm.Mixup(**x).targets(nodes),
        lambda rng: {"num_classes": size(rng), "alpha": power(rng, -3, 4), "ways": 2, "nodes": size(rng)},
    ),
    "CutMix": Subject(
        lambda nodes, **x: ufm.CutMix(**x).orbits(nodes),
        lambda rng: {"num_classes": size(rng), "alpha": power(rng, -3, 4), "nodes": size(rng)},
    ),
    "Unmixed": Subject(ufm.Unmixed, lambda rng: {"num_classes": size(rng)}),
    "LabelSmoothing": Subject(
        lambda **x: ufm.LabelSmoothing(**x).orbits(3),
        lambda rng: {"law": size(rng), "smoothing": float(rng.random()) * 0.9},
    ),
    "joint_optimum": Subject(ufm.joint_optimum, _joint, _joint_wrong, 0.5),
    "penalty_product": Subject(
        ufm.penalty_product, lambda rng: {"law": _law(rng), "beta": power(rng, -4, 6), "nodes": size(rng)}, weight=0.5
    ),
    "beta_from_classifier": Subject(
        ufm.beta_from_classifier,
        _trained,
        _beta_wrong,
        weight=0.5,
    ),
    "law_calibration": Subject(
        ufm.law_calibration, lambda rng: {"law": _law(rng), "beta": power(rng, -3, 6), "nodes": size(rng)}, weight=0.5
    ),
    "calibration_at_penalties": Subject(
        ufm.calibration_at_penalties,
        lambda rng: {"law": ufm.Unmixed(size(rng)), "weight_decay": 1e-3, "feature_decay": power(rng, -5, -2)},
        weight=0.2,
    ),
    "UFM": Subject(
        lambda labels, **x: ufm.UFM(ufm.Targets(labels), **x),
        lambda rng: {"labels": labels(rng, 3, 4), "dim": size(rng), "weight_decay": 0.1, "feature_decay": 0.1},
    ),
    "solve": Subject(ufm.solve, _solve, _certificate_wrong, 0.2, gaps=_CERTIFIED),
    "certify": Subject(ufm.certify, _certify, _certificate_wrong, 0.5, gaps=_CERTIFIED),
}
