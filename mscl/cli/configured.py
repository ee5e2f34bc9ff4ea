"""Commands on a configuration: check it, plan it, print its schema or one of its jobs, verify its results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

# How check, plan, verify and job take a configuration. Typer makes a new list for each call.
CONFIG_HELP = (
    "A configuration file (default: config.yaml), and key=value pairs over it, the value as YAML, as for snakemake --config."
)
Words = Annotated[list[str], typer.Argument(help=CONFIG_HELP, metavar="[FILE] [KEY=VALUE]…")]
Given = Annotated[list[str], typer.Option("--config", "--configfile", help=CONFIG_HELP, metavar="FILE or KEY=VALUE")]


def check(config: Words = [], given: Given = []) -> None:  # noqa: B006
    """Validate a configuration, and print what it will do: data sets, jobs, missing files, keys without effect."""
    from mscl.config.overlay import read_words
    from mscl.config.schema import load_config
    from mscl.planning.check import describe

    path, values = read_words([*config, *given])
    cfg = load_config(values, str(path))
    print(
        f"{path}: {cfg.name} ({cfg.kind}): {len(cfg.models)} model(s) x {len(cfg.methods)} method(s) x {len(cfg.seeds)} seed(s)"
        + (", not every method with every model" if any(model.methods for model in cfg.models.values()) else "")
    )
    print("\n".join(describe(cfg)))


def plan(
    config: Words = [],  # noqa: B006
    given: Given = [],  # noqa: B006
    cpus: Annotated[
        int | None, typer.Option(help="Number of CPUs for the wall-clock estimate; default: those of this machine.")
    ] = None,
    gpus: Annotated[int | None, typer.Option(help="Number of GPUs for the wall-clock estimate; default: 1.")] = None,
    probe: Annotated[bool, typer.Option(help="Measure this machine (about 1 minute); else use assumed rates.")] = True,
    rates: Annotated[Path | None, typer.Option(help="Use the rates in this YAML file instead of measuring.")] = None,
    save_rates: Annotated[Path | None, typer.Option(help="Write the rates to this file for later use.")] = None,
    gpu_tflops: Annotated[float | None, typer.Option(help="Sustained TFLOP/s of one GPU in training.")] = None,
    json_out: Annotated[Path | None, typer.Option("--json", help="Also write the plan to this JSON file.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Print all tables, not only the summary.")] = False,
) -> None:
    """Estimate the cost of a configuration before it runs: jobs, disk space, CPU and GPU hours, each with its origin."""
    from mscl.config.overlay import read_words
    from mscl.config.schema import load_config
    from mscl.planning.command import run_plan

    path, values = read_words([*config, *given])
    run_plan(
        load_config(values, str(path)),
        cpus=cpus,
        gpus=gpus,
        probe=probe,
        rates=rates,
        save=save_rates,
        gpu_tflops=gpu_tflops,
        json_out=json_out,
        everything=everything,
    )


def schema() -> None:
    """Print the JSON schema of a configuration (kept in workflow/schemas/)."""
    from mscl.config.schema import Config

    print(json.dumps(Config.model_json_schema(), indent=1, sort_keys=True))


def show_job(
    stage: Annotated[str, typer.Argument(help="pretrain, finetune or linear.")],
    model: Annotated[str, typer.Option(help="A name under `models`.")],
    method: Annotated[str, typer.Option(help="One of `methods`.")],
    seed: Annotated[int, typer.Option(help="One of `seeds`.")],
    target: Annotated[
        str, typer.Option(help="Of finetuning or linear evaluation: the name of a target; default: the model's first.")
    ] = "",
    given: Given = [],  # noqa: B006
) -> None:
    """Print the arguments to start a training run by hand: the values of --out, --records and --job, one per line."""
    from mscl.config.overlay import read_words
    from mscl.config.schema import load_config
    from mscl.stages.by_hand import by_hand

    path, values = read_words(given)
    print("\n".join(by_hand(load_config(values, str(path)), stage, model, method, seed, target)))


def verify(
    results: Annotated[Path, typer.Argument(help="A folder of results, or any folder with run cards.")],
    config: Annotated[list[str], typer.Argument(help=f"What to compare with. {CONFIG_HELP}", metavar="[FILE] [KEY=VALUE]…")] = [],  # noqa: B006
    given: Given = [],  # noqa: B006
    strict: Annotated[bool, typer.Option("--strict", help="Count missing inputs as differences.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Do not read the tars of frames and flow.")] = False,
) -> None:
    """Check results against their run cards: inputs, outputs, code, configuration. Exit code 1 if anything differs."""
    from mscl.config.overlay import DEFAULT, read_words
    from mscl.config.schema import load_config
    from mscl.stages.verify import verify as recheck

    words = [*config, *given]
    if not words and not DEFAULT.exists():  # results may lie anywhere
        raise SystemExit(recheck(results, None, str(DEFAULT), strict, quick))
    path, values = read_words(words)
    raise SystemExit(recheck(results, load_config(values, str(path)), str(path), strict, quick))
