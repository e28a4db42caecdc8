"""Training runs: config, run folder, training in chunks, metrics, checkpoints and memory estimates."""
