"""What a recipe (`mscl.config.recipes.Optim`) says: the rate of a step, the optimiser, the batches of an epoch."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import nn

from mscl.config.recipes import Optim


def learning_rate(recipe: Optim, step: int, steps_per_epoch: int) -> float:
    """Cosine to 0 over all steps, or x 0.1 at each epoch of `recipe.steps`; scaled linearly where `base_batch` is given.

    Over the first `recipe.warmup` epochs it rises linearly to that: at step s of w by the factor (s + 1) / (w + 1).
    """
    lr = recipe.lr * (recipe.batch / recipe.base_batch if recipe.base_batch else 1)
    if step < (rising := recipe.warmup * steps_per_epoch):
        lr *= (step + 1) / (rising + 1)
    if recipe.steps:
        return lr * 0.1 ** sum(step // steps_per_epoch >= e for e in recipe.steps)
    return lr * 0.5 * (1 + math.cos(math.pi * step / (steps_per_epoch * recipe.epochs)))


def make_optimizer(model: nn.Module, recipe: Optim) -> torch.optim.Optimizer:
    """The optimiser of a recipe. On a GPU it is fused, and does not move where its `found_inf` is 1 (`begin_step`).

    On a CPU it moves all parameters in one call of each operation: the same bits as one by one, in about half the time.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    shared = {"lr": recipe.lr, "weight_decay": recipe.weight_decay, "fused" if trained[0].is_cuda else "foreach": True}
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(trained, betas=(recipe.momentum, 0.999), **shared)
    return torch.optim.SGD(trained, momentum=recipe.momentum, **shared)


def load_moments(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load an optimiser's state; raise ValueError when it is another optimiser's, or holds moments of another shape."""
    have, want = ({key for group in s["param_groups"] for key in group} for s in (state, optimizer.state_dict()))
    if have != want:
        raise ValueError(f"the optimiser has other settings: {', '.join(sorted(have ^ want))}")
    optimizer.load_state_dict(state)
    for parameter, moments in optimizer.state.items():
        for name, value in moments.items():
            if value is not None and value.dim() and value.shape != parameter.shape:
                raise ValueError(f"{name} is {tuple(value.shape)} where a weight is {tuple(parameter.shape)}")


def epoch_batches(length: int, batch: int, seed: int, epoch: int) -> list[list[int]]:
    """Whole batches of a permutation; a data set smaller than one batch is one batch."""
    order = np.random.default_rng([seed, epoch]).permutation(length).tolist()
    if length < batch:
        return [order]
    return [order[i : i + batch] for i in range(0, length - batch + 1, batch)]
