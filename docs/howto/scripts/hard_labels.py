"""A network without any mixing: plain neural collapse, in one line where features are at hand."""

import torch
from toy import points, trained_model, unmixed_loader

import ufm

model = trained_model(unmixed_loader())
print(ufm.compare(ufm.record(model, unmixed_loader())))  # NC1 to NC3, the classifier, what is proved

x, classes = points().tensors
with torch.no_grad():
    features = model[:-1](x)
collapse = ufm.neural_collapse(features, classes, model[-1].weight)
print(f"NC1 {collapse.nc1:.3f}, NC2 {collapse.nc2:.3f}, NC3 {collapse.nc3:.3f}")
