"""The claims box and the ablation table: differences by hand, the rule, and what they say with one seed."""

import math
import shutil

import pandas as pd
import pytest

from mscl.reporting.ablation import ablation_table, ladder
from mscl.reporting.claims import claims_of, claims_table
from mscl.reporting.paired import Difference, binomial, blocks, mcnemar, over_seeds, t_quantile
from mscl.reporting.results import LINEAR, read_results
from tests.reporting.conftest import settings, write_tree


def test_the_difference_over_seeds_by_hand():
    """Probe accuracies of six seeds of two methods: mean difference .0922, sample deviation .0805."""
    baseline, whole = (0.385, 0.454, 0.468, 0.486, 0.331, 0.423), (0.539, 0.471, 0.501, 0.501, 0.464, 0.624)
    found = over_seeds([w - b for w, b in zip(whole, baseline, strict=True)])
    assert (found.mean, found.error, found.seeds) == (pytest.approx(0.0922, abs=1e-4), pytest.approx(0.0329, abs=1e-4), 6)
    assert t_quantile(6) == pytest.approx(2.571, abs=1e-3) and found.margin == pytest.approx(0.0845, abs=2e-4)
    assert found.verdict == "holds" and found.text() == "+9.2 ± 3.3"
    assert over_seeds([-0.1, -0.11, -0.09]).verdict == "does not hold"


@pytest.mark.parametrize(("values", "verdict"), [
    ([], "not measured"),
    ([0.3], "not enough seeds"),
    ([0.3, 0.3], "not enough seeds"),
    ([0.1, 0.2, 0.3], "holds"),  # .2 against 4.303 x .0577 = .248: not; see below
    ([-0.1, 0.1, 0.3, 0.0], "not decided at 4 seeds"),
    ([0.0, 0.0, 0.0], "not decided at 3 seeds"),
])  # fmt: skip
def test_the_rule(values, verdict):
    if values == [0.1, 0.2, 0.3]:
        assert over_seeds(values).verdict == "not decided at 3 seeds"  # a flat two errors (.115) would have said "holds"
        values = [0.18, 0.2, 0.22]  # .2 against 4.303 x .0115 = .050
    assert over_seeds(values).verdict == verdict


def test_the_error_of_one_paired_test_by_hand():
    """10 videos: 5 right under both, 3 under the first only, 1 under the second only, 1 under none."""
    first = [1] * 8 + [0] * 2
    second = [1] * 5 + [0] * 3 + [1, 0]
    difference, error = mcnemar(first, second)
    assert difference == pytest.approx(0.2) and error == pytest.approx(math.sqrt(3 + 1 - 4 / 10) / 10)
    assert mcnemar([1, 0], [1, 0]) == (0.0, 0.0) and math.isnan(mcnemar([], [])[0])
    assert binomial(0.5, 0.5, 50) == pytest.approx(0.1) and math.isnan(binomial(0.5, 0.5, 0))
    assert Difference(0.2, error, 1, 10, "videos").text() == "+20.0 ± 19.0 (10 test videos)"


def test_rows_of_the_ablation_are_compared_with_the_row_above_and_rivals_with_the_whole():
    assert ladder(["modist", "mscl", "moco", "mine", "lmcl"]) == [
        ("moco", ""),
        ("lmcl", "moco"),
        ("mscl", "lmcl"),
        ("modist", "mscl"),
        ("mine", "mscl"),
    ]
    assert ladder(["modist", "corp-m"]) == [("modist", ""), ("corp-m", "modist")]


def test_claims_are_those_that_the_methods_can_test():
    config = settings(methods=("scratch", "baseline", "lmcl", "mscl", "modist", "simsiam"))
    assert [claim.text for claim in claims_of(config, "r18")] == [
        "MSCL > baseline",
        "MSCL > scratch",
        "MSCL > MoDist",
        "LMCL helps: lmcl > baseline",
    ]


