"""Direct optimisation of the UFM: one file per family of methods, one `Solution`, one `solve`."""

from ufm.solvers.driver import METHODS, History, Message, Solution, solve

__all__ = ["METHODS", "History", "Message", "Solution", "solve"]
