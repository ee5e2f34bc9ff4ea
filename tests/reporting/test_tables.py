import math
import re
import shutil

import pandas as pd
import pytest

from mscl.config.recipes import FinetuneChanges
from mscl.measures.confusion import NO_PAIRS
from mscl.reporting.formats import Table, latex_escape, mean_sd
from mscl.reporting.health import compute_table, data_table, duration, flow_error_table, unusable_table
from mscl.reporting.page import summary
from mscl.reporting.pairs import table2, table2_published
from mscl.reporting.published import orientation_table, table1_published
from mscl.reporting.results import read_results
from mscl.reporting.tables import published, span, table1, table3


@pytest.fixture
def tree(shared_tree, tmp_path):
    shutil.copytree(shared_tree, tmp_path / "results")
    return tmp_path / "results"


def test_percent_and_span_by_hand():
    assert mean_sd(0.55, pd.Series([0.5, 0.6]).std()) == "55.0 ± 7.1"  # sample deviation of 50 and 60
    assert mean_sd(0.125, math.nan) == "12.5" and mean_sd(math.nan, math.nan) == "–"
    assert span(pd.Series([7, 7])) == "7" and span(pd.Series([7, 9])) == "7–9" and span(pd.Series([], dtype=int)) == "–"


def test_table1_is_recomputed_from_the_predictions(tree, job):
    folder = tree / "finetune" / "toy" / "r18" / "mscl"
    for seed, right in ((0, 3), (1, 1)):
        rows = [(f"v{i}", 0, [0 if i < right else 1, 2], [0.9, 0.1]) for i in range(4)] + [("v9", 0, [], [])]
        pd.DataFrame(rows, columns=["clip_id", "label", "top", "probability"]).to_parquet(
            folder / f"seed{seed}" / "predictions.parquet"
        )
    results = read_results(job.config, tree)
    table = table1(results)
    row = table.shown[table.shown["Method"] == "mscl"].iloc[0]
    assert (row["Top-1 %"], row["Seeds"], row["Test videos"], row["Chance %"]) == ("50.0 ± 35.4", "2", "4", "16.7")
    assert sum("metrics.json of r18, mscl" in note for note in table.notes) == 2  # metrics.json still has the old number


def test_published_and_measured_rows_are_told_apart(shared_tree, job):
    table, paper = table1(read_results(job.config, shared_tree)), table1_published().shown
    assert paper[["Method", "Backbone", "Top-1 %"]].values.tolist() == [
        ["MoDist", "R50", "57.4"],
        ["rhoMoCo", "R50", "54.4"],
        ["CORP_f", "R50", "41.1"],
        ["CORP_m", "R50", "48.8"],
        ["MSCL", "R50", "58.7"],
        ["MSCL", "R3D-18", "50.3"],
    ]
    measured = table.shown
    assert measured["Method"].tolist() == list(job.config.methods) and set(measured["Target"]) == {"toy"}
    assert set(paper["Target"]) == {"SSv2"} and set(paper["Origin"]) == {"published"} and set(measured["Origin"]) == {"measured"}
    assert "Demo numbers are not paper numbers" in table.caption and set(table.data["kind"]) == {"demo"}


def test_numbers_of_others_have_their_source_and_are_marked():
    table = orientation_table()
    rows = table.shown.set_index("Method")
    assert rows.loc["TCLR", ["UCF101 top-1", "HMDB51 top-1", "UCF101 retrieval R@1"]].tolist() == ["82.4", "52.9", "56.2"]
    assert rows.loc["BYOL, ρ = 4", "SSv2 top-1"] == "–" and rows.loc["BYOL, ρ = 2", "SSv2 top-1"] == "54.4"
    assert rows["Source"].str.len().min() > 10 and set(table.groups) == {"published"} and "under other recipes" in table.title


def test_table2_published_is_the_supplements(shared_tree):
    table = table2_published()
    assert table.shown["Baseline"].tolist() == ["26", "50", "31", "51", "39", "31"]
    assert table.shown["MSCL"].tolist() == ["16", "37", "18", "66", "45", "37"]
    assert {column for row, column in table.bold if row < 3} == {"MSCL"}
    assert {column for row, column in table.bold if row > 2} == {"Baseline"}
    assert len(published()) == 34


def test_table2_measured_marks_the_better_count(tree, job):
    columns = ["a", "b", "left_confused", "right_confused", "left_proportion", "right_proportion", "block", "rank"]
    rows = [
        ["x", "y", 9, 2, 0.225, 0.05, "left", 1],
        ["x", "z", 3, 3, 0.075, 0.075, "right", 1],
        ["y", "z", 1, 0, 0.025, 0, "", 0],
    ]
    both = {"left_method": "baseline", "right_method": "mscl", "left_videos": 40, "right_videos": 40}
    pairs = pd.DataFrame(rows, columns=columns).assign(**both)
    pairs.to_csv(tree / "analysis" / "toy" / "r18" / "pairs.csv", index=False)
    table = table2(read_results(job.config, tree))
    assert table.shown.values.tolist() == [["baseline", "x | y", "9", "2", "40"], ["mscl", "x | z", "3", "3", "40"]]
    assert table.bold == {(0, "mscl")} and len(table.cards[0, "baseline"]) == 2 and "confused(a, b) =" in table.caption


