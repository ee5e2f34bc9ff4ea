"""`mscl plan`: the estimated cost, compared with manual calculations, Snakemake's own count and published numbers."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mscl.config.schema import load_config
from mscl.planning import command, network
from mscl.planning.count import count_jobs, count_videos, facts_of, trainings
from mscl.planning.memory import finetune_need
from mscl.planning.plan import make_plan
from mscl.planning.rates import Rates, load_rates
from mscl.planning.show import summary_of
from mscl.planning.training import makespan
from mscl.planning.videos import field_bytes, frame_bytes
from mscl.stages import build
from tests.conftest import ROOT, tiny_config


def tiny(folder: Path, **other) -> Path:
    path = folder / "my.yaml"
    path.write_text(yaml.safe_dump(tiny_config(folder) | other))
    return path


def rates(folder: Path, **content) -> Path:
    path = folder / "rates.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def own(folder: Path, **changes) -> dict:
    """The tiny configuration with the user's own data sets, whose files do not exist."""
    config = tiny_config(folder)
    for data in config["datasets"].values():
        del data["embedded"]
    config["datasets"]["kin"] |= changes
    return config


def test_a_plan_equals_a_manual_calculation(tmp_path):
    given = rates(
        tmp_path,
        datasets={
            "kin": {"extract_seconds": 0.5, "frame_bytes": 1000, "field_seconds": 0.1, "field_bytes": 2000},
            "ss": {"extract_seconds": 0.25, "frame_bytes": 500},
        },
        steps={"r18/moco": 0.1, "r18/baseline": 0.2, "r18/mscl": 0.3, "r18/finetune/ss": 0.05},
        loading={"r18/moco": 0.01, "r18/baseline": 0.01, "r18/mscl": 0.01, "r18/finetune/ss": 0.01},
    )
    command.run_plan(load_config(tiny(tmp_path)), rates=given, cpus=2, json_out=tmp_path / "plan.json")
    plan = json.loads((tmp_path / "plan.json").read_text())
    kin, ss = plan["datasets"]["kin"], plan["datasets"]["ss"]
    # 24 videos of 24 frames in 2 shards; flow from frame i to i + 2: 22 fields per video. 24 bytes of index per stored frame.
    assert kin["videos"] == {"train": 24} and kin["videos_per_shard"] == 12 and kin["fields_per_video"] == 22
    assert kin["frames_bytes"] == {"value": 24 * 24 * 1024, "origin": "given", "note": ""}
    assert kin["flow_bytes"]["value"] == 24 * 22 * 2024
    assert kin["flow_hours"]["value"] == pytest.approx(24 * 22 * 0.1 / 3600)
    # 36 videos in 1 shard, without flow: they are not used for pretraining
    assert ss["videos"] == {"train": 24, "validation": 12} and ss["frames_bytes"]["value"] == 36 * 24 * 524
    assert "flow_bytes" not in ss and plan["disk"]["shard_files"] == 2 * 2 * 2 + 2
    assert plan["hours"]["stages"]["frames"]["hours"]["value"] == pytest.approx((24 * 0.5 + 36 * 0.25) / 3600)
    # 3 batches of 8 videos in each of 2 epochs; the network waits for the loader (workers: 0)
    run = {(r["kind"], r["method"]): r for r in plan["runs"]}
    assert run["pretrain", "mscl"]["steps"] == 6 and run["pretrain", "mscl"]["videos_seen"] == 48
    assert run["pretrain", "mscl"]["hours"] == {"value": pytest.approx(48 * 0.31 / 3600), "origin": "given", "note": ""}
    share = run["frozen", "moco"]["gflop_per_video"] / run["finetune", "moco"]["gflop_per_video"]  # forward pass only
    assert run["finetune", "moco"]["hours"]["value"] == pytest.approx((48 * 0.06 + 12 * (0.05 * share + 0.01)) / 3600)
    assert run["frozen", "moco"]["hours"]["value"] == pytest.approx(36 * (0.05 * share + 0.01) / 3600)
    pretraining = 48 * (0.11 + 0.21 + 0.31)
    rest = 4 * (48 * 0.06 + 48 * (0.05 * share + 0.01))
    assert plan["hours"]["cpu"] == pytest.approx((21 + 24 * 22 * 0.1 + pretraining + rest) / 3600)
    assert plan["hours"]["gpu"] == 0 and sum(plan["jobs"].values()) == 25


