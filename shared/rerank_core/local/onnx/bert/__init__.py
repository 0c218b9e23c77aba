"""The BERT family's network, written for a runtime from a checkpoint."""
