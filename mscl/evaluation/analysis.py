"""The supplement's analysis of one model: Table 2 (confusing pairs) and Figures 1 and 2 (GradCAM)."""

from __future__ import annotations

import difflib
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from mscl.machine.files import atomic_write, write_json
from mscl.measures.confusion import compare_pairs, confused_pairs, join_pairs
from mscl.measures.topk import with_prediction
from mscl.stages.jobs import AnalysisJob
from mscl.stages.layout import FIGURES, GRADCAM, PAIRS

DRAWN = 2  # figures when the configuration names no template


def class_names(manifest: pd.DataFrame) -> list[str]:
    """Class names by number, from every labelled row of a manifest; a number that no row has is called by itself."""
    known = manifest[manifest["label"] >= 0].drop_duplicates("label").set_index("label")["class_name"]
    return [str(known.get(number, f"class {number}")) for number in range(int(known.index.max()) + 1 if len(known) else 0)]


def pairs_of(paths: Sequence[Path], names: Sequence[str]) -> pd.DataFrame:
    """`confused_pairs` of a method, added up over its seeds' predictions files."""
    rows = pd.concat([with_prediction(pd.read_parquet(path)) for path in paths], ignore_index=True)
    return confused_pairs(rows["label"].to_numpy(), [int(top[0]) for top in rows["top"]], names)


def pairs_table(left: pd.DataFrame, right: pd.DataFrame, methods: tuple[str, str], top: int) -> pd.DataFrame:
    """Every pair either method confuses, with its place in Table 2 (block "" and rank 0 when it has none)."""
    table2 = compare_pairs(left, right, top)
    table = join_pairs(left, right).merge(table2[["a", "b", "block", "rank"]], on=["a", "b"], how="left")
    table = table.assign(block=table["block"].fillna(""), rank=table["rank"].fillna(0).astype(int))
    table.insert(2, "left_method", methods[0])
    table.insert(3, "right_method", methods[1])
    order = table.assign(place=table["block"].map({"left": 0, "right": 1, "": 2}), worst=-table["left_proportion"])
    return table.loc[order.sort_values(["place", "rank", "worst", "a", "b"]).index].reset_index(drop=True)


def both_predictions(predictions: Mapping[str, Path], methods: tuple[str, str]) -> pd.DataFrame:
    """One row per video that both methods classified: clip_id, label, then class and probability of each side."""
    sides = []
    for side, method in zip(("left", "right"), methods, strict=True):
        rows = with_prediction(pd.read_parquet(predictions[method]))
        sides.append(
            pd.DataFrame(
                {
                    "clip_id": rows["clip_id"],
                    "label": rows["label"].astype(int),
                    f"{side}_class": [int(t[0]) for t in rows["top"]],
                    f"{side}_probability": [float(p[0]) for p in rows["probability"]],
                }
            )
        )
    table = sides[0].merge(sides[1].drop(columns="label"), on="clip_id").sort_values("clip_id", ignore_index=True)
    table["gain"] = (table["right_class"] == table["label"]) & (table["left_class"] != table["label"])
    return table


