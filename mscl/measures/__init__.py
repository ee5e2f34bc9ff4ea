"""Measures computed from predictions and from features, as plain numpy functions."""
