"""What tries to break the pack, counted per kind: ``python -m benchmarks.attack [KIND …]``.

One module a kind, each with ``NAME`` and ``run() -> Tally``. A kind is added by its module's name in ``KINDS``.
"""