def test_a_plan_of_frames_that_are_not_stored_counts_each_decoding(tmp_path):
    values = tiny_config(tmp_path) | {"compute": {"device": "cpu", "workers": 2}}
    values["datasets"]["ss"]["frames"] = values["datasets"]["ss"]["frames"] | {"keep": "none"}
    values["targets"] = [
        {"dataset": "ss", "measures": ["finetune", "probe"], "clips": 2, "finetune": {"test_clips": 3, "test_crops": 3}}
    ]
    given = rates(
        tmp_path,
        datasets={"ss": {"extract_seconds": 0.25, "frame_bytes": 500}},
        steps={"r18/finetune/ss": 0.05},
        loading={"r18/finetune/ss": 0.01},
    )
    command.run_plan(load_config(tiny(tmp_path, **{k: values[k] for k in ("compute", "datasets", "targets")})), rates=given,
                     cpus=2, json_out=tmp_path / "plan.json")  # fmt: skip
    plan = json.loads((tmp_path / "plan.json").read_text())
    # 36 videos of 24 frames: an index without images
    assert plan["datasets"]["ss"]["frames_bytes"]["value"] == 36 * 24 * 24
    assert plan["hours"]["stages"]["frames"]["hours"]["value"] > 36 * 0.25 / 3600  # they are decoded once to be listed
    # Each of 4 methods: 2 epochs of 24 training videos and 12 tested ones; all 36 for their features. A video is decoded once for all its views.
    videos = 4 * (48 + 12 + 36)
    decode = plan["datasets"]["ss"]["rates"]["decode_seconds"]["value"]
    assert 0.5 * 0.25 < decode < 0.25  # of the time of extraction, without the coding of all kept frames
    assert plan["decoding"] == {
        "ss": {"videos": videos, "hours": {"value": videos * decode / 3600, "origin": "assumed", "note": ""}}
    }
    run = {(r["kind"], r["method"]): r for r in plan["runs"]}
    share = run["frozen", "moco"]["gflop_per_video"] / run["finetune", "moco"]["gflop_per_video"]
    video, view = (
        max(0.05, (0.01 + decode) / 2),
        max(0.05 * share, (0.01 + decode / 9) / 2),
    )  # two loader processes beside the network
    assert run["finetune", "moco"]["hours"]["value"] == pytest.approx((48 * video + 12 * 9 * view) / 3600)
    assert run["pretrain", "moco"]["decoded_videos"] == 0
    (said,) = [text for text in plan["warnings"] if "frames.keep" in text]
    assert said.startswith(
        "datasets.ss.frames.keep: none, so every epoch, every test and all features decode its videos again: 384 videos"
    )


def test_planned_checkpoint_size_is_the_real_size(prepared, tmp_path):
    from mscl.training.checkpoint import save_checkpoint
    from mscl.training.finetune import Classifier
    from mscl.training.recipe import make_optimizer

    job = build.finetune_job(prepared, "ss", "r18", "scratch", 0)
    model = Classifier(job.net, job.finetune, 12)
    optimizer = make_optimizer(model, job.finetune)
    sum(p.sum() for p in model.parameters()).backward()
    optimizer.step()
    save_checkpoint(tmp_path / "c.pt", {"model": model.state_dict(), "optimizer": optimizer.state_dict()}, "")
    planned = finetune_need(job, 12, 8, "cpu").sizes.checkpoint
    many = len(list(model.state_dict())) + 3 * len(list(model.parameters()))  # each tensor has a header and padding in the file
    assert planned < (tmp_path / "c.pt").stat().st_size < planned + many * 400


def test_flops_agree_with_the_published_ones_of_torchvision():
    from mscl.machine.torchvision import torchvision

    config = load_config(ROOT / "config" / "paper.yaml")
    job = build.finetune_job(config, "ssv2", "r18", "scratch", 0)
    job = job.model_copy(update={"finetune": job.finetune.model_copy(update={"test_size": 112})})  # 16 frames of 112 x 112
    published = torchvision.models.video.R3D_18_Weights.KINETICS400_V1.meta["_ops"]  # 1e9 multiply-adds
    assert network.feature_flops(job) == pytest.approx(2e9 * published, rel=0.001)