def test_table2_without_pairs_has_a_note(tree, job):
    path = tree / "analysis" / "toy" / "r18" / "pairs.csv"
    path.write_text(path.read_text().splitlines()[0] + "\n")
    table = table2(read_results(job.config, tree))
    assert table.shown.empty and NO_PAIRS in table.notes[0] and NO_PAIRS in table.markdown() and "toprule" in table.latex()


def test_one_method_alone_has_one_column(synthetic, tmp_path):
    config = synthetic.settings(methods=("mscl",), seeds=(0,))
    synthetic.write_tree(tmp_path, config)
    results = read_results(config, tmp_path)
    assert list(table2(results).shown.columns) == ["Most confusing to", "Confusing pair", "mscl", "Videos"]
    assert "±" not in table3(results).shown.to_string() and results.missing == []


def test_missing_results_are_reported(tree, job):
    shutil.rmtree(tree / "finetune" / "toy" / "r18" / "mscl" / "seed1")
    shutil.rmtree(tree / "analysis")
    (tree / "frozen" / "toy" / "r18" / "mscl" / "seed0" / "metrics.json").write_text("{")
    (tree / "data.json").unlink()
    results = read_results(job.config, tree)
    said = "The frozen tests of r18, mscl, seed 0 cannot be read: results/frozen/toy/r18/mscl/seed0/metrics.json"
    assert any(sentence.startswith(said) for sentence in results.missing)
    assert (
        "The finetuning of r18, mscl, seed 1 is missing: no results/finetune/toy/r18/mscl/seed1/metrics.json; run its stage."
        in results.missing
    )
    row = table1(results).shown.iloc[-1]
    assert row["Source"] == "toy, demo; 1 of 2 seeds finished" and row["Seeds"] == "1, no error bar"
    assert table2(results).shown.empty and "pairs of r18 is missing" in table2(results).notes[0]
    assert flow_error_table(results) is None and "is missing" in data_table(results).notes[0]


def test_probe_switched_off(shared_tree, job):
    config = job.config.model_copy(
        update={"targets": tuple(t.model_copy(update={"measures": ("finetune",)}) for t in job.config.targets)}
    )
    table = table3(read_results(config, shared_tree))
    assert "Probe top-1" not in table.shown and "no target asks for a measure of them" in table.notes[-1]


def test_health_tables(shared_tree, job):
    results = read_results(job.config, shared_tree)
    assert data_table(results).shown.values.tolist() == [
        ["toy", "train", "200", "199", "1", "0"],
        ["toy", "validation", "120", "119", "0", "1"],
    ]
    assert "no start in 3 videos" in data_table(results).notes[-1]
    assert unusable_table(results).shown["Reason"].tolist()[1] == "no file videos/v998.webm"
    assert dict(flow_error_table(results).shown.values)["Grid of the fields (H x W)"] == "48 x 64"
    table = compute_table(results)
    assert table.shown.iloc[0].tolist() == ["pretrain", "r18", "baseline", "2", "21 min", "1234"] and len(table.data) == 17
    assert [duration(s) for s in (4, 125, 7260)] == ["4.0 s", "2 min", "2 h 01 min"]


def test_latex_is_escaped():
    assert latex_escape(r"50% of a_b & {c} #1 $5 ~^\ <x>") == (
        r"50\% of a\_b \& \{c\} \#1 \$5 \textasciitilde{}\textasciicircum{}\textbackslash{} \textless{}x\textgreater{}"
    )
    frame = pd.DataFrame({"a_b": ["50% & more", "1 ± 2"], "n": ["3", "–"]})
    text = Table("t", "100% title", frame, bold={(0, "a_b")}).latex()
    assert (
        r"\toprule" in text
        and r"a\_b & n \\" in text
        and r"\textbf{50\% \& more} & 3 \\" in text
        and r"1 $\pm$ 2 & -- \\" in text
    )


def test_markdown_keeps_pipes_and_links_cards():
    frame = pd.DataFrame({"Pair": ["a | b_c"], "n": ["3"]})
    text = Table("t", "T", frame, cards={(0, "n"): ["finetune-x"]}, bold={(0, "n")}).markdown("../")
    assert r"a \| b\_c" in text and "**3** [[1]](../cards/finetune-x.json)" in text


def test_class_names_with_special_characters_are_escaped(shared_tree, job):
    text = table2(read_results(job.config, shared_tree)).latex()
    assert r"turning it by 50\%" in text and r"\& turning" in text


def test_predictions_of_other_classes_are_reported(tree, job, synthetic):
    synthetic.put(
        tree / "finetune" / "toy" / "r18" / "mscl" / "seed0" / "metrics.json",
        {"top1": 0.5, "top5": 0.9, "videos": 4, "skipped": 0, "classes": 2},
    )
    results = read_results(job.config, tree)
    assert any(
        "predictions of r18, mscl, seed 0 cannot be counted" in sentence and "not one of 2 classes" in sentence
        for sentence in results.missing
    )


