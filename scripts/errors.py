"""The one base class of everything that can go wrong in the development commands."""


class DevError(Exception):
    """A failure that its message explains in full: what is wrong, and what to do. Shown without a traceback."""
