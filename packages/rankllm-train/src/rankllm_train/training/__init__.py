"""Training loop: objectives, losses, evaluation and distribution."""
