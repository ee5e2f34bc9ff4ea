"""Read videos: frame extraction with ffmpeg, and random access with decord."""
