"""Data sets: common formats read into one manifest, and generated videos written in those formats."""
