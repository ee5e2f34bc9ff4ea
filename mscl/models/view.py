"""One augmented clip of every video of a batch: what a method looks at."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from mscl.flow.colour import colourwheel
from mscl.flow.edges import flow_edges
from mscl.flow.rotate import rotate_flow


@dataclass
class View:
    """One augmented clip per video."""

    rgb_BCTHW: Tensor  # normalised
    flow_B2THW: Tensor | None = None  # radius at most 1 per field
    angle_B: Tensor | None = None  # FRA's rotation, radians: of a video, the same in all its views
    start_B: Tensor | None = None  # raw frame at which the clip starts, where the method asks for the order
    crossed_B2THW: Tensor | None = None  # released wiring: this clip's flow with the crop and the flip of the other view

    def flow_image(self) -> Tensor:
        return colourwheel(self.flow_B2THW)

    def rotated_image(self) -> Tensor:
        return colourwheel(rotate_flow(self.flow_B2THW, self.angle_B))

    def crossed_image(self) -> Tensor:
        return colourwheel(self.crossed_B2THW)

    def rotated_crossed_image(self) -> Tensor:
        return colourwheel(rotate_flow(self.crossed_B2THW, self.angle_B))

    def edge_image(self) -> Tensor:
        return flow_edges(self.flow_B2THW)
