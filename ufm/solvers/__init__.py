"""Direct optimisation of the UFM: one file per family of methods, one `Solution`, one `solve`."""

from ufm.solvers.adam import Adam
from ufm.solvers.driver import METHODS, solve
from ufm.solvers.gradient_descent import GradientDescent
from ufm.solvers.lbfgs import LBFGS
from ufm.solvers.method import Method, Point
from ufm.solvers.momentum import Momentum
from ufm.solvers.newton import Newton
from ufm.solvers.solution import History, Message, Solution, load_solution

__all__ = [
    "METHODS",
    "Adam",
    "GradientDescent",
    "History",
    "LBFGS",
    "Message",
    "Method",
    "Momentum",
    "Newton",
    "Point",
    "Solution",
    "load_solution",
    "solve",
]
