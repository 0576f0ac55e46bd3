"""Coefficients and precision put into the host's own sampling."""
