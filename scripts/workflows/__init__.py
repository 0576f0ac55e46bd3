"""The example workflows, made through the real page."""
