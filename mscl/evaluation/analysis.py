"""The supplement's analysis of one model: Table 2 (confusing pairs) and Figures 1 and 2 (GradCAM)."""

from __future__ import annotations

import difflib
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from mscl.machine.files import atomic_write, write_json
from mscl.measures.confusion import compare_pairs, confused_pairs, join_pairs
from mscl.measures.topk import with_prediction
from mscl.stages.jobs import AnalysisJob
from mscl.stages.layout import FIGURES, GRADCAM, PAIRS

if TYPE_CHECKING:
    import torch

STRIP = f"{FIGURES}/strip.png"
DRAWN = 2  # number of figures when the configuration names no template


def class_names(manifest: pd.DataFrame) -> list[str]:
    """Class names, indexed by label, from the labelled rows of a manifest. A label without any video is named "class <label>"."""
    known = manifest[manifest["label"] >= 0].drop_duplicates("label").set_index("label")["class_name"]
    return [str(known.get(number, f"class {number}")) for number in range(int(known.index.max()) + 1 if len(known) else 0)]


def pairs_of(paths: Sequence[Path], names: Sequence[str]) -> pd.DataFrame:
    """`confused_pairs` of a method, summed over the predictions files of its seeds (`paths`)."""
    rows = pd.concat([with_prediction(pd.read_parquet(path)) for path in paths], ignore_index=True)
    return confused_pairs(rows["label"].to_numpy(), [int(top[0]) for top in rows["top"]], names)


def pairs_table(left: pd.DataFrame, right: pd.DataFrame, methods: tuple[str, str], top: int) -> pd.DataFrame:
    """Every pair that either method confuses, with its place in Table 2 (block "" and rank 0 when it is not in Table 2).

    `left` and `right` are the `confused_pairs` of `methods`; `top` is the number of pairs per block.
    """
    table2 = compare_pairs(left, right, top)
    table = join_pairs(left, right).merge(table2[["a", "b", "block", "rank"]], on=["a", "b"], how="left")
    table = table.assign(block=table["block"].fillna(""), rank=table["rank"].fillna(0).astype(int))
    table.insert(2, "left_method", methods[0])
    table.insert(3, "right_method", methods[1])
    order = table.assign(place=table["block"].map({"left": 0, "right": 1, "": 2}), worst=-table["left_proportion"])
    return table.loc[order.sort_values(["place", "rank", "worst", "a", "b"]).index].reset_index(drop=True)


def both_predictions(predictions: Mapping[str, Path], methods: tuple[str, str]) -> pd.DataFrame:
    """One row per video that both methods classified.

    Columns: clip_id, label, class and probability of each side (left_class, …), and gain: only the right method is correct.
    """
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


def _plain(template: str) -> str:
    return template.replace("[", "").replace("]", "")


