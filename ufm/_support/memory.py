"""Refusal of arrays that this machine cannot hold, before any of them is made."""

import os


def check_memory(name: str, needed: int, what: str, instead: str) -> None:
    """Raise ValueError that names the argument if `needed` bytes are more than half of this machine's memory.

    Half, because what works on the arrays holds several of their size. Where the system does not tell its memory,
    nothing is refused.
    """
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return
    if needed > memory / 2:
        sizes = f"{needed / 1e9:.3g} GB of this machine's {memory / 1e9:.3g} GB"
        raise ValueError(f"{name}: got {what}, which take {sizes}, expected at most half of it; {instead}")
