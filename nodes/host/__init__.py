"""The only place that asks the host for its server, folders, memory and progress."""
