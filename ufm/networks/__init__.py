"""Trained networks compared with the theory: recording, measuring, comparing."""