def unknown_templates(names: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """A sentence for each configured template that is not a class: the trainings are done, so the analysis does not fail for it."""
    notes = []
    for template in (plain for t in wanted if (plain := _plain(t)) not in names):
        near = difflib.get_close_matches(template, names, n=1)
        hint = f"did you mean '{near[0]}'?" if near else "take one from the column class_name of the manifest"
        notes.append(f"analysis.gradcam: no class '{template}' in the test data set; {hint}")
    return notes


def choose_templates(pairs: pd.DataFrame, both: pd.DataFrame, names: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """The classes to draw: those of the configuration (`wanted`), else one class of each of the two pairs improved most.

    Of a pair, the class with more videos that only the right method classifies correctly. If fewer than two pairs improved, the
    classes with the most such videos follow. A configured template that is not a class is left out: see `unknown_templates`.
    """
    if wanted:
        return [plain for template in wanted if (plain := _plain(template)) in names]
    gains = both.groupby("label")["gain"].sum() if len(both) else pd.Series(dtype=int)
    gain = {names[int(label)]: int(count) for label, count in gains.items()}
    helped = pairs.assign(drop=pairs["left_proportion"] - pairs["right_proportion"])
    helped = helped[helped["drop"] > 0].sort_values(["drop", "a", "b"], ascending=[False, True, True])
    ranked = [max((a, b), key=lambda name: gain.get(name, 0)) for a, b in zip(helped["a"], helped["b"], strict=True)]
    ranked += sorted(gain, key=lambda name: (-gain[name], name))
    return list(dict.fromkeys(ranked))[:DRAWN]


def choose_example(both: pd.DataFrame, label: int) -> tuple[pd.Series, str] | None:
    """The test video to draw for a class, and the reason with {left} and {right} for the methods. None without a test video.

    A video that only the right method classifies correctly; else one that it classifies correctly; else any. Ties: the highest
    probability of the right method, then the first clip_id.
    """
    rows = both[both["label"] == label]
    for chosen, why in (
        (rows[rows["gain"]], "{right} is right, {left} is wrong"),
        (rows[rows["right_class"] == label], "{right} is right; there is no video of this class where only {right} is right"),
        (rows, "{right} is wrong on every video of this class"),
    ):
        if len(chosen):
            return chosen.sort_values(["right_probability", "clip_id"], ascending=[False, True]).iloc[0], why
    return None


def run_analysis(job: AnalysisJob, out_dir: Path) -> None:
    """Write pairs.csv, gradcam/fig1.png … and gradcam.json to `out_dir`. The two methods of the job may be the same one.

    Raises ValueError when a prediction or weights file is missing.
    """
    predictions, weights = job.predictions(), job.weights()
    lacking = [path for paths in (*predictions.values(), weights.values()) for path in paths if not path.exists()]
    if lacking:
        raise ValueError(f"analysis: {lacking[0]} is missing; run its finetune stage first")
    out_dir.mkdir(parents=True, exist_ok=True)
    (out_dir / FIGURES).mkdir(exist_ok=True)
    from mscl.training.clips import manifest_rows

    table = manifest_rows(job.source)
    names = class_names(table)
    left, right = (pairs_of(predictions[method], names) for method in job.methods)
    pairs = pairs_table(left, right, job.methods, job.analysis.pairs)
    with atomic_write(out_dir / PAIRS) as part:
        pairs.to_csv(part, index=False, lineterminator="\n")

    both = both_predictions({m: predictions[m][0] for m in job.methods}, job.methods)
    figures, notes = [], unknown_templates(names, job.analysis.gradcam)
    for template in choose_templates(pairs, both, names, job.analysis.gradcam):
        example = choose_example(both, names.index(template))
        if example is None:
            notes.append(f"No figure for '{template}': no test video of this class was classified by both methods.")
            continue
        row, why = example
        first, second = job.methods
        reason = why.format(left=first, right=second) if first != second else f"only one method, {second}"
        figures.append(_describe(job, row, names, f"{FIGURES}/fig{len(figures) + 1}.png", reason))
    if not figures and not notes:
        notes.append("No figure: no test video was classified by both methods.")
    for old in (out_dir / FIGURES).glob("fig*.png"):
        old.unlink()
    if not _draw(job, table, weights, figures, out_dir):
        notes.append(f"No figure: backbone {job.net.backbone} has no layer with a map over time and space for GradCAM.")
        figures = []
    strip = _strip(job, table, pairs, both, names, out_dir)
    document = {"methods": list(job.methods), "seed": job.seeds[0], "figures": figures, "strip": strip, "notes": notes}
    write_json(out_dir / GRADCAM, document)


def _describe(job: AnalysisJob, row: pd.Series, names: Sequence[str], file: str, reason: str) -> dict:
    """The entry of one figure in gradcam.json."""
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
    """Draw the described figures, and add to each description "grid", the (T, H, W) of the layer that GradCAM used.

    Returns False, and draws nothing, when a backbone has no layer for GradCAM.
    """
    if not figures:
        return True
    from mscl.training.hardware import prepare_device

    device = prepare_device(job.device, job.threads)
    models = _classifiers(job, weights, len(class_names(manifest)), device)
    if any(model.backbone.gradcam_layer is None for model in models.values()):
        return False
    items = _items(job, manifest, [figure["clip_id"] for figure in figures])
    for figure in figures:
        _draw_figure(figure, items[figure["clip_id"]], models, device, out_dir / figure["file"])
    return True


def _items(job: AnalysisJob, manifest: pd.DataFrame, ids: Sequence[str]) -> dict[str, dict]:
    """clip_id -> one clip of the test video, read as in the test."""
    from mscl.store.shards import Shards
    from mscl.training.clips import UniformClips

    rows = manifest[(manifest["split"] == job.test) & manifest["clip_id"].isin(ids)]
    recipe = job.finetune
    clips = UniformClips(Shards(job.source.frame_indexes()), rows, recipe.frames, recipe.test_size, stride=recipe.stride)
    return {str(clip): clips[number] for number, clip in enumerate(clips.rows["clip_id"])}


def _strip(
    job: AnalysisJob, manifest: pd.DataFrame, pairs: pd.DataFrame, both: pd.DataFrame, names: Sequence[str], out_dir: Path
) -> dict | None:
    """Draw one test video of each of two classes (`mscl.evaluation.strip`). Its entry in gradcam.json; None with fewer than two classes."""
    from mscl.evaluation.strip import choose_pair, draw_strip

    (out_dir / STRIP).unlink(missing_ok=True)
    chosen = choose_pair(pairs, [names[label] for label in sorted(set(both["label"]))])
    if chosen is None:
        return None
    *classes, reason = chosen
    ids = [str(choose_example(both, names.index(name))[0]["clip_id"]) for name in classes]
    items = _items(job, manifest, ids)
    draw_strip(
        [(name, np.asarray(items[clip]["clip_KTHWC"][0])) for name, clip in zip(classes, ids, strict=True)], out_dir / STRIP
    )
    return {"file": STRIP, "classes": classes, "clip_ids": ids, "reason": reason}


def _classifiers(job: AnalysisJob, weights: Mapping[str, Path], classes: int, device: torch.device) -> dict[str, torch.nn.Module]:
    """The finetuned classifier of each method, the second method first, as in the figure."""
    from mscl.training.finetune import load_classifier

    methods = dict.fromkeys(reversed(job.methods))
    return {m: load_classifier(weights[m], job.net, job.finetune, classes).to(device) for m in methods}


def _draw_figure(figure: dict, item: Mapping, models: Mapping[str, torch.nn.Module], device: torch.device, path: Path) -> None:
    """Compute GradCAM of one video for each model, for the true class, and draw it; adds "grid" and "flow" to `figure`."""
    import torch

    from mscl.evaluation.gradcam import draw_rows, gradcam, stage_grid
    from mscl.evaluation.strip import flow_pictures
    from mscl.training.augment import normalise

    frames_THWC = np.asarray(item["clip_KTHWC"][0])
    raw_BTHWC = torch.from_numpy(frames_THWC)[None].to(device)
    clips = {m: normalise(raw_BTHWC, model.backbone.colours) for m, model in models.items()}
    heats = {m: gradcam(model, clips[m], int(item["label"]))[0] for m, model in models.items()}
    figure["flow"] = True  # is drawn beneath
    figure["grid"] = list(stage_grid(next(iter(models.values())), next(iter(clips.values()))))
    title = f"“{figure['template']}”  ({figure['clip_id']})"
    captions = {m: _caption(figure["predictions"][m], bool(h.any())) for m, h in heats.items()}
    draw_rows(frames_THWC, heats, title, path, captions, flow_pictures(frames_THWC))


def _caption(prediction: Mapping, heat: bool = True) -> str:
    """A method's prediction in a few short lines. Without `heat`: also that there is no positive evidence for the true class."""
    said = textwrap.shorten(prediction["class"], 62, placeholder=" …")
    mark = "right" if prediction["correct"] else "wrong"
    lines = [*textwrap.wrap(said, 26), f"p = {prediction['probability']:.2f} ({mark})"]
    if not heat:
        lines.append("no positive evidence for this class")
    return "\n".join(lines)
