"""What the cheapest changes of a configuration would save: computing time of the flow, and disk space."""

from __future__ import annotations

from mscl.config.schema import Config
from mscl.planning.count import Counts, Facts
from mscl.planning.rates import Rates
from mscl.planning.videos import dataset_plan
from mscl.stages import build

PARTS = {"frames_bytes": "disk", "flow_bytes": "disk", "flow_hours": "hours", "extract_hours": "cpu_hours"}
MARGIN = 8 / 7  # short side of stored frames / side of the largest crop: below it, crops would be enlarged much


def savings(
    config: Config, counts: dict[str, Counts], facts: dict[str, Facts | None], rates: Rates, plans: dict[str, dict]
) -> list[dict]:
    """A row for each change: {"change", "disk" bytes, "hours" of the flow's device, "cpu_hours" of frames} that it would save.

    Each change alone, as the shares by which assumed rates change, of the `plans` of the data sets. Empty without such changes.
    """
    bare, found = Rates(tflops=rates.tflops, device=rates.device), []
    for change, other in _changes(config):
        row = {"change": change, "disk": 0.0, "hours": 0.0, "cpu_hours": 0.0}
        for name, plan in plans.items():
            now, then = (dataset_plan(c, name, counts[name], facts[name], bare) for c in (config, other))
            for part, column in PARTS.items():
                if part in plan and now[part]["value"]:
                    row[column] += plan[part]["value"] * (1 - then[part]["value"] / now[part]["value"])
        found.append(row)
    return found


def _changes(config: Config) -> list[tuple[str, Config]]:
    flow, found = config.flow, []
    if build.flow_datasets(config):
        steps = [config.clip.stride / config.datasets[d].frames.step for d in build.flow_datasets(config)]
        if config.mds.stride % (2 * flow.step) == 0 and all(s % (2 * flow.step) == 0 for s in steps):
            found.append((f"flow.step: {2 * flow.step}", _with(config, step=2 * flow.step)))
        if flow.method == "raft":
            found.append(("flow.method: raft-small", _with(config, method="raft-small")))
        if flow.short_side > 64:
            found.append((f"flow.short_side: {flow.short_side // 2}", _with(config, short_side=flow.short_side // 2)))
    sizes = [size for model in config.models.values() for size in (model.size, model.finetune.test_size)]
    enough = round(max(sizes) * MARGIN / 8) * 8
    used = {name: config.datasets[name] for name in build.used_datasets(config)}
    if large := [name for name, data in used.items() if data.frames.short_side > enough]:
        smaller = {
            name: data.model_copy(update={"frames": data.frames.model_copy(update={"short_side": enough})})
            for name, data in used.items()
            if name in large
        }
        found.append(
            (
                f"frames.short_side: {enough} ({', '.join(large)})",
                config.model_copy(update={"datasets": {**config.datasets, **smaller}}),
            )
        )
    return found


def _with(config: Config, **flow: object) -> Config:
    return config.model_copy(update={"flow": config.flow.model_copy(update=flow)})
