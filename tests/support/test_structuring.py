"""Values from JSON become dataclasses, or are refused on one short line."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from ufm._support.structuring import strict_converter, structure


@dataclass(frozen=True)
class Row:
    names: Sequence[str] = ()
    numbers: list[float] = field(default_factory=list)


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ({"names": "ab"}, "got 'ab', expected a list @ value.names"),
        ({"names": {"a": 1}}, "got {'a': 1}, expected a list @ value.names"),
        ({"numbers": "12"}, "got '12', expected a list @ value.numbers"),
        ({"numbers": ["x" * 10_000]}, "expected float"),
        ({"numbers": ["x"] * 5000}, "and 4997 more"),
        ({"y" * 10_000: 1}, "extra fields"),
    ],
)
def test_what_does_not_fit_is_refused_in_short(value: Any, why: str):
    with pytest.raises(ValueError, match=why) as caught:
        structure(strict_converter(), value, Row)
    assert len(str(caught.value)) < 2000


def test_lists_are_taken():
    assert structure(strict_converter(), {"names": ["a"], "numbers": [1]}, Row) == Row(("a",), [1.0])
