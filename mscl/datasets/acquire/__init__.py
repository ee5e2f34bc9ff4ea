"""Downloading and unpacking of data sets."""
