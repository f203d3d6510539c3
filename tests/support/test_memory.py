import os

import pytest

import ufm


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch):
    """A machine of one megabyte."""
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 1000, "SC_PHYS_PAGES": 1000}.__getitem__)


@pytest.mark.usefixtures("memory")
@pytest.mark.parametrize("ways", [2, 3])
def test_targets_that_memory_does_not_hold_are_refused_by_name(ways: int):
    with pytest.raises(ValueError, match=r"^nodes: got 64 for 40 classes: \d+ targets, which take .* GB"):
        ufm.Mixup(40, ways=ways).targets(64)
    assert len(ufm.Mixup(5, ways=ways).targets(2)) > 5


@pytest.mark.usefixtures("memory")
def test_pairs_that_fit_are_not_written_out_where_their_labels_do_not():
    pairs = ufm.Mixup(40).pair_targets(4)
    with pytest.raises(ValueError, match=r"^targets: got 3160 labels of 40 classes, which take .* stream=True"):
        pairs.written_out()


@pytest.mark.parametrize("alpha", [1.0, float("inf")])
@pytest.mark.parametrize("ways", [2, 3])
def test_the_number_of_targets_is_foreseen_exactly(monkeypatch: pytest.MonkeyPatch, ways: int, alpha: float):
    asked = []
    monkeypatch.setattr("ufm.labels.laws.check_memory", lambda name, needed, what, instead: asked.append(what))
    targets = ufm.Mixup(5, alpha, ways).targets(3)
    assert asked[0].endswith(f"for 5 classes: {len(targets)} targets")


def test_nothing_is_refused_where_the_system_does_not_tell_its_memory(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delattr(os, "sysconf")
    assert len(ufm.Mixup(3).targets(2)) == 9
