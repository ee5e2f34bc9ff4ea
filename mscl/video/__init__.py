"""Videos to frames: ffmpeg extraction, decord reading, the shard store."""
