"""Scores of pictures, one file per family; each loads its packages and weights when it is made, not before."""
