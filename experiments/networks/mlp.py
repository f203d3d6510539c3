"""A perceptron with BatchNorm, wide enough to fit mixed labels of small image sets."""

from torch import nn

from experiments.networks.convolutional import Stages


def perceptron(inputs: int, width: int, depth: int, dim: int) -> Stages:
    """Return the stages of a multi-layer perceptron, and the feature dimension.

    Each hidden layer is a linear map without bias, BatchNorm and ReLU. The features are a linear map of the last one
    without bias, and BatchNorm, so that each coordinate may have any sign, as in the UFM.

    Parameters
    ----------
    inputs
        Numbers of an image, C H W.
    width
        Units of a hidden layer.
    depth
        Hidden layers.
    dim
        Dimension d of the features.

    Returns
    -------
    Stages
        "layer1" to "layer<depth>" and "features", and d.
    """
    stages: dict[str, nn.Module] = {}
    taken = inputs
    for i in range(depth):
        layer = [nn.Linear(taken, width, bias=False), nn.BatchNorm1d(width), nn.ReLU()]
        stages[f"layer{i + 1}"] = nn.Sequential(*([nn.Flatten()] if i == 0 else []), *layer)
        taken = width
    stages["features"] = nn.Sequential(nn.Linear(taken, dim, bias=False), nn.BatchNorm1d(dim))
    return stages, dim
