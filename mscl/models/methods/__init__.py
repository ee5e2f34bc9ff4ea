"""One file per family of pretraining methods."""
