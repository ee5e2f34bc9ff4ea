"""The embedded data sets: generated videos in the formats of Kinetics and Something-Something v2."""
