"""One call: the background event loop, the checked request, calling the scorer, many queries at once."""
