"""When users leave: the fitted hazard, sessions replayed with it, and what planning with it earns."""
