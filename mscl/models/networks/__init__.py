"""Backbones, the flow network and the neck."""
