"""Optical flow: estimation, storage, colour coding, motion scores (MDS)."""
