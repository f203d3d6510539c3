"""Numbers from outside: every public function refuses, by name, what is none or is too large."""

import contextlib
import typing
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

import ufm
from tests.helpers.public import CALLS, NUMBERS, arguments, public
from ufm._support.arrays import check_integer, check_number, check_size

# What other tests have: sequences of numbers, and what only the library itself calls.
ELSEWHERE = {
    "Activations": {"smoothing"},
    "Adam": {"betas"},
    "Monitor.step": {"values"},
    "channel_points": {"at"},
    "plotting.convergence_figure": {"histories", "others"},
    "plotting.planar_panel": {"classes"},
    "plotting.projected_panel": {"classes"},
}
METHODS = (".states", ".rate", "Law.orbits", "Law.targets")
FIXED_NORMS = {"feature_norm", "row_norm"}


def is_number(annotation: Any) -> bool:
    return annotation in (int, float) or any(map(is_number, typing.get_args(annotation)))


def test_every_public_number_is_among_the_calls():
    for name, function in public():
        given = {key for calls in (CALLS, NUMBERS) for key in calls.get(name, (None, {}))[1]}
        given |= ELSEWHERE.get(name, set()) | (FIXED_NORMS if name == "UFM" else set()) | {"priors", "level"}
        expected = arguments(function, is_number)
        if not name.endswith(METHODS):
            assert expected <= given, f"{name} takes the numbers {expected - given}, which no call here has"


@pytest.mark.parametrize("name", NUMBERS)
def test_the_calls_are_good(name: str):
    function, good = NUMBERS[name]
    function(**good)


ANY: dict[str, Any] = {
    "word": "1",
    "bytes": b"1",
    "truth": True,
    "NaN": float("nan"),
    "infinite": float("inf"),
    "large": 10**400,
    "larger than can be printed": 10**5000,
    "below": -(10**400),
    "complex": 1j,
    "decimal": Decimal(1),
    "array": np.ones(2),
    "masked": np.ma.masked,
    "meta": torch.ones((), device="meta"),
    "sparse": torch.ones(()).to_sparse(),
    "an object": object(),
}
WHOLE = {"whole as real": 1.0, "fraction": Fraction(1, 2), "much": 10**25}
# Infinity is a law of one node, and lam an array.
ALLOWED = {("Mixup", "alpha"): ("infinite",), ("CutMix", "alpha"): ("infinite",)}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("name", "argument"),
    [
        (name, key)
        for name, (_, good) in NUMBERS.items()
        for key, value in good.items()
        if isinstance(value, int | float) and (key, value) != ("lam", 0.75)
    ],
)
def test_what_is_no_number_is_refused_by_name(name: str, argument: str):
    function, good = NUMBERS[name]
    if argument == "nodes" and name.split(".", maxsplit=1)[0] in ("Unmixed", "CustomLaw"):
        return  # which it has no effect on
    wrong = ANY | (WHOLE if isinstance(good[argument], int) else {})
    # The number of classes, in the place of a law.
    kinds, named = ((TypeError, ValueError), "(law|num_classes)") if argument == "law" else (ValueError, argument)
    for case, value in wrong.items():
        if case in ALLOWED.get((name, argument), ()) or (argument, case) == ("decay_times", "infinite"):
            continue
        with pytest.raises(kinds, match=rf"^[\w, ]*\b{named}\b") as raised:
            function(**good | {argument: value})
        assert "\n" not in str(raised.value), case
        assert len(str(raised.value)) < 400


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("name", "argument"),
    [(name, key) for name, (_, good) in NUMBERS.items() for key in ("law", "problem", "evaluated_on") if key in good],
)
def test_a_wrong_law_or_problem_is_a_type_error_that_names_it(name: str, argument: str):
    function, good = NUMBERS[name]
    for value in ("Mixup(3)", {"num_classes": 3}, ufm.Mixup, object(), np.eye(3)):
        with pytest.raises(TypeError, match=rf"^(law|{argument}): got \w+, expected a "):
            function(**good | {argument: value})


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: ufm.simplex_etf(10, 10**12), "num_classes, dim"),
        (lambda: ufm.simplex_etf(10**7), "num_classes, dim"),
        (lambda: ufm.UFM(ufm.Unmixed(3).targets(), 10**12, 0.1, 0.1), "dim"),
        (lambda: ufm.Mixup(10**6).targets(), "num_classes, ways, nodes"),
        (lambda: ufm.Mixup(10**9).pair_targets(), "num_classes, nodes"),
        (lambda: ufm.Mixup(100, ways=6).orbits(), "nodes, ways"),
        (lambda: ufm.Mixup(2**53, ways=32).targets(), "num_classes, ways, nodes"),
        (lambda: ufm.Unmixed(10**7).targets(), "num_classes"),
        (lambda: ufm.CollapseMetric(10**15), "num_classes"),
        (lambda: ufm.Mixup(3, ways=33), "ways"),
        (lambda: ufm.Mixup(3).targets(10**5), "nodes"),
        (lambda: ufm.law_calibration(ufm.Mixup(3), 5.0, bins=10**12), "bins"),
        (lambda: ufm.PairTargets(10**15, *np.zeros((2, 3), int), np.ones(3)).labels, "num_classes"),
    ],
)
def test_sizes_beyond_memory_are_refused_by_name(call: Callable[[], Any], named: str):
    with pytest.raises(ValueError, match=f"^{named}: got"):
        call()


def test_numbers_of_every_kind():
    for value in (2, 2.0, np.float32(2), np.int8(2), Fraction(2), np.array(2), torch.tensor(2.0, requires_grad=True)):
        assert check_number("x", value) == 2
        assert type(check_number("x", value)) is float
    for whole in (2, np.uint64(2), np.int8(2)):
        assert type(check_integer("x", whole, minimum=0)) is int
    assert check_integer("x", 2**53, minimum=0) == 2**53
    with pytest.raises(ValueError, match=f"^x: got {2**53 + 1}, expected a whole number >= 0 and <= {2**53}$"):
        check_integer("x", 2**53 + 1, minimum=0)


def test_sizes_without_an_account_of_memory(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("os.sysconf", lambda _: 1024)
    check_size("x", 1024 * 64)
    with pytest.raises(ValueError, match=r"^x: got sizes that need 0.000532 GB, expected at most 0.000524 GB"):
        check_size("x", 1024 * 65)
    monkeypatch.delattr("os.sysconf")
    with contextlib.suppress(ValueError):
        check_size("x", 10**12)
        pytest.fail("eight terabytes were accepted")
