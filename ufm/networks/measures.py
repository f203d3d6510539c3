"""Further measures of a network: one number each, taken from its recorded activations.

A measure that is registered here is taken of every run that is compared from then on; it stands in the run's record and
in the report, and claims can be made of it.
"""

from collections.abc import Callable

from ufm._support.arrays import check_number
from ufm.networks.activations import Activations

Measure = Callable[[Activations], float]

MEASURES: dict[str, Measure] = {}


def register_measure(name: str, measure: Measure) -> None:
    """Have a measure taken of every run that is compared, for the rest of the process.

    Parameters
    ----------
    name : str
        What it is called in records and reports.
    measure : callable
        Takes `Activations` and returns a number.

    Raises
    ------
    ValueError
        If the name is taken, or `measure` cannot be called.
    """
    if not callable(measure):
        raise ValueError(f"measure: got {type(measure).__name__}, expected a function of Activations")
    if MEASURES.get(name, measure) is not measure:
        raise ValueError(f"name: got {name!r}, which is taken, expected none of {', '.join(MEASURES)}")
    MEASURES[name] = measure


def measures_of(activations: Activations) -> dict[str, float]:
    """Return every registered measure of a recording, by name.

    Raises
    ------
    ValueError
        If a measure returns something else than a finite number.
    """
    return {name: check_number(name, measure(activations)) for name, measure in MEASURES.items()}
