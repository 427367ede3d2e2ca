"""Models with bidirectional attention: cross-encoders, encoder-decoders, bidirectional decoders."""