def test_only_seeds_that_both_methods_have_are_paired(tmp_path):
    config = settings(methods=("baseline", "mscl"), seeds=(0, 1, 2, 3))
    write_tree(tmp_path, config)
    results = read_results(config, tmp_path)
    top1 = {"baseline": [0.5, 0.6, 0.4, math.nan], "mscl": [0.6, 0.6, math.nan, 0.9]}
    for method, values in top1.items():
        results.runs.loc[results.runs["method"] == method, "top1"] = values
    row = ablation_table(results).data.query("measure == 'top1' and method == 'mscl'").iloc[0]
    assert (row["mean"], row["seeds"], row["paired_seeds"]) == (pytest.approx(70), 3, 2)
    assert (row["difference"], row["standard_error"]) == (pytest.approx(5), pytest.approx(5))  # of .1 and 0
    assert row["compared_with"] == "baseline" and row["error_from"] == "seeds"
    shown = claims_table(results).shown
    assert shown["Top-1"].tolist() == ["+5.0 ± 5.0; n = 2: not enough seeds"]


def test_with_one_seed_the_error_is_that_of_the_test(tmp_path):
    config = settings(methods=("baseline", "mscl"), seeds=(0,))
    write_tree(tmp_path, config)
    results = read_results(config, tmp_path)
    right = [results.right["toy", "r18", method, 0] for method in ("mscl", "baseline")]
    b, c = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
    table = claims_table(results)
    row = table.data.query("measure == 'top1'").iloc[0]
    assert row["difference"] == pytest.approx(100 * (b - c) / 120) and row["videos"] == 120 and row["seeds"] == 1
    assert row["standard_error"] == pytest.approx(100 * math.sqrt(b + c - (b - c) ** 2 / 120) / 120)
    assert "(120 test videos); one seed: no error bar over seeds: not enough seeds" in table.shown["Top-1"].iat[0]
    assert "(120 test videos, unpaired)" in table.shown["Probe top-1"].iat[0] and "McNemar" in table.caption
    assert "None of these claims can be decided" in table.notes[0] and set(table.data["verdict"]) == {"not enough seeds"}
    assert ablation_table(results).shown["Seeds"].tolist() == ["1, no error bar"] * 6


def test_folds_are_judged_by_their_mean(shared_tree, job):
    config = settings(methods=("baseline", "mscl"), seeds=(0,))
    results = read_results(config, shared_tree)
    folds = tuple(config.targets[0].model_copy(update={"name": f"toy-fold{k}", "fold": k, "folds_of": "toy"}) for k in (1, 2))
    results.runs = pd.concat([results.runs.assign(target=fold.name) for fold in folds], ignore_index=True)
    results.right = {(fold.name, *key[1:]): right for fold in folds for key, right in results.right.items()}
    results.config = config.model_copy(update={"targets": folds})
    (block,) = blocks(results)
    assert block.shown == "toy, mean of folds 1, 2" and block.targets == folds
    alone = claims_table(read_results(config, shared_tree)).data
    both = claims_table(results).data
    assert both["difference"].iat[0] == pytest.approx(alone["difference"].iat[0]) and both["videos"].iat[0] == 240
    assert both["standard_error"].iat[0] == pytest.approx(
        alone["standard_error"].iat[0] / math.sqrt(2)
    )  # two tests of the same size


