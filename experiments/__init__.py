"""Data sets, networks, training, and the runs that hold theory, solver and network side by side."""
