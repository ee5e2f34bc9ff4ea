"""RAFT (Teed and Deng, ECCV 2020) by torchvision: the paper's optical flow (large), and a cheaper one (small)."""

from __future__ import annotations

import contextlib
import copy
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mscl.config.settings import FlowConfig
from mscl.flow.grid import Pairs, resize
from mscl.machine.files import sha256
from mscl.models.finite import non_finite

AGREE = 0.1  # px at flow.size: mean end-point difference to float32 up to which another precision is taken


class Raft:
    """An estimator (see `mscl.flow.estimate`): pairs of frames in batches of `flow.batch`, one clip at a time on the device."""

    grey = False

    def __init__(self, flow: FlowConfig, device: torch.device):
        self.flow, self.device = flow, device
        self.model = load_raft(flow).to(device).eval()
        self._other = halved(copy.deepcopy(self.model)) if flow.precision == "bfloat16" else self.model
        self._precision, self._compared = flow.precision, flow.precision == "float32"
        self._lock = threading.Lock()

    @torch.inference_mode()
    def __call__(self, frames_THWC: np.ndarray, pairs: Pairs) -> list[np.ndarray]:
        used = sorted({k for pair in pairs for k in pair})
        resized = np.stack([resize(frames_THWC[k], self.flow.size) for k in used])
        place = {k: n for n, k in enumerate(used)}
        fields = []
        with self._lock:  # the other threads decode and encode meanwhile
            frames_TCHW = torch.from_numpy(resized).to(self.device).permute(0, 3, 1, 2)
            for at in range(0, len(pairs), self.flow.batch):
                part = pairs[at : at + self.flow.batch]
                first, second = (frames_TCHW[[place[pair[side]] for pair in part]].float() / 127.5 - 1 for side in (0, 1))
                fields += list(self._flow(first, second).permute(0, 2, 3, 1).cpu().numpy())
        return fields

    def _flow(self, first_BCHW: Tensor, second_BCHW: Tensor) -> Tensor:
        """(B, 2, H, W) float32, in `flow.precision` if that agrees with float32 on the job's first batch."""

        def run(precision: str) -> Tensor:
            model = self._other if precision == "bfloat16" else self.model
            with tf32(precision == "tf32"):
                return model(first_BCHW, second_BCHW, num_flow_updates=self.flow.iterations)[-1]

        found = run(self._precision)
        if not self._compared:
            self._compared = True
            exact = run("float32")
            off = torch.linalg.vector_norm(found - exact, dim=1).mean().item()
            if not off <= AGREE:  # NaN too
                print(f"flow.precision: {self._precision} is {off:.2f} px off float32 here; float32 is used", file=sys.stderr)
                self._precision = "float32"
                return exact
        return found


@contextlib.contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Whether convolutions and products of float32 in the body may round their inputs to TF32, on GPUs that can."""
    backends = torch.backends.cudnn, torch.backends.cuda.matmul
    before = [backend.allow_tf32 for backend in backends]
    try:
        for backend in backends:
            backend.allow_tf32 = allowed
        yield
    finally:
        for backend, was in zip(backends, before):
            backend.allow_tf32 = was


class _Autocast(nn.Module):
    """A network in bfloat16 between float32 inputs and outputs."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner

    def forward(self, *inputs: Tensor):
        with torch.autocast(inputs[0].device.type, dtype=torch.bfloat16):
            out = self.inner(*inputs)
        return tuple(o.float() for o in out) if isinstance(out, tuple) else out.float()


def halved(model: nn.Module) -> nn.Module:
    """RAFT with its encoders and update block in bfloat16; correlations, coordinates and upsampling stay float32."""
    model.feature_encoder, model.context_encoder = _Autocast(model.feature_encoder), _Autocast(model.context_encoder)
    hidden = model.update_block.hidden_state_size  # RAFT asks its update block for it
    model.update_block = _Autocast(model.update_block)
    model.update_block.hidden_state_size = hidden
    return model


def load_raft(flow: FlowConfig) -> torch.nn.Module:
    """torchvision's `flow.network` with the weights of `flow.weights` (.pth or .safetensors), checked against `flow.sha256`."""
    from mscl.machine.torchvision import torchvision

    models = torchvision.models.optical_flow
    small = flow.network == "raft_small"
    published = models.Raft_Small_Weights.C_T_V2 if small else models.Raft_Large_Weights.C_T_V1
    if flow.weights is None or not Path(flow.weights).is_file():
        raise ValueError(
            f"flow.weights: {f'no file {flow.weights}' if flow.weights else 'not set'}; torchvision publishes "
            f"RAFT's 'things' weights ({published}) at {published.url}: download them, then set flow.weights to the "
            "file and flow.sha256 to what sha256sum prints for it, or set flow.method: dis"
        )
    if flow.sha256:
        found = sha256(flow.weights)
        if found != flow.sha256.lower():
            raise ValueError(
                f"{flow.weights}: has sha256 {found}, but flow.sha256 is {flow.sha256}; download it again or correct flow.sha256"
            )
    model = getattr(models, flow.network)(weights=None)
    try:
        weights = _read_weights(Path(flow.weights))
        model.load_state_dict(weights)
    except Exception as error:  # noqa: BLE001 torch raises whatever a foreign file makes it stumble over
        raise ValueError(
            f"{flow.weights}: not a state dict of torchvision's {flow.network} ({' '.join(str(error).split())[:120]})"
        ) from None
    if name := non_finite(weights):
        raise ValueError(f"{flow.weights}: {name} holds values that are not finite; download it again")
    return model


def _read_weights(path: Path) -> dict:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    return torch.load(path, map_location="cpu", weights_only=True)
