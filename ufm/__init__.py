"""ufm: a theory toolkit for unconstrained features models.

Closed forms, certified direct solvers, and comparison with trained networks, for deep classifiers whose last-layer
features are free variables, trained with soft labels such as mixup's. Submodules load on first use: what is public, and
which module holds it, stands once, in `__init__.pyi`.
"""

import lazy_loader

from ufm._support import version

__version__ = version.VERSION
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
