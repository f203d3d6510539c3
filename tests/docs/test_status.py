"""What docs/status.md says in words of the networks is so."""

from pathlib import Path

import pytest

from experiments.committed import DATA, Committed, Nearness, architectures

THREE = tuple(DATA)[:3]


@pytest.fixture(scope="module")
def results() -> Committed:
    return Committed(Path(__file__).parents[2] / "experiments" / "results")


def test_within_a_data_set_the_better_fit_is_the_nearer_to_the_theory_but_for_cifar(results: Committed):
    for data in THREE:
        some = architectures(results, data)
        assert some == sorted(some, key=lambda one: -one.lead)
        assert some == sorted(some, key=lambda one: one.width[1])
        ratios = [one.beta for one in some if one.beta is not None]
        assert len(ratios) == 2
        assert ratios == sorted(ratios)
    cifar = architectures(results, "cifar")
    assert cifar == sorted(cifar, key=lambda one: one.lead)
    assert cifar not in (sorted(cifar, key=lambda one: sign * one.width[1]) for sign in (-1, 1))


def test_the_line_is_ahead_without_mixing_and_on_cifar(results: Committed):
    runs = results.runs
    assert all(Nearness.of(runs[f"{data}-none"], mode).lead < 0 for data in DATA for mode in ("eval", "train"))
    assert all(Nearness.of(runs[f"cifar-{kind}"]).lead < 0.005 for kind in ("mixup", "none", "mse", "etf"))


def test_beta_is_nearest_where_decay_is_strong_and_training_long(results: Committed):
    ratios = {name: beta for name, run in results.runs.items() if "-mixup" in name and (beta := Nearness.of(run).beta)}
    assert min(ratios, key=lambda name: ratios[name]) == "mnist-resnet-mixup"
    assert all(ratios["digits-mixup"] < ratios[f"digits-mixup-{change}"] / 3 for change in ("decay-5e-4", "epochs-100"))


def test_dimension_and_a_fixed_etf_change_little(results: Committed):
    own = Nearness.of(results.runs["digits-mixup"])
    for name in ("digits-mixup-dim-9", "digits-mixup-dim-128", "digits-etf"):
        assert all(abs(Nearness.of(results.runs[name]).width[i] - own.width[i]) < 0.03 for i in (0, 1))
