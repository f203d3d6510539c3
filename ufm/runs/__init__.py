"""Runs: what was trained and measured, as one record; claims on it; closed form against direct solver."""
