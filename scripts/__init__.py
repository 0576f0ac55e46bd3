"""Development commands: environment, host, demo and tests. Standard library only; not part of the published pack."""
