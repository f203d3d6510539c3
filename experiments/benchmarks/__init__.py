"""Measurements of the library: exactness against arbitrary precision, speed against named baselines."""
