"""Arrays in a file, for the command line: then `ufm compare features.npz` and `ufm report features.npz`."""

import numpy as np
import torch
from toy import mixed_loader, trained_model

import ufm

model = trained_model()
x, y = next(iter(mixed_loader(repeats=1)))
with torch.no_grad():
    features = model[:-1](x)
np.savez(
    "features.npz", features=features, labels=y, classifier=model[-1].weight.detach(), bias=model[-1].bias.detach()
)

print(ufm.load("features.npz"))
