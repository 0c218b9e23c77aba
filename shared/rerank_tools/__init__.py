"""Tools around the core: batches, evaluation, corpus search, plots, a server, the command line."""
