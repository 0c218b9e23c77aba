"""The BERT family's network, written for a runtime straight from a checkpoint."""
