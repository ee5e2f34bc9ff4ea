"""A small results folder in the form that the stages write, made without running them."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from mscl.config.schema import load_config
from mscl.evaluation.analysis import _caption, pairs_of, pairs_table
from mscl.evaluation.gradcam import draw_rows
from mscl.evaluation.strip import draw_strip, flow_pictures
from mscl.measures.topk import metrics_from_predictions
from mscl.stages.build import compared
from mscl.stages.jobs import ReportJob

NAMES = [
    "Pushing something from left to right",
    "Pushing something from right to left",
    "Moving something up",
    "Moving something down",
    "Showing something & turning it by 50%",
    "Putting something_1 behind something",
]
SKILL = {"scratch": 0.35, "baseline": 0.6, "mscl": 0.8}
EPOCHS = np.arange(6)
HEALTH = {
    "videos": 320,
    "counts": {"train": {"ok": 199, "missing": 1}, "validation": {"ok": 119, "broken": 1}},
    "frames": 5000,
    "not_ok": [
        {"clip_id": "v999", "split": "validation", "status": "broken", "reason": "no frame could be decoded <moov atom>"},
        {"clip_id": "v998", "split": "train", "status": "missing", "reason": "no file videos/v998.webm"},
    ],
    "flow": {"ok": 318, "empty": 2},
    "flow_not_ok": [],
    "no_allowed_start": 3,
}


def settings(methods=("scratch", "baseline", "mscl"), seeds=(0, 1), kind="demo"):
    recipe = {"lr": 0.02, "batch": 4, "epochs": 6}
    videos = {
        "format": "ssv2",
        "root": "data/toy",
        "annotations": {"labels": "l.json", "train": "t.json", "validation": "v.json"},
        "shards": 2,
    }
    return load_config(
        {
            "name": "toy",
            "kind": kind,
            "paths": {"data": "data", "results": "results"},
            "seeds": list(seeds),
            "methods": list(methods),
            "datasets": {"toy": videos},
            "pretrain": {"datasets": ["toy"]},
            "targets": [{"dataset": "toy"}],
            "models": {"r18": {"backbone": "r3d_18", "pretrain": recipe, "finetune": recipe}},
        }
    )


def put(path: Path, document) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))


def card(root: Path, stage: str, below, seed, seconds: float) -> None:
    put(
        root / "cards" / stage / below / "run.json",
        {
            "stage": stage,
            "command": ["python", "-m", "mscl", stage, "<&>"],
            "job": {"seed": seed},
            "seed": seed,
            "threads": 1,
            "inputs": {f"data/frames/toy/{n:04d}.parquet": "ab" * 32 for n in range(20)},
            "outputs": {"weights.safetensors": "cd" * 32},
            "git_commit": "0123456789abcdef",
            "versions": {"torch": "2.13.0"},
            "hardware": {"cpu": "Example CPU", "cores": 2},
            "started": "2024-05-01T12:00:00+00:00",
            "wall_seconds": seconds,
            "peak_memory_mb": 1234.5,
        },
    )


def predicted(rng, label: int, skill: float) -> int:
    """The label with probability `skill`, else mostly the other class of its pair."""
    if rng.random() < skill:
        return label
    return label ^ 1 if rng.random() < 0.7 else int(rng.integers(len(NAMES)))


def predictions(rng, skill: float, per_class: int = 20) -> pd.DataFrame:
    columns = ["clip_id", "label", "top", "probability", "status", "reason"]
    rows = []
    for number in range(len(NAMES) * per_class):
        label = number % len(NAMES)
        first = predicted(rng, label, skill)
        rest = [c for c in rng.permutation(len(NAMES)) if c != first][:4]
        rows.append((f"v{number:03d}", label, [first, *map(int, rest)], [0.6, 0.2, 0.1, 0.05, 0.05], "ok", ""))
    rows.append(("v999", 0, [], [], "broken", "no frame"))
    return pd.DataFrame(rows, columns=columns).astype({"label": "int32"})


def write_tree(root: Path, config) -> None:
    """Write all results that `config` asks for below `root`."""
    rng = np.random.default_rng(0)
    for model in config.models:
        paths: dict[str, list[Path]] = {}
        for method in config.methods:
            for seed in config.seeds:
                below, skill = Path(model) / method / f"seed{seed}", SKILL.get(method, 0.5)
                if config.switches(method).pretrain:
                    write_pretraining(root, below, seed, skill, rng)
                paths.setdefault(method, []).append(write_finetuning(root, below, seed, skill, rng))
                write_frozen(root, below, seed, skill)
        card(root, "analysis", Path("toy") / model, None, 8)
        analysis(root / "analysis" / "toy" / model, config, paths)
    put(root / "data.json", {"toy": HEALTH})
    put(
        root / "analysis" / "flow_error.json",
        {"clips": 40, "fields": 120, "epe_mean": 0.31, "epe_median": None, "grid": [48, 64], "method": "dis"},
    )


def write_pretraining(root: Path, below: Path, seed: int, skill: float, rng) -> None:
    folder = root / "pretrain" / below
    folder.mkdir(parents=True)
    card(root, "pretrain", below, seed, 1234)
    loss = 3 * np.exp(-EPOCHS / 4) + 2 * skill + 0.1 * rng.random(6)
    pd.DataFrame({"epoch": EPOCHS, "lr": 0.02, "loss": loss}).to_csv(folder / "history.csv", index=False)


def write_finetuning(root: Path, below: Path, seed: int, skill: float, rng) -> Path:
    """The path of its predictions."""
    folder = root / "finetune" / "toy" / below
    folder.mkdir(parents=True)
    card(root, "finetune", "toy" / below, seed, 61.5)
    table = predictions(rng, skill)
    table.to_parquet(folder / "predictions.parquet")
    metrics = metrics_from_predictions(table, len(NAMES))
    put(folder / "metrics.json", metrics | {"classes": len(NAMES), "chance": 1 / len(NAMES), "train_loss": 0.1})
    top1 = skill * (1 - np.exp(-(EPOCHS + 1) / 3))
    history = pd.DataFrame({"epoch": EPOCHS, "lr": 0.02, "loss": 2 - top1, "train_top1": top1})
    history.to_csv(folder / "history.csv", index=False)
    return folder / "predictions.parquet"


def write_frozen(root: Path, below: Path, seed: int, skill: float) -> None:
    card(root, "frozen", "toy" / below, seed, 12)
    factors = {"1": 0.6, "5": 0.9, "10": 1, "20": 1.1, "50": 1.2}
    measures = {
        "probe": {"top1": skill * 0.8, "train_top1": skill},
        "retrieval": {k: min(1, skill * factor) for k, factor in factors.items()},
    }
    counts = {"videos": 120, "skipped": 1, "classes": len(NAMES), "chance": 1 / len(NAMES)}
    put(root / "frozen" / "toy" / below / "metrics.json", {"measures": measures} | counts)


def analysis(folder: Path, config, paths) -> None:
    left, right = compared(config, folder.name)
    folder.mkdir(parents=True)
    pairs_table(pairs_of(paths[left], NAMES), pairs_of(paths[right], NAMES), (left, right), 3).to_csv(
        folder / "pairs.csv", index=False
    )
    t, y, x = np.mgrid[0:16, 0:48, 0:64]
    frames = np.stack([x * 3, y * 4, np.full_like(x, 90)], -1).astype(np.uint8)
    frames[(x - 4 * t) ** 2 + (y - 24) ** 2 < 60] = (240, 240, 230)
    heats = {
        right: np.exp(-((x - 4 * t) ** 2 + (y - 24) ** 2) / 150.0),
        left: np.exp(-((x - 30) ** 2 + (y - 30) ** 2) / 400.0) * (abs(t - 8) < 4),
    }
    said = {
        right: {"class": NAMES[0], "probability": 0.81, "correct": True},
        left: {"class": NAMES[1], "probability": 0.55, "correct": False},
    }
    captions = {m: _caption(p) for m, p in said.items()}
    draw_rows(frames, heats, f"“{NAMES[0]}”  (v000)", folder / "gradcam" / "fig1.png", captions, flow_pictures(frames))
    draw_strip([(NAMES[0], frames), (NAMES[1], frames[::-1])], folder / "gradcam" / "strip.png")
    put(
        folder / "gradcam.json",
        {
            "methods": [left, right],
            "seed": config.seeds[0],
            "notes": [],
            "figures": [
                {
                    "file": "gradcam/fig1.png",
                    "clip_id": "v000",
                    "template": NAMES[0],
                    "reason": f"{right} is right, {left} is wrong",
                    "predictions": said,
                    "grid": [1, 4, 4],
                    "flow": True,
                }
            ],
            "strip": {
                "file": "gradcam/strip.png",
                "classes": NAMES[:2],
                "clip_ids": ["v000", "v001"],
                "reason": "they are <alike>",
            },
        },
    )


@pytest.fixture(scope="session")
def synthetic():
    """The functions above, for tests that need another results folder."""
    return SimpleNamespace(settings=settings, write_tree=write_tree, put=put)


@pytest.fixture(scope="session")
def job():
    return ReportJob(config=settings())


@pytest.fixture(scope="session")
def shared_tree(tmp_path_factory, job):
    """A complete results folder. Tests that change it copy it first."""
    root = tmp_path_factory.mktemp("whole") / "results"
    write_tree(root, job.config)
    return root


@pytest.fixture(scope="session")
def shared_report(shared_tree, job, tmp_path_factory):
    from mscl.reporting.report import build_report

    out = tmp_path_factory.mktemp("report")
    build_report(job, shared_tree, out)
    return out
