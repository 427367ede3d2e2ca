"""Models whose tokens see each other both ways: cross-encoders, encoder-decoders, bidirectional decoders."""
