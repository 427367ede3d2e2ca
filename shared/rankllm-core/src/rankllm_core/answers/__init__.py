"""From what a model wrote to a permutation."""
