"""File formats of model weights."""
