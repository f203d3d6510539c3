"""More samples than memory holds: measures in one pass, in memory of a fixed size."""

import torch
from toy import K, mixed_loader, trained_model

import ufm

model = trained_model()
metric = ufm.CollapseMetric(K, model[-1].weight, model[-1].bias)
with torch.no_grad():
    for x, y in mixed_loader():
        metric.update(model[:-1](x), y)
print(metric.compute())
