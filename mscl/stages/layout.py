"""The paths of all files that the workflow writes. Rules and code both take them from here.

Every argument may be a Snakemake wildcard such as "{shard}".
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mscl.config.schema import Config
    from mscl.config.targets import Target

WEIGHTS, HISTORY = "weights.safetensors", "history.csv"
METRICS, PREDICTIONS = "metrics.json", "predictions.parquet"
FEATURES = "features.npz"
PAIRS, GRADCAM, FIGURES = "pairs.csv", "gradcam.json", "gradcam"
CARD = "run.json"
# The outputs of each stage that writes a run card: name in the rules -> file name.
MADE: dict[str, dict[str, str]] = {
    "adopt": {"weights": WEIGHTS},
    "pretrain": {"weights": WEIGHTS, "history": HISTORY},
    "finetune": {"weights": WEIGHTS, "predictions": PREDICTIONS, "metrics": METRICS, "history": HISTORY},
    "linear": {"weights": WEIGHTS, "predictions": PREDICTIONS, "metrics": METRICS, "history": HISTORY},
    "embed": {"features": FEATURES},
    "frozen": {"metrics": METRICS},
    "analysis": {"pairs": PAIRS, "gradcam": GRADCAM, "figures": FIGURES},
}


def shard_paths(folder: str | Path, shards: int, suffix: str = ".parquet") -> list[Path]:
    """The files of a sharded store: <folder>/0000.parquet, <folder>/0001.parquet, …"""
    return [Path(folder) / f"{s:04d}{suffix}" for s in range(shards)]


def store_beside(manifest: str | Path) -> Path:
    """Where the frames of a manifest's videos lie, if it is where the workflow wrote it."""
    manifest = Path(manifest)
    return manifest.parent.parent / "frames" / manifest.stem


def _joined(values: dict[str, object]) -> str:
    """The part of a path that identifies a job within its stage, such as <model>/<method>/seed<k>."""
    return "/".join(f"seed{value}" if name == "seed" else str(value) for name, value in values.items())


def finetuning_curves(config: Config) -> dict[str, str]:
    """Target -> name of the report's figure with its finetuning curves."""
    return _curves("finetune_top1", config.finetuned_targets)


def linear_curves(config: Config) -> dict[str, str]:
    """Target -> name of the report's figure with its curves of linear evaluation."""
    return _curves("linear_top1", config.linear_targets)


def _curves(name: str, targets: list[Target]) -> dict[str, str]:
    """Of several draws of few training videos, the first has a figure."""
    drawn = [target.name for target in targets if target.draw == 1 or not target.draws_of]
    return {target: name if len(drawn) == 1 else f"{name}_{target}" for target in drawn}


CURVES = "tensorboard"  # the folder of the curves, below that of the results


def run_of_curves(folder: Path) -> tuple[str, str]:
    """(name of the results, name of the run) whose curves are in `folder`, such as (demo, pretrain/r18/mscl/seed0)."""
    *above, run = str(folder).rpartition(f"/{CURVES}/")
    return (Path(above[0]).name, run) if above[0] else ("mscl", Path(folder).name)


class Layout:
    """The paths of one configuration. `results` replaces `paths.results`, for results that were copied elsewhere."""

    def __init__(self, config: Config, results: str | Path | None = None):
        self.data = str(config.paths.data)
        self.results = str(config.paths.results if results is None else results)

    def download(self, dataset: str) -> str:
        """The list of the downloaded files."""
        return f"{self.data}/downloads/{dataset}.json"

    def dataset(self, dataset: str) -> str:
        """The list of the annotation files of a data set."""
        return f"{self.data}/datasets/{dataset}.json"

    def manifest(self, dataset: str) -> str:
        """The table of a data set's videos, one row per video."""
        return f"{self.data}/manifests/{dataset}.parquet"

    def frames(self, dataset: str) -> str:
        """The folder with the shards of frames."""
        return f"{self.data}/frames/{dataset}"

    def flow(self, dataset: str) -> str:
        """The folder with the shards of optical flow."""
        return f"{self.data}/flow/{dataset}"

    def adopt(self, model: str, method: str) -> str:
        """The folder with others' weights under our names."""
        return f"{self.results}/adopt/{model}/{method}"

    def pretrain(self, model: str, method: str, seed: int | str) -> str:
        """The folder with the results of a pretraining run."""
        return f"{self.results}/pretrain/{model}/{method}/seed{seed}"

    def finetune(self, target: str, model: str, method: str, seed: int | str) -> str:
        """The folder with the results of a finetuning run."""
        return f"{self.results}/finetune/{target}/{model}/{method}/seed{seed}"

    def linear(self, target: str, model: str, method: str, seed: int | str) -> str:
        """The folder with the results of a linear evaluation by SGD."""
        return f"{self.results}/linear/{target}/{model}/{method}/seed{seed}"

    def embed(self, target: str, model: str, method: str, seed: int | str) -> str:
        """The folder with the features of a frozen backbone that several targets share."""
        return f"{self.results}/embed/{target}/{model}/{method}/seed{seed}"

    def frozen(self, target: str, model: str, method: str, seed: int | str) -> str:
        """The folder with the results of the frozen tests of a run."""
        return f"{self.results}/frozen/{target}/{model}/{method}/seed{seed}"

    def analysis(self, target: str, model: str) -> str:
        """The folder with the confused pairs and GradCAM of a model on a target."""
        return f"{self.results}/analysis/{target}/{model}"

    def records(self, folder: str | Path) -> str:
        """The folder for the run card of the results in `folder`, and for other files that differ from run to run.

        It is separate from the results, so that these have the same bytes in every run.
        """
        return f"{self.results}/cards" + str(folder).removeprefix(self.results)

    def card(self, folder: str | Path) -> str:
        """The run card of the results in `folder`."""
        return f"{self.records(folder)}/{CARD}"

    def data_health(self) -> str:
        """The number of videos of each data set by status."""
        return f"{self.results}/data.json"

    def flow_error(self) -> str:
        """The error of the stored flow, for generated videos."""
        return f"{self.results}/analysis/flow_error.json"

    def report(self) -> str:
        """The folder of the report."""
        return f"{self.results}/report"

    def log(self, stage: str, values: dict[str, object]) -> str:
        """The log of a job."""
        return f"{self._of_job('logs', stage, values)}.log"

    def benchmark(self, stage: str, values: dict[str, object]) -> str:
        """The time and memory of a job as measured by Snakemake."""
        return f"{self._of_job('benchmarks', stage, values)}.tsv"

    def settings(self, stage: str, values: dict[str, object], content: str) -> str:
        """The settings of a job as JSON. The name holds a hash of the content, so that a file never changes."""
        return f"{self._of_job('settings', stage, values)}-{hashlib.sha256(content.encode()).hexdigest()[:8]}.json"

    def curves(self, stage: str, values: dict[str, object]) -> str:
        """The folder with the TensorBoard curves of a training run."""
        return self._of_job(CURVES, stage, values)

    def _of_job(self, kind: str, stage: str, values: dict[str, object]) -> str:
        return f"{self.results}/{kind}/{stage}" + (f"/{_joined(values)}" if values else "")
