"""The demo: a small text-to-picture model that we trained ourselves, so that everything runs at once and offline."""
