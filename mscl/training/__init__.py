"""Pretraining and finetuning; imports only torch, torchvision, numpy, pandas/pyarrow, pydantic and light helpers."""
