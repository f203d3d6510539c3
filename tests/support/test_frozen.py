from dataclasses import FrozenInstanceError, asdict, dataclass, fields, replace

import numpy as np
import pytest
import torch

import ufm
from ufm._support.frozen import converted


@dataclass(frozen=True)
class Row:
    name: str
    numbers: tuple[float, ...] = converted(tuple, default=())


def test_a_field_is_converted_however_it_is_set_and_stays_frozen():
    row = Row("a", [1.0, 2.0])  # pyright: ignore[reportArgumentType]
    assert row == Row("a", (1.0, 2.0))
    assert Row("a").numbers == ()
    assert replace(row, numbers=[3.0]).numbers == (3.0,)  # pyright: ignore[reportArgumentType]
    assert replace(row, name="b").numbers == (1.0, 2.0)
    assert asdict(row) == {"name": "a", "numbers": (1.0, 2.0)}
    assert [(field.name, field.default) for field in fields(row)][1] == ("numbers", ())
    with pytest.raises(FrozenInstanceError):
        row.numbers = ()  # pyright: ignore[reportAttributeAccessIssue]


def test_a_problem_keeps_its_classifier_as_a_tensor():
    problem = ufm.UFM(ufm.Targets(np.eye(3)), 2, 0.1, 0.1, classifier=np.ones((3, 2)))
    assert isinstance(problem.classifier, torch.Tensor)
    assert problem.classifier.dtype == torch.float64
    assert replace(problem, classifier=None).classifier is None
