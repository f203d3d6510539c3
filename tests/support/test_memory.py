import os

import pytest

import ufm


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch):
    """A machine of a megabyte."""
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 1000, "SC_PHYS_PAGES": 1000}.__getitem__)


@pytest.mark.usefixtures("memory")
@pytest.mark.parametrize("ways", [2, 3])
def test_targets_that_memory_does_not_hold_are_refused_by_name_with_what_to_do(ways: int):
    message = r"^num_classes, ways, nodes: got sizes that need .* GB, half the memory; use fewer nodes, or pair_targets"
    with pytest.raises(ValueError, match=message):
        ufm.Mixup(40, ways=ways).targets(64)
    assert len(ufm.Mixup(5, ways=ways).targets(2)) > 5


@pytest.mark.usefixtures("memory")
def test_pairs_that_fit_are_not_written_out_where_their_labels_do_not():
    pairs = ufm.Mixup(40).pair_targets(8)
    with pytest.raises(ValueError, match=r"^num_classes: got sizes that need"):
        pairs.written_out()


def test_little_is_refused_where_the_system_does_not_tell_its_memory(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delattr(os, "sysconf")
    assert len(ufm.Mixup(3).targets(2)) == 9
