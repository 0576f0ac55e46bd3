"""Which coefficients to try next, where the trials are kept, and who works on them."""
