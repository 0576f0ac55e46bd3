"""The presets of this installation, as files, as cards and over HTTP."""
