"""MSCL (Motion Sensitive Contrastive Learning, ECCV 2022): from videos to the paper's tables."""

__version__ = "0.1.0"
