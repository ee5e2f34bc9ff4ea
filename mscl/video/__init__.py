"""Videos to frames: ffmpeg extraction, decord reading."""