def test_each_raft_update_uses_every_weight_at_every_position():
    from mscl.machine.torchvision import torchvision

    flow = load_config(ROOT / "config" / "paper.yaml").flow.model_copy(update={"size": (128, 256)})
    ten, eleven = (network.raft_flops(flow.model_copy(update={"iterations": n})) for n in (10, 11))
    raft = torchvision.models.optical_flow.raft_large(weights=None)
    weights = sum(p.numel() for part in (raft.update_block, raft.mask_predictor) for p in part.parameters() if p.dim() == 4)
    assert eleven - ten == 2 * weights * (128 // 8) * (256 // 8)


def test_a_method_with_more_networks_costs_more(prepared):
    cost = {m: network.pretrain_flops(build.pretrain_job(prepared, "r18", m, 0)) for m in ("moco", "baseline", "mscl")}
    assert cost["moco"] < cost["baseline"] < cost["mscl"]


@pytest.mark.parametrize("name", ["tiny", "paper"])
def test_the_number_of_jobs_equals_snakemakes_count(name, tmp_path):
    path = tiny(tmp_path) if name == "tiny" else ROOT / "config" / "paper.yaml"
    dry = [sys.executable, "-m", "snakemake", "-s", ROOT / "Snakefile", "--cores", "1", "-n", "-d", tmp_path]
    dry += ["--configfile", path]
    run = subprocess.run([str(part) for part in dry], capture_output=True, text=True, timeout=300)
    table = re.search(r"Job stats:\n.*?\n-+\s+-+\n(.*?)\n\n", run.stdout + run.stderr, re.S)
    assert run.returncode == 0 and table, run.stdout + run.stderr
    counted = {rule: int(n) for rule, n in (line.split() for line in table[1].splitlines())}
    planned = count_jobs(load_config(path))
    assert planned | {"total": sum(planned.values())} == counted


def test_without_data_published_counts_are_used_and_marked(tmp_path):
    config = own(tmp_path, subset={"fraction": 0.1})
    config["datasets"] = {"kinetics400": config["datasets"]["kin"], "ssv2": config["datasets"]["ss"]}
    config = load_config(config | {"pretrain": {"datasets": ["kinetics400"]}, "targets": [{"dataset": "ssv2"}]})
    plan = make_plan(config, Rates(), cpus=2, gpus=1)["datasets"]
    assert plan["kinetics400"]["videos"] == {"train": 24653}  # a tenth of 246,534
    assert plan["kinetics400"]["total"]["origin"] == "published" and "estimated" in plan["kinetics400"]["total"]["note"]
    assert plan["kinetics400"]["download"]["value"] == 370e9  # complete archives are downloaded
    assert plan["ssv2"]["videos"] == {"train": 168913, "validation": 24777}
    assert plan["ssv2"]["frames_bytes"]["origin"] == "assumed + published"


def test_annotation_files_are_counted_before_the_videos_exist(tmp_path):
    config = own(tmp_path, holdout={"validation": 0.4})
    rows = "".join(f"running,video{k:03d},0,10,train\n" for k in range(50))
    root = Path(config["datasets"]["kin"]["root"])
    (root / "annotations").mkdir(parents=True)
    (root / "annotations/train.csv").write_text("label,youtube_id,time_start,time_end,split\n" + rows)
    counts = count_videos(load_config(config), "kin")
    assert counts.total == 50 and 8 <= counts.videos["validation"] <= 32 and counts.missing == 0
    assert "no videos yet" in counts.note


def test_an_own_data_set_without_files_needs_a_count(tmp_path):
    config = load_config(own(tmp_path))
    with pytest.raises(
        ValueError, match="datasets.kin: the videos cannot be counted.*annotations/train.csv.*videos: {kin: {train: 1000}}"
    ):
        count_videos(config, "kin")
    given = load_rates(rates(tmp_path, videos={"kin": {"train": 7}}), config)
    assert count_videos(config, "kin", given.videos["kin"]).videos == {"train": 7}
    with pytest.raises(ValueError, match="videos.ss: no count for split 'validation'"):
        count_videos(config, "ss", {"train": 7})


def test_every_published_number_has_its_source():
    config = load_config(ROOT / "config" / "paper.yaml")
    facts = facts_of("kinetics400", config.datasets["kinetics400"])
    assert sum(facts.videos.values()) == 306245 and sum(facts.split_bytes.values()) == facts.bytes
    lines = (ROOT / "mscl/planning/facts.csv").read_text().splitlines()
    assert all(len(line.split('"')[1]) > 20 for line in lines[1:])


def test_measured_rates_are_saved_and_reused(tmp_path, monkeypatch):
    monkeypatch.setattr(command, "SECONDS", 1.0)
    config, kept = load_config(tiny(tmp_path)), tmp_path / "rates.yaml"
    command.run_plan(config, save=kept, json_out=tmp_path / "first.json")
    command.run_plan(config, rates=kept, json_out=tmp_path / "again.json")
    first, again = (json.loads((tmp_path / f"{n}.json").read_text()) for n in ("first", "again"))
    assert first["datasets"]["kin"]["rates"]["field_seconds"]["origin"] == "measured here"
    assert again["datasets"]["kin"]["rates"]["field_seconds"]["origin"] == "given"
    assert again["hours"]["cpu"] == pytest.approx(first["hours"]["cpu"]) and first["hours"]["cpu"] > 0
    assert {r["hours"]["origin"] for r in first["runs"]} == {"measured here"}
    other = tiny_config(tmp_path)
    other["flow"]["short_side"] = 24
    with pytest.raises(
        ValueError, match="rates.yaml: datasets.kin: measured with flow.short_side 36, but the configuration has 24"
    ):
        load_rates(kept, load_config(other))


def test_the_plan_of_real_videos_predicts_the_stored_bytes(real_videos, tmp_path):
    from mscl.datasets.manifest import write_manifest
    from mscl.planning.probe import probe_dataset, samples_of
    from mscl.planning.rates import VideoRates
    from mscl.video.extract import extract_shard

    config = tiny_config(tmp_path)
    del config["datasets"]["kin"]["embedded"]
    config["datasets"]["kin"] |= {"root": str(real_videos / "kinetics400"), "shards": 1}
    config = load_config(config)
    found = probe_dataset(config, "kin", *samples_of(config, "kin", None, tmp_path), flow=False, seconds=1.0)
    assert isinstance(found, VideoRates) and found.raw_frames.origin == "measured here"
    plan = make_plan(config, Rates(datasets={"kin": found}), cpus=1, gpus=1)["datasets"]["kin"]
    source = build.source(config, "kin")
    write_manifest(build.manifest_job(config, "kin"), source.manifest)
    index = source.frame_indexes()[0]
    extract_shard(build.frames_job(config, "kin"), source.manifest, 0, index.with_suffix(".tar"), index)
    stored = index.stat().st_size + index.with_suffix(".tar").stat().st_size
    assert plan["missing"] == 1 and plan["frames_bytes"]["value"] == pytest.approx(stored, rel=0.1)


def test_runs_share_the_devices():
    def run(kind, method, hours, processes=1):
        return {"kind": kind, "model": "m", "method": method, "seed": 0, "processes": processes, "hours": {"value": hours}}

    def five(processes):
        trained = [("pretrain", "a", 5), ("pretrain", "b", 3), ("finetune", "a", 1), ("finetune", "b", 1)]
        return [*(run(*each, processes) for each in trained), run("frozen", "b", 1)]

    runs = five(1)
    assert makespan(runs, 1) == 11  # one after the other
    assert makespan(runs, 2) == 6  # 5 + 1 in parallel with 3 + 1 + 1
    assert makespan(runs, 9) == 6  # a frozen test waits for its training
    assert makespan(five(2), 2) == 6  # trainings one after the other, each on both devices: 5 h in total; then the test
    assert makespan(five(2), 4) == 3  # 2.5 + 0.5 in parallel with 1.5 + 0.5, and the test of b on the first free device


def test_a_run_that_uses_half_of_the_gpus_takes_twice_as_long():
    """paper.yaml on 8 GPUs: R3D-18's four batch-norm groups use 4 of them, R50's one group uses all."""
    settings = yaml.safe_load((ROOT / "config/paper.yaml").read_text()) | {"methods": ["mscl"]}
    settings["compute"] = {**settings.get("compute", {}), "processes": 8}
    config = load_config(settings)
    plan = make_plan(config, Rates(device="gpu"), cpus=64, gpus=8)
    used = {run["model"]: run["processes"] for run in plan["runs"] if run["kind"] == "pretrain"}
    assert used == {model: config.processes_of(model, "mscl") for model in config.models} and set(used.values()) == {4, 8}
    longest = max(run["hours"]["value"] / run["processes"] for run in plan["runs"])
    assert plan["hours"]["training_wall"] >= longest


@pytest.mark.parametrize(("arguments", "sentence"), [
    (("--config", "nowhere.yaml"), "error: nowhere.yaml: no such file\n"),
    (("--config", "config/paper.yaml", "--rates", "nowhere.yaml"), "error: nowhere.yaml: no such file\n"),
    (("--no-probe", "--gpus", "0"), "error: --gpus: 0 is not a valid number; give 1 or more\n"),
])  # fmt: skip
def test_an_error_is_one_sentence(arguments, sentence):
    run = subprocess.run(
        [sys.executable, "-m", "mscl", "plan", *arguments], capture_output=True, text=True, cwd=ROOT, timeout=120
    )
    assert (run.returncode, run.stderr) == (1, sentence)


def test_the_plan_of_the_paper_needs_no_data_and_marks_assumptions(tmp_path):
    command = [
        sys.executable,
        "-m",
        "mscl",
        "plan",
        "--config",
        str(ROOT / "config/paper.yaml"),
        "--no-probe",
        "--gpus",
        "8",
        "--all",
    ]
    run = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300, check=True)
    assert "246,534" in run.stdout and "168,913" in run.stdout and "measured here" not in re.sub("total .*", "", run.stdout)
    assert re.search(r"GPU, sustained speed in training\s+40 TFLOP/s\s+assumed", run.stdout)


