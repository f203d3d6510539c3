"""Closed forms: optimal features, the joint optimum, the channel, calibration, and the simplex ETF."""
