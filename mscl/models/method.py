"""What a pretraining method is to the training loop; one file in `mscl.models.methods` per family (docs/extending.md)."""

from __future__ import annotations

from torch import Tensor, nn

from mscl.models.moco import Encoder
from mscl.models.view import View

Terms = dict[str, Tensor]  # scalars by name


class Method(nn.Module):
    """A subclass is built as `Method(net, contrast, switches)` (`mscl.stages.jobs.Net`, `mscl.config.settings.Contrast`,
    `mscl.config.methods.Switches`), where it builds its networks. `encoder` is what is kept of the training.
    """

    encoder: Encoder

    def begin(self, progress: float, step: float) -> None:
        """Before each step: move the key encoders. `progress` of the training in [0, 1), of which the step is the share `step`."""

    def forward(self, *views: View) -> tuple[Terms, Terms]:
        """The loss terms of a part of the batch (their sum is minimised), and what else is to be watched, such as accuracies."""
        raise NotImplementedError

    def enqueue(self) -> None:
        """After each step, when the optimiser has moved: let the keys of all its parts into the queues, if there are any."""
