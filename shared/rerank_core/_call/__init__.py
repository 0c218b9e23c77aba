"""Inside one call: the background event loop, the checked request, asking a scorer, fanning out."""
