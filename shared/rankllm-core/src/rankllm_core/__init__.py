"""What rankllm-train and rankllm-infer share: prompt templates, data formats, TREC I/O, the card. No torch here."""

__version__ = "0.1.0"
