"""What a run leaves behind: checkpoints, logs, model pages."""
