"""Equal labels, whose best features are equal, merged into one target."""

import dataclasses

import torch
from torch import Tensor

from ufm.labels.targets import PairTargets, Targets
from ufm.solvers.problem import UFM


def merge_equal_labels(problem: UFM) -> tuple[UFM, Tensor | None]:
    """Return the problem with equal labels merged, and the merged row of each target (None if none were equal)."""
    targets = problem.targets
    if isinstance(targets, PairTargets):
        return problem, None
    # Equal rows have equal products with any vector, so that sorting these brings them together.
    generator = torch.Generator().manual_seed(0)
    probe = torch.rand(targets.num_classes, generator=generator, dtype=torch.float64).to(targets.labels)
    key = (targets.labels * probe).sum(1)
    order = key.argsort(stable=True)
    labels = targets.labels[order]
    new = torch.cat([key.new_ones(1, dtype=torch.bool), (labels[1:] != labels[:-1]).any(1)])
    if bool(new.all()):
        return problem, None
    group = new.cumsum(0) - 1
    inverse = torch.empty_like(order)
    inverse[order] = group
    weights = targets.weights.new_zeros(int(group[-1]) + 1).index_add_(0, group, targets.weights[order])
    merged = Targets(labels[new], weights)
    return dataclasses.replace(problem, targets=merged), inverse
