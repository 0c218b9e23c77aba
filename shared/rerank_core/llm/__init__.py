"""Judging by language models: the question, its answer, windows of documents, and the scorer over any model."""
