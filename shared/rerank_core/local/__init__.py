"""Scorers whose model runs in this process."""
