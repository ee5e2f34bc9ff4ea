"""Where everything lies: the one place that spells paths, for the rules and the code alike.

Every argument may be a Snakemake wildcard such as "{shard}".
"""

from __future__ import annotations

from pathlib import Path


def shard_paths(folder: str | Path, shards: int, suffix: str = ".parquet") -> list[Path]:
    """The files of a sharded store: <folder>/0000.parquet and so on."""
    return [Path(folder) / f"{s:04d}{suffix}" for s in range(shards)]


class Layout:
    def __init__(self, config):
        self.data, self.results = config.paths.data, config.paths.results
        self.target = config.finetune.dataset

    def manifest(self, dataset: str) -> str:
        return f"{self.data}/manifests/{dataset}.parquet"

    def frames(self, dataset: str) -> str:
        return f"{self.data}/frames/{dataset}"

    def flow(self, dataset: str) -> str:
        return f"{self.data}/flow/{dataset}"

    def pretrain(self, model: str, method: str, seed) -> str:
        return f"{self.results}/pretrain/{model}/{method}/seed{seed}"

    def finetune(self, model: str, method: str, seed) -> str:
        return f"{self.results}/finetune/{self.target}/{model}/{method}/seed{seed}"

    def frozen(self, model: str, method: str, seed) -> str:
        return f"{self.results}/frozen/{self.target}/{model}/{method}/seed{seed}"

    def analysis(self, model: str) -> str:
        return f"{self.results}/analysis/{self.target}/{model}"

    def records(self, folder: str) -> str:
        """Where the run card of the results in `folder` lies, and what else differs from run to run: never beside them."""
        return f"{self.results}/cards" + str(folder).removeprefix(str(self.results))

    def flow_error(self) -> str:
        return f"{self.results}/analysis/flow_error.json"

    def report(self) -> str:
        return f"{self.results}/report"