def test_draws_of_a_seed_count_as_one_value(tmp_path):
    config = settings(methods=("baseline", "mscl"), seeds=(0, 1))
    write_tree(tmp_path, config)
    results = read_results(config, tmp_path)
    kept = config.targets[0].model_copy(update={"per_class": 1, "draws_of": "toy", "measures": ("finetune", "linear", "probe")})
    draws = tuple(kept.model_copy(update={"name": f"toy-draw{k}", "draw": k}) for k in (1, 2, 3))
    results.config = config.model_copy(update={"targets": draws})
    results.columns = [*results.columns, *LINEAR]
    gains = {("toy-draw1", 0): 0.1, ("toy-draw2", 0): 0.2, ("toy-draw3", 0): 0.3, ("toy-draw1", 1): 0.4, ("toy-draw2", 1): 0.4}
    rows = []
    for draw in draws:
        of = results.runs.assign(target=draw.name)
        gain = [gains.get((draw.name, seed), math.nan) for seed in of["seed"]]
        top1 = [0.5 + g * (method == "mscl") for g, method in zip(gain, of["method"], strict=True)]
        rows.append(of.assign(top1=top1, linear_top1=top1, linear_top5=math.nan))
    results.right = {(draw.name, *key[1:]): right for draw in draws for key, right in results.right.items()}
    results.runs = pd.concat(rows, ignore_index=True)
    table = claims_table(results)
    row = table.data.query("measure == 'top1'").iloc[0]
    assert (row["seeds"], row["difference"]) == (1, pytest.approx(20)) and row["videos"] == 120  # seed 1 lacks its third draw
    assert row["target"] == "toy, mean of 3 draws" and "count as one value" in table.caption
    right = [results.right["toy-draw1", "r18", method, 0] for method in ("mscl", "baseline")]
    assert row["standard_error"] == pytest.approx(100 * mcnemar(*right)[1])  # thrice the same answers are no smaller error
    assert table.data.query("measure == 'linear_top1'")["difference"].tolist() == [pytest.approx(20)]
    results.runs["top1"] = results.runs["top1"].fillna(0.9)
    assert claims_table(results).data.query("measure == 'top1'")["seeds"].tolist() == [2]  # and not 2 x 3 x 3
    results.runs["finetune_card"] = results.runs["target"] + "-s" + results.runs["seed"].astype(str)
    shown = ablation_table(results)
    assert shown.shown["Seeds"].iloc[:2].tolist() == ["2 x 3 draws"] * 2
    assert shown.cards[0, "Mean ± sd"] == [f"toy-draw{k}-s{seed}" for seed in (0, 1) for k in (1, 2, 3)]
    results.runs = results.runs[results.runs["seed"] == 0]
    assert ablation_table(results).shown["Seeds"].iloc[0] == "1 x 3 draws, no error bar over seeds"


def test_the_mean_over_folds_is_of_those_that_the_model_is_tested_on(shared_tree, job):
    results = read_results(job.config, shared_tree)
    folds = tuple(
        job.config.targets[0].model_copy(update={"name": f"toy-fold{k}", "fold": k, "folds_of": "toy"}) for k in (1, 2, 3)
    )
    of = {"r18": folds, "other": folds[1:]}
    rows = [results.runs.assign(target=fold.name, model=model) for model, own in of.items() for fold in own]
    results.runs, results.config = pd.concat(rows, ignore_index=True), job.config.model_copy(update={"targets": folds})
    assert [(block.shown, block.model, len(block.targets)) for block in blocks(results)] == [
        ("toy, mean of folds 1, 2, 3", "r18", 3),
        ("toy, mean of folds 2, 3", "other", 2),
    ]


def test_without_results_or_methods_to_compare_nothing_is_claimed(shared_tree, job, tmp_path):
    table = claims_table(read_results(job.config, tmp_path))
    assert set(table.data["verdict"]) == {"not measured"} and set(table.shown["Top-1"]) == {"not measured"}
    alone = read_results(settings(methods=("mscl",)), shared_tree)
    assert claims_table(alone) is None and ablation_table(alone) is None
    shutil.copytree(shared_tree, tmp_path / "results")
    for path in (tmp_path / "results" / "finetune").rglob("mscl/seed*/predictions.parquet"):
        path.unlink()  # metrics.json still has the accuracy, but no video can be paired
    one = read_results(settings(seeds=(0,)), tmp_path / "results")
    row = claims_table(one).data.query("better == 'mscl' and measure == 'top1'").iloc[0]
    assert math.isnan(row["standard_error"]) and row["verdict"] == "not enough seeds" and row["error_from"] == ""
