"""The shard store: the file format of extracted frames and of optical flow."""
