"""Files that a training run writes: checkpoints, logs and model pages."""
