"""Where everything lies: the one place that spells paths, for the rules and the code alike.

Every argument may be a Snakemake wildcard such as "{shard}".
"""

from __future__ import annotations

from pathlib import Path

WEIGHTS, HISTORY = "weights.safetensors", "history.csv"
METRICS, PREDICTIONS = "metrics.json", "predictions.parquet"
PAIRS, GRADCAM, FIGURES = "pairs.csv", "gradcam.json", "gradcam"
CARD = "run.json"
# What each stage with a run card makes, by the names that the rules use.
MADE: dict[str, dict[str, str]] = {
    "pretrain": {"weights": WEIGHTS, "history": HISTORY},
    "finetune": {"weights": WEIGHTS, "predictions": PREDICTIONS, "metrics": METRICS, "history": HISTORY},
    "frozen": {"metrics": METRICS},
    "analysis": {"pairs": PAIRS, "gradcam": GRADCAM, "figures": FIGURES},
}


def shard_paths(folder: str | Path, shards: int, suffix: str = ".parquet") -> list[Path]:
    """The files of a sharded store: <folder>/0000.parquet and so on."""
    return [Path(folder) / f"{s:04d}{suffix}" for s in range(shards)]


def _joined(values: dict[str, object]) -> str:
    """The part of a path that tells the jobs of a stage apart: <model>/<method>/seed<k>."""
    return "/".join(f"seed{value}" if name == "seed" else str(value) for name, value in values.items())


class Layout:
    """The paths of one configuration; `results` is another place of its results, where they have been copied."""

    def __init__(self, config, results: str | Path | None = None):
        self.data = str(config.paths.data)
        self.results = str(config.paths.results if results is None else results)
        self.target = config.finetune.dataset

    def download(self, dataset: str) -> str:
        """The list of what was downloaded."""
        return f"{self.data}/downloads/{dataset}.json"

    def dataset(self, dataset: str) -> str:
        """The list of a data set's annotation files."""
        return f"{self.data}/datasets/{dataset}.json"

    def manifest(self, dataset: str) -> str:
        return f"{self.data}/manifests/{dataset}.parquet"

    def frames(self, dataset: str) -> str:
        return f"{self.data}/frames/{dataset}"

    def flow(self, dataset: str) -> str:
        return f"{self.data}/flow/{dataset}"

    def pretrain(self, model: str, method: str, seed: int | str) -> str:
        return f"{self.results}/pretrain/{model}/{method}/seed{seed}"

    def finetune(self, model: str, method: str, seed: int | str) -> str:
        return f"{self.results}/finetune/{self.target}/{model}/{method}/seed{seed}"

    def frozen(self, model: str, method: str, seed: int | str) -> str:
        return f"{self.results}/frozen/{self.target}/{model}/{method}/seed{seed}"

    def analysis(self, model: str) -> str:
        return f"{self.results}/analysis/{self.target}/{model}"

    def records(self, folder: str | Path) -> str:
        """Where the run card of the results in `folder` lies, and what else differs from run to run: never beside them."""
        return f"{self.results}/cards" + str(folder).removeprefix(self.results)

    def card(self, folder: str | Path) -> str:
        """The run card of the results in `folder`."""
        return f"{self.records(folder)}/{CARD}"

    def data_health(self) -> str:
        return f"{self.results}/data.json"

    def flow_error(self) -> str:
        return f"{self.results}/analysis/flow_error.json"

    def report(self) -> str:
        return f"{self.results}/report"

    def log(self, stage: str, values: dict[str, object]) -> str:
        return f"{self._of_job('logs', stage, values)}.log"

    def benchmark(self, stage: str, values: dict[str, object]) -> str:
        """What Snakemake measured of a job."""
        return f"{self._of_job('benchmarks', stage, values)}.tsv"

    def curves(self, stage: str, values: dict[str, object]) -> str:
        """The folder of a training's TensorBoard curves."""
        return self._of_job("tensorboard", stage, values)

    def _of_job(self, kind: str, stage: str, values: dict[str, object]) -> str:
        return f"{self.results}/{kind}/{stage}" + (f"/{_joined(values)}" if values else "")
