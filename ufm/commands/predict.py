"""`ufm predict`."""

from dataclasses import asdict, dataclass, field

import tyro

from ufm.commands.model import Model
from ufm.commands.output import print_fields, print_json, print_table


@dataclass(frozen=True)
class Predict:
    """Theory: the joint optimum, and the optimal logits and features against lambda."""

    model: tyro.conf.OmitArgPrefixes[Model] = field(default_factory=Model)
    nodes: int | None = None
    """Gauss-Jacobi nodes in lambda, >= 1; None for the continuous law"""
    lam: tuple[float, ...] = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
    """weight of class a in the labels of the table, in [0, 1]; the other classes mixed share the rest equally"""
    json: bool = False
    """print JSON instead of a table"""

    def run(self) -> int:
        """Print the prediction."""
        import torch

        from ufm._support.arrays import to_tensor
        from ufm.losses import get_loss
        from ufm.theory.joint import joint_optimum

        lam = to_tensor("lam", self.lam, ndim=1)
        if not len(lam) or not bool(((lam >= 0) & (lam <= 1)).all()):
            raise ValueError(f"lam: got {self.lam}, expected at least one value, all in [0, 1]")
        model = self.model
        optimum = joint_optimum(model.law(), model.weight_decay, model.feature_decay, model.loss, nodes=self.nodes)
        K, loss = optimum.num_classes, get_loss(model.loss)
        others = model.ways - 1
        if others >= K:
            raise ValueError(f"ways: got {model.ways}, expected at most num_classes = {K} for the table of labels")
        levels = torch.stack([lam, (1 - lam) / others, torch.zeros_like(lam)], -1)
        counts = lam.new_tensor([1.0, others, K - 1 - others]).expand_as(levels)
        levels = (1 - model.smoothing) * levels + model.smoothing / K
        beta = float(optimum.beta)
        z = loss.etf_logits(levels, beta, counts) if beta else 0 * levels
        # The prediction is the label plus the residual, which is -z/beta; h = (K-1)/(K m^2) W^T z has this norm.
        p = levels - z / beta if beta else 0 * levels + 1 / K
        length = (counts * z.square()).sum(1).sqrt() * (
            ((K - 1) / K) ** 0.5 / float(optimum.multiplier) if beta else 0.0
        )
        rows = []
        for x, (za, zb, z0), (pa, pb, p0), norm in zip(*(t.tolist() for t in (lam, z, p, length)), strict=True):
            # Depth is that of the mixed classes' mean logit; without other classes there is none.
            depth, rest = ((za + others * zb) / (1 + others) - z0, p0) if 1 + others < K else (None, None)
            row = {
                "lam": x,
                "width": za - zb,
                "depth": depth,
                "p_a": pa,
                "p_b": pb,
                "p_0": rest,
                "feature_norm": norm,
            }
            rows.append(row)
        if self.json:
            print_json({"optimum": asdict(optimum), "mixed": rows})
        else:
            print_fields(asdict(optimum))
            print_table(rows)
        return 0
