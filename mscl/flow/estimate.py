"""Optical flow between frames of a clip, by RAFT (torchvision) or DIS (OpenCV), behind one callable.

RAFT is the paper's; DIS needs no weights and no GPU, so the demo and machines without either use it.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch

from mscl.config import FlowConfig

Pairs = Sequence[tuple[int, int]]
Estimator = Callable[[np.ndarray, Pairs], list[np.ndarray]]


def make_estimator(flow: FlowConfig, device: str) -> Estimator:
    """Return f(frames_THWC uint8 RGB, pairs) -> one flow_HW2 float32 per pair (i, j) of positions in `frames`.

    Flow is computed at `flow.size` and returned on the grid that is stored (`stored_size`), (u, v) in pixels of that
    grid. May be called from several threads. Raises ValueError when RAFT's weights or size cannot be used.
    """
    return _Raft(flow, pick_device(device)) if flow.method == "raft" else _Dis(flow)


def pick_device(device: str) -> torch.device:
    """`auto` is the GPU when there is one; ValueError when `cuda` is asked for and absent."""
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("compute.device: cuda was asked for but torch sees no GPU; set auto or cpu")
    return torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")


def stored_size(frame_hw: tuple[int, int], short_side: int) -> tuple[int, int]:
    """(H, W) of a stored field: the frame's aspect, short side `short_side` but never more than the frame's."""
    h, w = frame_hw
    factor = min(1.0, short_side / min(h, w))
    return max(1, round(h * factor)), max(1, round(w * factor))


def to_grid(flow_HW2: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """Resize a field and rescale its vectors to the pixels of the new grid."""
    h, w = flow_HW2.shape[:2]
    resized = _resize(np.ascontiguousarray(flow_HW2, np.float32), size_hw)
    return resized * np.array([size_hw[1] / w, size_hw[0] / h], np.float32)


def _resize(image: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    if image.shape[:2] == tuple(size_hw):
        return image
    shrinks = size_hw[0] < image.shape[0] or size_hw[1] < image.shape[1]
    return cv2.resize(image, size_hw[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


class _Dis:
    def __init__(self, flow: FlowConfig):
        self.flow = flow
        self._own = threading.local()  # a DISOpticalFlow object keeps its pyramids: one per thread

    def __call__(self, frames_THWC: np.ndarray, pairs: Pairs) -> list[np.ndarray]:
        if not hasattr(self._own, "dis"):
            self._own.dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        size = stored_size(frames_THWC.shape[1:3], self.flow.short_side)
        used = sorted({k for pair in pairs for k in pair})
        grey = {k: _resize(cv2.cvtColor(frames_THWC[k], cv2.COLOR_RGB2GRAY), self.flow.size) for k in used}
        return [to_grid(self._own.dis.calc(grey[i], grey[j], None), size) for i, j in pairs]


class _Raft:
    def __init__(self, flow: FlowConfig, device: torch.device):
        if any(side % 8 or side < 128 for side in flow.size):
            raise ValueError(f"flow.size: RAFT needs multiples of 8 of at least 128 pixels, got {flow.size[0]} x {flow.size[1]}")
        self.flow, self.device = flow, device
        self.model = load_raft(flow).to(device).eval()
        self._lock = threading.Lock()

    @torch.inference_mode()
    def __call__(self, frames_THWC: np.ndarray, pairs: Pairs) -> list[np.ndarray]:
        size = stored_size(frames_THWC.shape[1:3], self.flow.short_side)
        used = sorted({k for pair in pairs for k in pair})
        resized = np.stack([_resize(frames_THWC[k], self.flow.size) for k in used])
        place = {k: n for n, k in enumerate(used)}
        fields = []
        with self._lock:  # one clip at a time on the device; the other threads decode and encode meanwhile
            frames_TCHW = torch.from_numpy(resized).to(self.device).permute(0, 3, 1, 2)
            for at in range(0, len(pairs), self.flow.batch):
                part = pairs[at : at + self.flow.batch]
                first, second = (frames_TCHW[[place[pair[side]] for pair in part]].float() / 127.5 - 1 for side in (0, 1))
                flow_B2HW = self.model(first, second, num_flow_updates=self.flow.iterations)[-1]
                fields += [to_grid(f, size) for f in flow_B2HW.permute(0, 2, 3, 1).cpu().numpy()]
        return fields


def load_raft(flow: FlowConfig) -> torch.nn.Module:
    """torchvision's raft_large with the weights of `flow.weights` (.pth or .safetensors), checked against `flow.sha256`."""
    from mscl._torchvision import torchvision

    published = torchvision.models.optical_flow.Raft_Large_Weights.C_T_V1
    if flow.weights is None or not Path(flow.weights).is_file():
        raise ValueError(
            f"flow.weights: {f'no file {flow.weights}' if flow.weights else 'not set'}; torchvision publishes RAFT-large "
            f"'things' weights (Raft_Large_Weights.C_T_V1) at {published.url}: download them, then set flow.weights to the "
            "file and flow.sha256 to what sha256sum prints for it, or set flow.method: dis"
        )
    if flow.sha256:
        with open(flow.weights, "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != flow.sha256.lower():
            raise ValueError(
                f"{flow.weights}: has sha256 {found}, but flow.sha256 is {flow.sha256}; download it again or correct flow.sha256"
            )
    model = torchvision.models.optical_flow.raft_large(weights=None)
    try:
        model.load_state_dict(_read_weights(Path(flow.weights)))
    except Exception as error:  # noqa: BLE001 torch raises whatever a foreign file makes it stumble over
        raise ValueError(
            f"{flow.weights}: not a state dict of torchvision's raft_large ({' '.join(str(error).split())[:120]})"
        ) from None
    return model


def _read_weights(path: Path) -> dict:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    return torch.load(path, map_location="cpu", weights_only=True)