def test_the_summary_of_the_paper_is_ten_lines_and_says_what_small_changes_save(tmp_path):
    config = load_config(ROOT / "config/paper.yaml")
    plan = make_plan(config, Rates(), cpus=2, gpus=1)
    summary = dict(summary_of(plan))
    assert len(summary) <= 10
    assert summary["Plan"].startswith("paper: 1,420 jobs; 10 pretrain, 36 finetune, 24 frozen")
    assert summary["GPU hours"].startswith("1,166.9 (pretrain 868.1, flow 146.9") and summary["Disk"].startswith(
        "1.6 TB (frames 974.0 GB"
    )
    assert "40 TFLOP/s in training" in summary["Assumed"] and "GB in one process" in summary["GPU memory"]
    saved = {row["change"]: row for row in plan["savings"]}
    assert list(saved) == ["flow.step: 2", "flow.method: raft-small", "flow.short_side: 64"]
    # The same plan with the change made: what is saved is the difference.
    settings = yaml.safe_load((ROOT / "config/paper.yaml").read_text())
    for change, row in saved.items():
        key, value = change.removeprefix("flow.").split(": ")
        other = settings | {"flow": settings["flow"] | {key: int(value) if value.isdigit() else value}}
        then = make_plan(load_config(other), Rates(), cpus=2, gpus=1)
        assert row["hours"] == pytest.approx(plan["hours"]["gpu"] - then["hours"]["gpu"], abs=1e-6)
        assert row["disk"] == pytest.approx(plan["disk"]["total"]["value"] - then["disk"]["total"]["value"], rel=1e-6, abs=1)
    assert 0.49 < saved["flow.step: 2"]["hours"] / plan["hours"]["stages"]["flow"]["device_hours"] < 0.5