def test_a_rival_is_shown_by_the_name_of_its_paper(synthetic, tmp_path):
    config = synthetic.settings(methods=("rho-moco-3", "corp-m", "mscl"), seeds=(0,))
    synthetic.write_tree(tmp_path, config)
    table = table1(read_results(config, tmp_path))
    measured = table.shown["Origin"] == "measured"
    assert table.shown["Method"][measured].tolist() == ["ρMoCo (ρ = 3)", "CORP_m", "mscl"]
    assert table.data["method"][measured].tolist() == ["rho-moco-3", "corp-m", "mscl"]  # in the CSV, as in the configuration
    assert r"$\rho$MoCo ($\rho$ = 3)" in table.latex() and r"CORP\_m" in table.latex()


def test_several_targets_are_columns_and_rows_of_their_own(shared_tree, job):
    """A second target without results, on which only retrieval is measured: nothing is mixed, and what is missing is said."""
    second = job.config.targets[0].model_copy(update={"name": "other", "measures": ("retrieval",)})
    config = job.config.model_copy(update={"targets": (*job.config.targets, second)})
    results, alone = read_results(config, shared_tree), read_results(job.config, shared_tree)
    assert table1(results).shown["Top-1 %"].tolist() == table1(alone).shown["Top-1 %"].tolist()
    both = table3(results).shown
    assert both["Target"].tolist() == ["toy"] * len(table3(alone).shown) + ["other"] * len(table3(alone).shown)
    own = both[both["Target"] == "other"]
    assert set(own["R@1"]) == set(own["Top-1"]) == {"–"} and set(own["Seeds"]) == {"0"}
    assert both[both["Target"] == "toy"].drop(columns="Target").values.tolist() == table3(alone).shown.values.tolist()
    assert any("The frozen tests of r18, mscl, seed 0 on other is missing" in sentence for sentence in results.missing)
    assert not any("finetuning of r18, mscl, seed 0 on other" in sentence for sentence in results.missing)


def test_the_caption_of_all_measures_tells_what_was_trained(shared_tree, job):
    def said(*measures):
        targets = (job.config.targets[0].model_copy(update={"measures": measures}),)
        return table3(read_results(job.config.model_copy(update={"targets": targets}), shared_tree)).caption

    assert "Top-1 and top-5 are measured after finetuning; the others use the frozen backbone" in said("finetune", "probe")
    assert "Top-1 and top-5 are measured after finetuning. " in said("finetune")
    assert "finetuning" not in said("linear") and "All use the frozen backbone (randomly" in said("linear")


def test_the_head_of_the_page_shows_the_recipes_that_are_used(shared_tree, job):
    def recipes(*targets):
        found = [job.config.targets[0].model_copy(update=update) for update in targets]
        config = job.config.model_copy(update={"targets": tuple(found)})
        return dict(summary(read_results(config, shared_tree)))["Model r18"]

    assert "finetuning 6 epochs" in recipes({}) and "linear evaluation" not in recipes({})
    linear = {"measures": ("linear",)}
    assert "linear evaluation 60 epochs, batch 4, sgd" in recipes(linear) and "finetuning" not in recipes(linear)
    longer = {"name": "other", "finetune": FinetuneChanges(epochs=5)}
    assert re.search("finetuning on toy 6 epochs, .*; finetuning on other 5 epochs", recipes({}, longer))


def test_folds_are_rows_and_so_is_their_mean(shared_tree, job):
    """Two "folds" with the results of one target: their mean is that target's row, in Tables 1 and 3."""
    (target,) = job.config.targets
    folds = tuple(target.model_copy(update={"name": f"toy-fold{k}", "folds_of": "toy", "fold": k}) for k in (1, 2))
    found, alone = read_results(job.config, shared_tree), read_results(job.config, shared_tree)
    found.runs = pd.concat([found.runs.assign(target=fold.name) for fold in folds], ignore_index=True)
    found.config = job.config.model_copy(update={"targets": folds})
    for table, name in ((table1, "Top-1 %"), (table3, "R@1")):
        shown, before = table(found).shown, table(alone).shown
        mean = shown[shown["Target"] == "toy, mean of folds 1, 2"]
        assert (
            mean[name].tolist() == before[before.get("Origin", pd.Series("measured", before.index)) == "measured"][name].tolist()
        )
        assert mean["Seeds"].tolist() == ["2"] * len(mean) and (shown["Target"] == "toy-fold2").sum() == len(mean)
    found.runs.loc[(found.runs.target == "toy-fold2") & (found.runs.method == "mscl") & (found.runs.seed == 1), ["top1"]] = float(
        "nan"
    )
    mean = table1(found).shown.set_index(["Target", "Method"]).loc[("toy, mean of folds 1, 2", "mscl")]
    assert mean["Seeds"] == "1, no error bar"  # a seed counts only where every fold was measured
