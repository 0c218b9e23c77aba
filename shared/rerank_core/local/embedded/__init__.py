"""The embedded scorer: late interaction on MiniLM."""
