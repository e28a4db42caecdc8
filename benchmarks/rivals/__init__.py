"""Simulators of other authors, in our own words, in the same environment: the rivals of Table 6."""
