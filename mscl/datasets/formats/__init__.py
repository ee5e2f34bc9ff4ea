"""One file per data-set format."""
