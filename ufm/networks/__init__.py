"""Trained networks held against the theory: recording, measuring, comparing."""
