"""Sweeps: grids over the parameters of a UFM solve, resumable, on one machine or a Slurm cluster."""
