"""Small helpers without knowledge of reranking: checks, optional imports, files, tables."""
