"""Scorers that ask a service."""
