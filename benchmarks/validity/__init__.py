"""Whether the simulator ranks recommenders as people do: `python -m benchmarks validity`."""
