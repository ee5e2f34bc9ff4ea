"""How many flow fields per second does RAFT compute? Random weights take as long as the published ones."""

from __future__ import annotations

import copy

import numpy as np
import torch

from benchmarks.gpu.bench import Bench
from mscl.flow.raft import Raft, halved, tf32
from mscl.machine.torchvision import torchvision

PAIRS = 16  # fields of the pipeline's own call


def flow(bench: Bench) -> None:
    """Both sizes of RAFT, in float32, TF32, bfloat16 and compiled; then the pipeline's call with the store's work."""
    settings, models = bench.config.flow, torchvision.models.optical_flow
    batch, (height, width) = settings.batch, settings.size
    first, second = (torch.rand(batch, 3, height, width, device=bench.device) * 2 - 1 for _ in range(2))
    for name, build in {"raft_large": models.raft_large, "raft_small": models.raft_small}.items():
        torch.manual_seed(0)
        model = build(weights=None).to(bench.device).eval()
        for iterations in (settings.iterations, 12) if bench.gpu else (settings.iterations,):
            for way in ("float32", "tf32", "bfloat16", "bfloat16 compiled") if bench.gpu else ("float32", "bfloat16"):
                if bench.left() < 0 or (way.endswith("compiled") and (iterations == 12 or bench.left() < 40)):
                    continue
                _measure(bench, name, model, way, (first, second), iterations)
    _pipeline(bench)


def _measure(
    bench: Bench, name: str, model: torch.nn.Module, way: str, images: tuple[torch.Tensor, torch.Tensor], iterations: int
) -> None:
    bench.fresh_memory()
    used = halved(copy.deepcopy(model)) if way.startswith("bfloat16") else model
    if way.endswith("compiled"):
        for part in ("feature_encoder", "context_encoder", "update_block"):
            getattr(used, part).compile(dynamic=False)

    @torch.inference_mode()
    def run() -> torch.Tensor:
        with tf32(way == "tf32"):
            return used(*images, num_flow_updates=iterations)[-1]

    took = bench.seconds(run, warm=2)
    off = float(torch.linalg.vector_norm(run() - _exact(model, images, iterations), dim=1).mean())
    fields = len(images[0]) / took
    row = {"network": name, "iterations": iterations, "precision": way, "fields/s": fields, "px off float32": off}
    bench.add("flow", **row, **{"peak GB": bench.memory()})


@torch.inference_mode()
def _exact(model: torch.nn.Module, images: tuple[torch.Tensor, torch.Tensor], iterations: int) -> torch.Tensor:
    with tf32(False):
        return model(*images, num_flow_updates=iterations)[-1]


def _pipeline(bench: Bench) -> None:
    """The estimator as the flow stage calls it: frames of the store in, fields in memory out."""
    settings = bench.config.flow
    path = bench.folder / "raft.pth"
    torch.save(torchvision.models.optical_flow.raft_large(weights=None).state_dict(), path)
    frames = np.random.default_rng(0).integers(0, 256, (PAIRS + 4, 256, 340, 3), dtype=np.uint8)
    pairs = [(k, k + 4) for k in range(PAIRS)]
    for precision in ("float32", "tf32", "bfloat16"):
        if bench.left() < 0:
            return
        asked = settings.model_copy(update={"method": "raft", "weights": path, "sha256": None, "precision": precision})
        estimator = Raft(asked, bench.device)
        estimator._compared = True  # with random weights nothing is compared, so that this precision is what is timed
        took = bench.seconds(lambda: estimator(frames, pairs), warm=1)  # noqa: B023 called at once
        bench.add(
            "flow", network="the stage's call", iterations=asked.iterations, precision=precision, **{"fields/s": PAIRS / took}
        )
        if precision == settings.precision:
            bench.rates["field_seconds"] = took / PAIRS
