"""The commands of ``rerank-bridge``, one module each."""