def test_assumed_bytes_are_those_that_were_measured():
    """benchmarks/2026-11-27-disk.md: means of nine videos, in the tar file."""
    for pixels, quality, measured in (
        (106_439, 3, 19_492),
        (106_439, 5, 14_573),
        (60_523, 3, 13_171),
        (26_937, 3, 7_521),
        (26_937, 5, 5_751),
    ):
        assert frame_bytes(pixels, quality) == pytest.approx(measured, rel=0.06)
    for pixels, quality, measured in (
        (26_937, 100, 13_574),
        (26_937, 95, 7_542),
        (26_937, 90, 5_281),
        (6_734, 95, 3_499),
        (106_439, 90, 12_031),
    ):
        assert field_bytes(pixels, quality) == pytest.approx(measured, rel=0.05)


def test_a_program_is_planned_at_sizes_that_raft_does_not_take(tmp_path):
    values = tiny_config(tmp_path)
    values["flow"] |= {"method": "command", "command": ["my-flow"], "size": [60, 100]}
    plan = make_plan(load_config(values), Rates(), cpus=2, gpus=1)
    rate = plan["datasets"]["kin"]["rates"]["field_seconds"]
    assert rate["value"] > 0 and rate["origin"] == "assumed" and "a program, taken for RAFT-small (measure it)" in rate["note"]


