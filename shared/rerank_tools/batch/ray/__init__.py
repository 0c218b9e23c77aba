"""Batches on Ray: the file job in several processes, and columns for Ray datasets."""
