"""One calibration in a graph: its pictures, its scores, its progress, and what pages are told of it."""
