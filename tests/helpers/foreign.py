"""Small models of the kinds that others have, with batches for each, for the tests of recording."""

import random
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

import ufm
from tests.helpers.networks import Foreign, batches


class Residual(nn.Module):
    """A small residual network with BatchNorm, whose activation overwrites its input."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, padding=1, bias=False)
        self.norm, self.relu = nn.BatchNorm2d(4), nn.ReLU(inplace=True)
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm(self.stem(x)))
        return self.fc((x + self.conv(x)).mean((2, 3)))


class Words(nn.Module):
    """A small transformer that takes named inputs and calls its head by keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(9, 8)
        self.score = nn.Linear(8, 4)
        self.blocks = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, verbose: bool = True) -> dict:
        assert not verbose
        mask = None if attention_mask is None else ~attention_mask
        return {"logits": self.score(input=self.blocks(self.embed(input_ids), src_key_padding_mask=mask)[:, 0])}


class Attention(nn.Module):
    """Attention between two inputs, and a recurrent layer: both give tuples."""

    def __init__(self) -> None:
        super().__init__()
        self.attend = nn.MultiheadAttention(6, 2, dropout=0.3, batch_first=True)
        self.recur = nn.GRU(6, 5, batch_first=True)
        self.head = nn.Linear(5, 4)

    def forward(self, query: Tensor, memory: Tensor) -> Tensor:
        out, _ = self.attend(query, memory, memory)
        return self.head(self.recur(out)[0].mean(1))


class Rude(Foreign):
    """A network whose forward pass changes whatever it can get hold of."""

    def __init__(self) -> None:
        super().__init__()
        for name in ("replaced", "resized", "nan", "dropped"):
            self.register_buffer(name, torch.full((3,), float("nan") if name == "nan" else 1.0))

    def forward(self, x: Tensor) -> Tensor:
        self.replaced = self.replaced + 1
        self.resized.data = torch.zeros(5)
        self.nan.zero_()
        self.dropped = None
        self.stem[0].bias = nn.Parameter(torch.zeros(8))
        self.register_buffer("new", torch.ones(1))
        self.embed.weight.data = 0.9 * self.embed.weight.data + random.random() + np.random.rand()  # noqa: NPY002
        self.out.weight.mul_(1.001)
        self.drop.train()
        self.embed.requires_grad_(False)
        return super().forward(x)


def made_of(inputs: list) -> list[ufm.MixedBatch]:
    return [ufm.MixedBatch(x, b.class_a, b.class_b, b.lam) for x, b in zip(inputs, batches(), strict=True)]


def images() -> list[ufm.MixedBatch]:
    return made_of(list(torch.randn(3, 7, 2, 5, 5, generator=torch.Generator().manual_seed(1))))


def words(kind: type[Mapping] = dict) -> list[ufm.MixedBatch]:
    ids = torch.randint(9, (3, 7, 5), generator=torch.Generator().manual_seed(1))
    return made_of([kind(verbose=False, input_ids=x, attention_mask=x < 8 if i else None) for i, x in enumerate(ids)])


def pairs() -> list[ufm.MixedBatch]:
    numbers = torch.Generator().manual_seed(1)
    return made_of([(torch.randn(7, 2, 6, generator=numbers), torch.randn(7, 3, 6, generator=numbers)) for _ in "abc"])


CASES = [
    (Residual, images, ["stem", "norm", "conv"]),
    (Words, words, ["embed", "blocks.layers.0", "blocks.layers.1.linear1"]),
    (Attention, pairs, ["attend", "recur"]),
    (Rude, batches, ["stem", "drop"]),
]


def head_of(model: nn.Module) -> str:
    return {Residual: "fc", Words: "score", Attention: "head"}.get(type(model), "out")
