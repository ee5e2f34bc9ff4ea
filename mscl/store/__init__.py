"""The shard store, which frames and flow share."""
