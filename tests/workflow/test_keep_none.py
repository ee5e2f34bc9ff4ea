"""The pipeline where the frames of a target are not stored: the same results as before, and an error where a video was replaced."""

import copy
import json
import shutil
from pathlib import Path

from tests.workflow.conftest import rules_planned, run_snakemake

RESULTS = ("predictions.parquet", "metrics.json", "weights.safetensors", "pairs.csv", "gradcam.json", "*.png", "table*.csv")


def results(folder: Path) -> dict[str, bytes]:
    """The results that depend on the frames of the target, without times and hashes of inputs."""
    rooms = ("finetune", "frozen", "analysis", "report/tables")
    found = [path for room in rooms for name in RESULTS for path in sorted((folder / "results" / room).rglob(name))]
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def test_a_target_without_stored_frames(finished, tmp_path):
    folder, config, ids = tmp_path / "copy", copy.deepcopy(finished[1]), finished[2]
    shutil.copytree(finished[0], folder, symlinks=True)
    before, store = results(folder), folder / "data/frames/ss"
    size = (store / "0000.tar").stat().st_size
    config["datasets"]["ss"]["frames"] = config["datasets"]["ss"]["frames"] | {"keep": "none"}

    planned = run_snakemake(folder, "-n", config=config)
    assert set(rules_planned(planned)) == {"frames", "finetune", "frozen", "analysis", "data_health", "report", "all"}
    assert rules_planned(planned)["frames"] == 1 and 'frames.keep = "none"' in planned.stdout + planned.stderr
    run = run_snakemake(folder)
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-4000:]
    assert (store / "0000.tar").stat().st_size == 10240 < size
    after = results(folder)
    assert len(after) > 20 and {name for name in before if after.get(name) != before[name]} == set()
    assert "Nothing to be done" in (said := run_snakemake(folder)).stdout + said.stderr

    # Another video under the same name: the job that reads it tells so, and the manifest lists it.
    videos = folder / "data/videos/ss/videos"
    shutil.copy(videos / f"{ids[3]}.webm", videos / f"{ids[2]}.webm")
    metrics = folder / "results/finetune/ss/r18/scratch/seed0/metrics.json"
    wanted = str(metrics.relative_to(folder))
    for path in (metrics, metrics.with_name(".metrics.json.kept.json"), *metrics.parent.glob(".*.kept.json")):
        path.unlink(missing_ok=True)
    run = run_snakemake(folder, wanted)
    said = run.stdout + run.stderr
    assert run.returncode != 0 and "Traceback" not in said, said
    assert f"{ids[2]}.webm: another file than the one that was listed" in said and "snakemake -R manifest" in said, said
    run = run_snakemake(folder, wanted, "-R", "manifest")
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-4000:]
    assert json.loads(metrics.read_text())["videos"] == 10
