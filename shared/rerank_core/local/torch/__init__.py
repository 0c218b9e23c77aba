"""Cross-encoders of sentence-transformers on torch: ``cross-encoder:``."""
