"""Measurements: how true the simulator is to people, and how fast it is."""