def test_frames_larger_than_any_crop_needs_are_named(tmp_path):
    values = tiny_config(tmp_path)
    values["datasets"]["kin"]["embedded"]["size"] = [320, 240]
    values["datasets"]["kin"]["frames"] = {"step": 1, "short_side": 120, "quality": 4}  # crops of 32 pixels need 40 at most
    plan = make_plan(load_config(values), Rates(), cpus=2, gpus=1)
    row = next(row for row in plan["savings"] if row["change"] == "frames.short_side: 40 (kin)")
    kin = plan["datasets"]["kin"]
    assert 0 < row["disk"] < kin["frames_bytes"]["value"] + kin["flow_bytes"]["value"] and row["cpu_hours"] > 0


def test_a_rivals_plan_counts_its_clips(prepared):
    """ρ clips need one forward and backward pass of the query and ρ-1 forward passes of keys; loading grows with ρ."""
    cost = {n: network.pretrain_flops(build.pretrain_job(prepared, "r18", f"rho-moco-{n}", 0)) for n in (2, 3, 4)}
    assert cost[2] == network.pretrain_flops(build.pretrain_job(prepared, "r18", "moco", 0))
    assert cost[4] - cost[3] == pytest.approx(cost[3] - cost[2]) and cost[3] > cost[2]
    modist, both = (network.pretrain_flops(build.pretrain_job(prepared, "r18", m, 0)) for m in ("modist", "modist+flow"))
    m, f = (network.pretrain_flops(build.pretrain_job(prepared, "r18", f"corp-{v}", 0)) for v in "mf")
    assert min(m, f) > cost[2]  # both clips forward and backward
    assert cost[2] < modist < both < network.pretrain_flops(build.pretrain_job(prepared, "r18", "baseline", 0))


def test_few_videos_and_shared_features_are_counted_once(tmp_path):
    """12 classes x 1 video, batch 8: one step an epoch. The features of all 24 + 12 videos are extracted once, and serve both draws."""
    values = tiny_config(tmp_path) | {"methods": ["scratch"]}
    values["targets"] = [{"dataset": "ss", "per_class": 1, "draws": 2, "measures": ["linear", "knn"]}]
    config = load_config(values)
    found = trainings(config, {name: count_videos(config, name) for name in config.datasets}, lambda name: 12)
    assert [(run.kind, run.target, run.steps, run.trained, run.seen) for run in found] == [
        ("linear", "ss-draw1", 60, 480, 12),
        ("linear", "ss-draw2", 60, 480, 12),
        ("embed", "ss-draw1", 0, 0, 36),
    ]


def test_linear_evaluation_costs_the_same_beside_a_target_without_it(tmp_path):
    values = tiny_config(tmp_path) | {"methods": ["scratch"]}
    linear = {"dataset": "ss", "name": "linear", "measures": ["linear"]}
    hours = []
    for targets in ([linear], [{"dataset": "ss"}, linear]):  # the same finetuning recipe on both
        plan = make_plan(load_config(values | {"targets": targets}), Rates(), cpus=1, gpus=1)
        hours += [run["hours"]["value"] for run in plan["runs"] if run["kind"] == "linear"]
    assert hours[0] == hours[1] and hours[0] > 0
