"""Pretraining and finetuning; imports only torch, torchvision, numpy, OpenCV, pandas/pyarrow, pydantic and light helpers."""
