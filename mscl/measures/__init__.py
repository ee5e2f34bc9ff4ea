"""Measures computed from predictions and from features, by numpy, pandas and scikit-learn."""
