"""Late interaction: a document's token vectors, made once and kept in a file."""
