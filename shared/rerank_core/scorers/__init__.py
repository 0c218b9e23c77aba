"""The scorers: one file a provider or kind of model, each loaded only when it is asked for."""
