"""How long a run will take, and how much memory: formulas whose constants are measured on the device."""
