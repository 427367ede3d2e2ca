"""The training loop: objectives, losses, evaluation, distribution."""
