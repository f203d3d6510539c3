"""Hypothesis strategies for the objects of the theory."""

import numpy as np
from hypothesis import strategies as st

betas = st.floats(-6, 10).map(lambda exponent: 10.0**exponent)
decays = st.floats(-4, 0).map(lambda exponent: 10.0**exponent)
lams = st.one_of(st.floats(0, 1), st.floats(-12, -1).map(lambda exponent: 10.0**exponent))
classes = st.integers(3, 12)
losses = st.sampled_from(["cross_entropy", "mean_squared_error"])
seeds = st.integers(0, 2**31 - 1)


def logit_scale(labels: np.ndarray, beta: float, logits: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Return, per row, the larger of the largest logit and of what a relative change of the labels does to one.

    dz_k/dy_k is about beta/(1 + beta p_k), so an ulp of y_k moves z_k by an ulp of beta y_k/(1 + beta p_k): for labels
    close to uniform that is more than an ulp of the logit itself.
    """
    sensitivity = beta * labels / (1 + beta * probabilities)
    return np.maximum(np.abs(logits), sensitivity).max(-1, keepdims=True)


@st.composite
def labels(draw: st.DrawFn, num_classes: int, rows: int = 4) -> np.ndarray:
    """Return soft labels of very uneven entries, some of them exactly zero."""
    rng = np.random.default_rng(draw(seeds))
    y = 10.0 ** rng.uniform(-draw(st.floats(0, 15)), 0, (rows, num_classes))
    y[rng.random(y.shape) < draw(st.floats(0, 0.7))] = 0
    y[np.arange(rows), rng.integers(num_classes, size=rows)] = 1
    return y / y.sum(1, keepdims=True)
