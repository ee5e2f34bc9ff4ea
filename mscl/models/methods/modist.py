"""MoDist (Xiao, Tighe, Modolo, MoDist: Motion Distillation for Self-supervised Video Representation Learning, arXiv 2106.09703).

An RGB pathway and a motion pathway that looks at flow edge maps, each with a momentum copy and a queue. Clips of one video attract
each other within RGB and across the two pathways; with `flow_contrast` also within motion. docs/rivals.md says what is confirmed
by which source.
"""

from __future__ import annotations

from torch import Tensor

from mscl.models.methods.mscl import MSCL
from mscl.models.view import View


class MoDist(MSCL):
    """MSCL's clip-level terms on another picture of the motion. `forward(query, key)` as in MSCL."""

    def _wire(self, query: View, key: View) -> tuple[Tensor | None, ...]:
        """Images of the motion: query, none, key, none, for MoDist rotates no flow."""
        return query.edge_image(), None, key.edge_image(), None
