"""The embedded data sets: generated videos in the formats that people have."""
