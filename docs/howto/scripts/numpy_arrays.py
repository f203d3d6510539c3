"""Features of JAX, Keras or anything else, as NumPy arrays; a kernel (d, K) is transposed."""

import numpy as np

import ufm

rng = np.random.default_rng(0)
labels = rng.dirichlet([0.3] * 4, 500)  # (N, K): soft labels of any kind
kernel, bias = rng.normal(size=(8, 4)), np.zeros(4)  # of the last Dense layer, (d, K) and (K,)
features = labels @ kernel.T + 0.1 * rng.normal(size=(500, 8))  # its input, (N, d)

comparison = ufm.compare(features=features, classifier=kernel.T, bias=bias, labels=labels)
print(comparison.score("closed form").r2, comparison.score("straight line").r2)
