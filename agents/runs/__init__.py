"""Training runs: the chunks of a training, metrics, checkpoints, memory estimates and the run folder."""
