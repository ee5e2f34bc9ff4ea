"""ρMoCo (Feichtenhofer et al., A Large-Scale Study on Unsupervised Spatiotemporal Representation Learning, CVPR 2021).

ρ clips of a video, RGB only: one is the query; each of the ρ-1 others is its positive in turn, against one queue that all keys
enter. With ρ = 2 this is `moco`. docs/rivals.md lists what is confirmed by which source.
"""

from __future__ import annotations

import torch

from mscl.config.methods import Switches
from mscl.config.settings import Contrast
from mscl.models.distributed import joined
from mscl.models.losses.info_nce import info_nce
from mscl.models.method import Method, Terms
from mscl.models.moco import Encoder, Keys, build_moco
from mscl.models.networks.build import build_backbone
from mscl.models.view import View
from mscl.stages.jobs import Net


class RhoMoCo(Method):
    """`forward(query, key, key2, …)` returns one term, the mean over the keys of InfoNCE, and its accuracy."""

    def __init__(self, net: Net, contrast: Contrast, switches: Switches):
        super().__init__()
        self.temperature = contrast.temperature
        self._waiting: list[list[Keys]] = []  # of each part of this step, the keys of each clip
        self.rgb = build_moco(build_backbone(net), contrast)

    @property
    def encoder(self) -> Encoder:
        return self.rgb.query

    def begin(self, progress: float, step: float) -> None:
        self.rgb.follow(progress)

    def forward(self, query: View, *keys: View) -> tuple[Terms, Terms]:
        sent = [self.rgb.send_keys(key.rgb_BCTHW) for key in keys]
        q = self.rgb.encode_query(query.rgb_BCTHW)[1]
        for clip in sent:
            clip.encode()
        negatives = self.rgb.queue.negatives()
        losses, accuracies = zip(*(info_nce(q, clip.own, negatives, self.temperature) for clip in sent))
        self._waiting.append(sent)
        return {"rgb": sum(losses) / len(keys)}, {"rgb": sum(accuracies) / len(keys)}

    @torch.no_grad()
    def enqueue(self) -> None:
        """Keys of all processes enter the queue, one clip of every video after the other: each is an enqueue step of its own."""
        for clip in zip(*self._waiting):
            self.rgb.queue.enqueue(joined([keys.of_all for keys in clip]))
        self._waiting.clear()
