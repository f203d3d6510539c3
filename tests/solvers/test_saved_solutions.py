"""A saved solution is read back whole, or refused on one line that names the file."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ufm
from ufm._support.tensorfile import map_tensors, write_tensors

PROBLEM = ufm.UFM(ufm.Mixup(3).targets(2), 4, 0.01, 0.01, bias_decay=0.1)
SOLUTION = ufm.solve(PROBLEM, record=1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    SOLUTION.save(tmp_path / "solution.safetensors")
    return tmp_path / "solution.safetensors"


def test_it_is_read_back_as_it_was(path: Path):
    found = ufm.load_solution(path, PROBLEM)
    assert torch.equal(found.classifier, SOLUTION.classifier)
    assert torch.equal(found.features, SOLUTION.features)
    assert found.certificate == SOLUTION.certificate
    assert (found.message, found.iterations, found.method) == (SOLUTION.message, SOLUTION.iterations, "newton")
    np.testing.assert_array_equal(found.history.width, SOLUTION.history.width)
    # The arrays are its own: what happens to the file later does not reach them.
    path.write_bytes(bytes(path.stat().st_size))
    assert torch.equal(found.classifier, SOLUTION.classifier)


def _without(name: str) -> Callable[[dict, dict], Any]:
    return lambda facts, arrays: (facts.pop(name, None), arrays.pop(name, None))


def _facts(**changes: Any) -> Callable[[dict, dict], Any]:
    return lambda facts, arrays: facts.update(changes)


def _array(name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[dict, dict], Any]:
    return lambda facts, arrays: arrays.update({name: change(arrays[name])})


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        *((_without(name), name) for name in ("objective", "converged", "message", "certificate", "problem", "method")),
        *((_without(name), name) for name in ("history.nc1", "history.lam", "history.iteration")),
        (_without("format"), "no saved solution"),
        (_without("classifier"), "another problem"),
        (_facts(message="UNKNOWN"), "message is 'UNKNOWN'"),
        (_facts(objective="1"), "objective"),
        (_facts(iterations=1.5), "iterations"),
        (_facts(converged=1), "converged"),
        (_facts(certificate=[]), "certificate"),
        (_facts(certificate={"objective": 1}), "certificate"),
        (_facts(problem=[]), "problem"),
        (_facts(problem={}), "another problem"),
        (_facts(extra=1), "extra"),
        (_array("classifier", lambda x: x * torch.nan), "classifier that are not finite"),
        (_array("features", lambda x: x / 0), "features that are not finite"),
        (_array("classifier", lambda x: x[:2]), r"classifier of shape \(2, 4\)"),
        (_array("features", lambda x: x[:, :3]), "features of shape"),
        (_array("bias", lambda x: x[None]), "bias of shape"),
        (_array("classifier", lambda x: x.long()), "torch.int64"),
        (_array("history.gap", lambda x: x[:0]), "history.gap"),
        (_array("history.width", lambda x: x[:, :1]), "history.width"),
        (_array("history.iteration", lambda x: x[0]), "history.iteration"),
        (_array("history.objective", lambda x: x.long()), "history.objective"),
    ],
)
def test_damage_is_named(path: Path, damage: Callable[[dict, dict], Any], why: str):
    arrays, metadata = map_tensors(path)
    facts = json.loads(metadata["solution"])
    damage(facts, arrays)
    other = path.with_name("damaged.safetensors")
    write_tensors(other, arrays, {"solution": json.dumps(facts)})
    with pytest.raises(ValueError, match=f"^path: got '{other}'.*{why}") as caught:
        ufm.load_solution(other, PROBLEM)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["[]", "{", "3", "null", "[" * 100_000, '"x"', ""])
def test_damaged_metadata_is_named(path: Path, text: str):
    arrays, _ = map_tensors(path)
    other = path.with_name("damaged.safetensors")
    write_tensors(other, arrays, {"solution": text})
    with pytest.raises(ValueError, match=f"^path: got '{other}', which is no saved solution"):
        ufm.load_solution(other, PROBLEM)
