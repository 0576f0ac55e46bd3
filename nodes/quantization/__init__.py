"""A quantised MODEL: the host's structure with packed layers, under the host's weight protocol, and as a file."""
