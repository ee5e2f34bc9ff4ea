"""MSCL on one page (ECCV 2022; method.md §3-§5).

Shapes: B clips, T times, C channels, H W pixels, D embedding, K queue length.

An RGB encoder and a light flow encoder, each with a momentum copy and a queue. Clips of one video
attract each other at clip level within and across the two modalities (MoCo). LMCL contrasts, inside
one video, each time of the RGB clip with the flow of all its times and with rotated flow (FRA).
Switches (`mscl.config.methods.Switches`) turn the parts on and off; a named method is a set of switches.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mscl.config.methods import Switches
from mscl.config.settings import Contrast
from mscl.models.distributed import joined
from mscl.models.losses.info_nce import info_nce
from mscl.models.losses.lmcl import lmcl, local_vectors
from mscl.models.method import Method, Terms
from mscl.models.moco import Encoder, Keys, Queue, build_moco
from mscl.models.networks.backbone import Backbone
from mscl.models.networks.build import build_backbone
from mscl.models.networks.flow_resnet import FlowResNet
from mscl.models.networks.neck import Neck
from mscl.models.view import View
from mscl.stages.jobs import Net


class MSCL(Method):
    """The whole method. `forward(query, key)` returns the loss terms (all of weight 1) and accuracies."""

    def __init__(self, net: Net, contrast: Contrast, switches: Switches):
        super().__init__()
        self.switches, self.temperature = switches, contrast.temperature
        self.released = switches.fra == "released"
        self._waiting: list[list[Keys]] = []  # of each part of this step, the keys (RGB, flow) that enter the queues
        rgb = build_backbone(net)
        self.rgb = build_moco(rgb, contrast)
        if switches.flow:
            flow = FlowResNet(rgb.flow_blocks, net.flow_width)
            self.flow = build_moco(flow, contrast)
        if switches.lmcl:
            self.neck = Neck(_stage_channels(rgb, net), net.neck, net.neck_blocks, rgb.neck_stride)
            same = flow.feature_dim == net.neck
            self.to_neck = nn.Identity() if same else nn.Conv3d(flow.feature_dim, net.neck, 1)

    @property
    def encoder(self) -> Encoder:
        return self.rgb.query

    def begin(self, progress: float, step: float) -> None:
        """Move every key encoder, once per step."""
        self.rgb.follow(progress)
        if self.switches.flow and not self.released:
            self.flow.follow(progress)
        elif self.switches.flow:  # twice, and each time it counts the samples of a whole step
            self.flow.follow(min(1.0, 2 * progress))
            self.flow.follow(min(1.0, 2 * progress + step))

    def forward(self, query: View, key: View) -> tuple[Terms, Terms]:
        keys = {"rgb": self.rgb.send_keys(key.rgb_BCTHW)}
        if self.switches.flow:
            flow_q_img, rotated_q_img, flow_k_img, rotated_k_img = self._wire(query, key)
            keys["flow"] = self.flow.send_keys(flow_k_img)
        if self.switches.rotated:
            keys["rotated"] = self.flow.send_keys(rotated_k_img)
        rgb_maps, q = self.rgb.encode_query(query.rgb_BCTHW)
        for sent in keys.values():
            sent.encode()
        losses, accuracies, flow_q, rotated_q = {}, {}, None, None
        if self.switches.flow:
            flow_maps, flow_q = self.flow.encode_query(flow_q_img)
            if self.switches.rotated or self.switches.fra != "none":
                rotated_maps, rotated_q = self.flow.encode_query(rotated_q_img)
            if self.switches.lmcl:
                extra = rotated_maps[-1] if self.switches.fra != "none" else None
                losses["lmcl"], accuracies["lmcl"] = self._local(rgb_maps, flow_maps[-1], extra)
        pairs = self._pairs(q, flow_q, rotated_q, {kind: sent.own for kind, sent in keys.items()})
        negatives: dict[Queue, Tensor] = {}  # scaled once for all terms of a queue
        for name, (a, b, queue) in pairs.items():
            if queue not in negatives:
                negatives[queue] = queue.negatives()
            losses[name], accuracies[name] = info_nce(a, b, negatives[queue], self.temperature)
            if self.released and name == "flow":  # so that the terms that follow find their positive among the negatives, too
                queue.enqueue(keys["flow"].of_all)
                del negatives[queue]
        entering = ("rgb",) if self.released else ("rgb", "flow")
        self._waiting.append([keys[kind] for kind in entering if kind in keys])
        return losses, accuracies

    def _wire(self, query: View, key: View) -> tuple[Tensor | None, ...]:
        """Flow images (query, rotated query, key, rotated key).

        `fra: released` repeats the released code's wiring: the key clip's unrotated flow, with the query's crop and flip, stands
        where the rotated query flow belongs, and the rotated query flow, with the key's crop and flip, is MoCo's key.
        """
        if self.released:
            return query.flow_image(), key.crossed_image(), query.rotated_crossed_image(), key.rotated_image()
        rotated = self.switches.rotated or self.switches.fra != "none"
        rq, rk = (query.rotated_image(), key.rotated_image()) if rotated else (None, None)
        return query.flow_image(), rq, key.flow_image(), rk

    def _pairs(self, q: Tensor, flow_q: Tensor | None, rotated_q: Tensor | None, k: dict[str, Tensor]) -> dict:
        """The clip-level terms: name -> (query, key, queue of the key's modality)."""
        pairs = {"rgb": (q, k["rgb"], self.rgb.queue)}
        if "flow" in k:
            if self.switches.flow_contrast:
                pairs["flow"] = (flow_q, k["flow"], self.flow.queue)
            pairs["rgb_to_flow"] = (q, k["flow"], self.flow.queue)
            pairs["flow_to_rgb"] = (flow_q, k["rgb"], self.rgb.queue)
        if "rotated" in k:
            pairs["rotated"] = (rotated_q, k["rotated"], self.flow.queue)
            pairs["rgb_to_rotated"] = (q, k["rotated"], self.flow.queue)
            pairs["rotated_to_rgb"] = (rotated_q, k["rgb"], self.rgb.queue)
        return pairs

    def _local(self, rgb_maps: tuple[Tensor, ...], flow_map: Tensor, extra_map: Tensor | None) -> tuple[Tensor, Tensor]:
        u_BTD = local_vectors(self.neck(rgb_maps))
        v_BTD = local_vectors(self.to_neck(flow_map))
        extra_BTD = None if extra_map is None else local_vectors(self.to_neck(extra_map))
        return lmcl(u_BTD, v_BTD, extra_BTD, self.temperature)

    @torch.no_grad()
    def enqueue(self) -> None:
        """Keys of all processes enter their queues after every loss of the step has seen them; rotated keys never do."""
        for kind in zip(*self._waiting):
            kind[0].moco.queue.enqueue(joined([keys.of_all for keys in kind]))
        self._waiting.clear()


def _stage_channels(backbone: Backbone, net: Net) -> tuple[int, ...]:
    """Channels of the stages that the neck looks at; ValueError for a backbone that has none."""
    if not backbone.map_dims:
        raise ValueError(f"models.*.backbone: {net.backbone} has no stages for LMCL's neck; take methods without lmcl")
    return backbone.map_dims
