"""The one check of class_a, class_b and lam, which every room uses; cells, halves and R^2 by hand."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import ufm
from ufm._support.pairs import ClassPairs, bin_index, cell_means, halves, r_squared, read_lam, read_pairs

PAIRS = ClassPairs(torch.tensor([0, 2, 1, 1]), torch.tensor([2, 0, 1, 2]), torch.tensor([0.3, 0.8, 0.5, 1.0]))


@pytest.mark.parametrize("kind", ["list", "numpy", "tensor", "int32", "uint16", "reversed"])
def test_pairs_of_every_kind_are_read(kind: str):
    convert: Callable[[list], Any] = {
        "list": list,
        "numpy": np.array,
        "tensor": torch.tensor,
        "int32": lambda x: torch.tensor(x).int(),
        "uint16": lambda x: np.array(x, np.uint16),
        "reversed": lambda x: np.array(x[::-1])[::-1],
    }[kind]
    pairs = read_pairs(convert([0, 2, 1]), convert([1, 1, 1]), [0.25, 0.5, 1], 3, 3)
    assert pairs.class_a.tolist() == [0, 2, 1]
    assert pairs.class_b.tolist() == [1, 1, 1]
    assert pairs.lam.tolist() == [0.25, 0.5, 1]
    assert pairs.class_a.dtype == (torch.int32 if kind == "int32" else torch.int64)
    assert pairs.different().tolist() == [True, True, False]


def test_no_samples_are_read_too():
    assert len(read_pairs([], [], [], 0, 3)) == 0


A, B, LAM = np.array([0, 1, 2]), np.array([1, 1, 0]), np.array([0.5, 1.0, 0.0])
BAD: dict[str, tuple[str, Any, str]] = {
    "short": ("class_a", A[:2], r"class_a: got shape \(2,\), expected \(3,\)"),
    "scalar": ("class_b", 1, r"class_b: got shape \(\), expected \(3,\)"),
    "words": ("class_a", ["a", "b", "c"], "class_a: got list, expected an array of whole numbers"),
    "ragged": ("class_a", [[0], [1, 2], [3]], "class_a: got list, expected an array of whole numbers"),
    "real": ("class_a", A + 0.0, r"class_a: got torch.float64, expected whole numbers in 0\.\.2"),
    "truth": ("class_b", A > 0, "class_b: got dtype torch.bool, expected an array of whole numbers"),
    "large": ("class_b", A + 1, r"class_b: got torch.int64 from 1 to 3, expected whole numbers in 0\.\.2"),
    "negative": ("class_a", A - 1, r"class_a: got torch.int64 from -1 to 1, expected whole numbers in 0\.\.2"),
    "lam short": ("lam", LAM[:2], r"lam: got shape \(2,\), expected \(3,\)"),
    "lam square": ("lam", LAM[:, None], r"lam: got shape \(3, 1\), expected 1 dimensions"),
    "lam NaN": ("lam", LAM * np.nan, "lam: got NaN or infinite entries, expected finite numbers"),
    "lam large": ("lam", LAM + 0.5, "lam: got values outside the interval, expected 0 <= lam <= 1"),
    "lam negative": ("lam", LAM - 0.1, "lam: got values outside the interval, expected 0 <= lam <= 1"),
    "lam words": ("lam", ["x"] * 3, "lam: got list, expected an array of real numbers"),
}


Z = np.arange(9.0).reshape(3, 3)
DOORS: dict[str, Callable[..., object]] = {
    "read_pairs": lambda class_a, class_b, lam: read_pairs(class_a, class_b, lam, 3, 3),
    "Targets": lambda **columns: ufm.Targets(np.eye(3), **columns),
    "channel_curve": lambda **columns: ufm.channel_curve(Z, **columns),
    "confidence_curve": lambda **columns: ufm.confidence_curve(Z, **columns),
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("door", DOORS)
def test_the_same_mistake_has_the_same_message_everywhere(door: str, case: str):
    name, value, message = BAD[case]
    good = {"class_a": A, "class_b": B, "lam": LAM}
    DOORS[door](**good)
    with pytest.raises(ValueError, match=f"^{message}$"):
        DOORS[door](**good | {name: value})


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("case", [case for case in BAD if not case.startswith("lam s")])
def test_pair_targets_have_these_messages_too(case: str):
    # Their number is that of lam.
    name, value, message = BAD[case]
    given: dict[str, Any] = {"class_a": A, "class_b": B, "lam": LAM}
    with pytest.raises(ValueError, match=f"^{message}$"):
        ufm.PairTargets(3, **given | {name: value})


def test_lam_may_have_any_shape():
    assert read_lam(0.5).shape == ()
    assert read_lam(np.full((2, 3), 0.5)).shape == (2, 3)


def test_bins_are_half_open_but_the_last():
    assert bin_index(torch.tensor([0, 0.49, 0.5, 0.999, 1.0]), 2).tolist() == [0, 0, 1, 1, 1]


def test_cells_and_r2_by_hand():
    # Pair (0, 2) is number 2 of 3 x 3, with weights 0.3 and 1 - 0.8 of class 0; (1, 2) is number 5.
    assert PAIRS.cells(3, 4).tolist() == [2 * 4 + 1, 2 * 4 + 0, -1, 5 * 4 + 3]
    truth = torch.tensor([[0.0, 0], [2, 0], [4, 6]])
    assert r_squared(truth, truth + 1) == pytest.approx(1 - 6 / 32)
    means = cell_means(truth, torch.tensor([1, 0, 1]), torch.tensor([1, 2]))
    assert means.tolist() == [[2, 0], [2, 3]]


def test_cells_of_narrow_integers_do_not_overflow():
    narrow = ClassPairs(torch.tensor([99], dtype=torch.int8), torch.tensor([98], dtype=torch.int8), torch.tensor([0.5]))
    assert narrow.cells(100, 10).tolist() == [(98 * 100 + 99) * 10 + 5]


def test_ascending_pairs_weigh_the_smaller_class():
    ascending = PAIRS.ascending()
    assert ascending.class_a.tolist() == [0, 0, 1, 1]
    assert ascending.class_b.tolist() == [2, 2, 1, 2]
    torch.testing.assert_close(ascending.lam, torch.tensor([0.3, 0.2, 0.5, 1.0]))


def test_halves_share_no_sample_and_stay_the_same():
    pairs = ClassPairs(torch.arange(101) % 2, torch.zeros(101).long(), torch.ones(101))
    one, other = halves(pairs)
    assert (len(one), len(other)) == (50, 51)
    assert sorted(torch.cat([one, other]).tolist()) == list(range(101))
    assert all(torch.equal(x, y) for x, y in zip((one, other), halves(pairs), strict=True))
