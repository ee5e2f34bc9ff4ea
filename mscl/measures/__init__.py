"""Measures of predictions and of features, on numpy arrays."""
