"""Table 6 of the paper: the simulator beside its rivals, in the same environment and on the same labels."""
