"""Data sets: the formats people have, read into one manifest, and generated videos written in those formats."""
