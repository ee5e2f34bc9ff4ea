"""Linear evaluation: a linear classifier trained by SGD on augmented clips, on a frozen backbone (docs/evaluation.md).

snakemake --cores all results/demo/linear/motion_ssv2/r18/mscl/seed0/metrics.json
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from mscl.config.recipes import Finetune
from mscl.stages.jobs import LinearJob, RGBNet
from mscl.training.engine import DEFAULT, Machine
from mscl.training.finetune import Classifier, finetune


class LinearClassifier(Classifier):
    """A classifier whose backbone does not learn: x_BCTHW -> logits (B, classes).

    The backbone stays in eval mode, so that its batch norms neither use nor update the statistics of a batch; it computes without
    gradients, so that none of its activations is stored.
    """

    def __init__(self, net: RGBNet, recipe: Finetune, classes: int):
        super().__init__(net, recipe, classes)
        self.backbone.requires_grad_(False)

    def train(self, mode: bool = True) -> LinearClassifier:
        super().train(mode)
        self.backbone.eval()
        return self

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        with torch.no_grad():
            features_BD = self.backbone(x_BCTHW).float()
        return self.fc(self.dropout(features_BD))


def linear(job: LinearJob, out: Path, machine: Machine = DEFAULT) -> None:
    """Train the classifier on `job.train`, test it on `job.test`, and write the same files as finetuning to `out`.

    Without `job.weights` the backbone keeps its random initialisation. Raises ValueError as finetuning does.
    """
    finetune(job, out, machine, LinearClassifier)
