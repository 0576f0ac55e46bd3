"""The command line: `python -m calibration`."""
