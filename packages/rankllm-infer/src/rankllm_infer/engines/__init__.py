"""What runs a model; an engine knows no ranking."""