def choose_templates(pairs: pd.DataFrame, both: pd.DataFrame, names: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """Class names to draw: the configured ones, else a class of each of the two pairs most helped.

    Of a pair, the class with more videos that the right method alone gets right. Too few helped pairs are filled
    up with the classes of most such videos. Raises ValueError for a configured template that is no class.
    """
    if wanted:
        plain = [template.replace("[", "").replace("]", "") for template in wanted]
        for template in plain:
            if template not in names:
                near = difflib.get_close_matches(template, names, n=1)
                hint = f"did you mean '{near[0]}'?" if near else "take one of the manifest's class_name column"
                raise ValueError(f"analysis.gradcam: no class '{template}' in the test data set; {hint}")
        return plain
    gains = both.groupby("label")["gain"].sum() if len(both) else pd.Series(dtype=int)
    gain = {names[int(label)]: int(count) for label, count in gains.items()}
    helped = pairs.assign(drop=pairs["left_proportion"] - pairs["right_proportion"])
    helped = helped[helped["drop"] > 0].sort_values(["drop", "a", "b"], ascending=[False, True, True])
    ranked = [max((a, b), key=lambda name: gain.get(name, 0)) for a, b in zip(helped["a"], helped["b"], strict=True)]
    ranked += sorted(gain, key=lambda name: (-gain[name], name))
    return list(dict.fromkeys(ranked))[:DRAWN]


def choose_example(both: pd.DataFrame, label: int) -> tuple[pd.Series, str] | None:
    """The test video to draw for a class, and why: one only the right method gets right, else one it gets right, else any.

    Among equals the one with the most confident right method, then the first clip_id. None without a test video.
    """
    rows = both[both["label"] == label]
    for chosen, why in (
        (rows[rows["gain"]], "right for {right}, wrong for {left}"),
        (rows[rows["right_class"] == label], "right for {right}; no video of this class is right for {right} alone"),
        (rows, "no video of this class is right for {right}"),
    ):
        if len(chosen):
            return chosen.sort_values(["right_probability", "clip_id"], ascending=[False, True]).iloc[0], why
    return None


def run_analysis(job: AnalysisJob, out_dir: Path) -> None:
    """Write pairs.csv, gradcam/fig1.png … and gradcam.json below `out_dir`. The two methods of the job may be one and the same."""
    predictions, weights = job.predictions(), job.weights()
    lacking = [path for paths in (*predictions.values(), weights.values()) for path in paths if not path.exists()]
    if lacking:
        raise ValueError(f"analysis: no {lacking[0]}; run its finetune stage first")
    out_dir.mkdir(parents=True, exist_ok=True)
    (out_dir / FIGURES).mkdir(exist_ok=True)
    table = pd.read_parquet(job.source.manifest)
    names = class_names(table)
    left, right = (pairs_of(predictions[method], names) for method in job.methods)
    pairs = pairs_table(left, right, job.methods, job.analysis.pairs)
    with atomic_write(out_dir / PAIRS) as part:
        pairs.to_csv(part, index=False, lineterminator="\n")

    both = both_predictions({m: predictions[m][0] for m in job.methods}, job.methods)
    figures, notes = [], []
    for template in choose_templates(pairs, both, names, job.analysis.gradcam):
        example = choose_example(both, names.index(template))
        if example is None:
            notes.append(f"No figure for '{template}': both methods together classified no test video of it.")
            continue
        row, why = example
        reason = (
            why.format(left=job.methods[0], right=job.methods[1])
            if job.methods[0] != job.methods[1]
            else f"one method, {job.methods[1]}"
        )
        figures.append(_describe(job, row, names, f"{FIGURES}/fig{len(figures) + 1}.png", reason))
    if not figures and not notes:
        notes.append("No figure: no test video was classified by both methods.")
    for old in (out_dir / FIGURES).glob("fig*.png"):
        old.unlink()
    if not _draw(job, table, weights, figures, out_dir):
        notes.append(f"No figure: backbone {job.net.backbone} has no map of time and space that GradCAM could explain.")
        figures = []
    document = {"methods": list(job.methods), "seed": job.seeds[0], "figures": figures, "notes": notes}
    write_json(out_dir / GRADCAM, document)


def _describe(job: AnalysisJob, row: pd.Series, names: Sequence[str], file: str, reason: str) -> dict:
    """What gradcam.json says of one figure."""
    sides = {
        method: {
            "class": names[int(row[f"{side}_class"])],
            "probability": round(float(row[f"{side}_probability"]), 4),
            "correct": bool(row[f"{side}_class"] == row["label"]),
        }
        for side, method in zip(("right", "left"), reversed(job.methods), strict=True)  # the paper draws MSCL on top
    }
    return {
        "file": file,
        "clip_id": str(row["clip_id"]),
        "template": names[int(row["label"])],
        "reason": reason,
        "predictions": sides,
    }


def _draw(
    job: AnalysisJob,
    manifest: pd.DataFrame,
    weights: Mapping[str, Path],
    figures: Sequence[dict],
    out_dir: Path,
) -> bool:
    """Draw the figures that `figures` describes, and add to each the grid of the stage it shows.

    False, and nothing drawn, for a backbone that has no such stage.
    """
    if not figures:
        return True
    import torch

    from mscl.evaluation.gradcam import draw_rows, gradcam, stage_grid
    from mscl.store.shards import Shards
    from mscl.training.augment import normalise
    from mscl.training.clips import UniformClips
    from mscl.training.finetune import load_classifier
    from mscl.training.hardware import prepare_device

    device = prepare_device(job.device, job.threads)
    ids = [figure["clip_id"] for figure in figures]
    rows = manifest[(manifest["split"] == job.test) & manifest["clip_id"].isin(ids)]
    clips = UniformClips(
        Shards(job.source.frame_indexes()), rows, frames=job.finetune.frames, size=job.finetune.test_size, clips=1
    )
    place = {str(clip): number for number, clip in enumerate(clips.rows["clip_id"])}
    classes = len(class_names(manifest))
    models = {
        m: load_classifier(weights[m], job.net, job.finetune, classes).to(device) for m in dict.fromkeys(reversed(job.methods))
    }
    if any(model.backbone.gradcam_layer is None for model in models.values()):
        return False
    for figure in figures:
        item = clips[place[figure["clip_id"]]]
        frames_THWC = np.asarray(item["clip_KTHWC"][0])
        clip_BCTHW = normalise(torch.from_numpy(frames_THWC)[None].to(device))
        heats = {m: gradcam(model, clip_BCTHW, int(item["label"]))[0] for m, model in models.items()}
        figure["grid"] = list(stage_grid(next(iter(models.values())), clip_BCTHW))
        title = f"“{figure['template']}”  ({figure['clip_id']})"
        draw_rows(
            frames_THWC,
            heats,
            title,
            out_dir / figure["file"],
            {m: _caption(figure["predictions"][m], bool(h.any())) for m, h in heats.items()},
        )
    return True


def _caption(prediction: Mapping, heat: bool = True) -> str:
    """A method's answer in a few short lines, and that its row is cold where there is no positive evidence for the true class."""
    said = textwrap.shorten(prediction["class"], 62, placeholder=" …")
    mark = "right" if prediction["correct"] else "wrong"
    return "\n".join(
        [
            *textwrap.wrap(said, 26),
            f"p = {prediction['probability']:.2f} ({mark})",
            *([] if heat else ["no positive evidence for this class"]),
        ]
    )
