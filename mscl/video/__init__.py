"""Read videos: frame extraction with ffmpeg; decord is for comparison only."""
