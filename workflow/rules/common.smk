# What the other files share: how a stage is called, what decides that it runs again, and how large a job is.
import functools
import typing

from mscl.stages import rerun as job_settings
from mscl.stages.codehash import file_hashes
from mscl.machine.gpus import visible
from mscl.config.methods import OWN_MODULES


def stage_prefix():
    """What goes before every command of a stage.

    Strict mode is Snakemake's default only where there is no prefix. The package is this checkout's. The interpreter that runs
    Snakemake also runs the stages, activated or not, unless Snakemake itself brings an environment (--sdm). A cluster that stops a
    job sends SIGTERM to all its processes: the shell and tee must outlive Python, which then writes a checkpoint. Unbuffered, a log
    holds the last words of a stage that was killed.
    """
    found = f"set -euo pipefail; export PYTHONUNBUFFERED=1 PYTHONPATH={shlex.quote(str(ROOT))}${{{{PYTHONPATH:+:$PYTHONPATH}}}}; "
    if not workflow.deployment_settings.deployment_method:
        found += f"export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH; "
    found += "trap : TERM; tee() {{ trap '' TERM; command tee \"$@\"; }}; "
    return found


@functools.cache
def built(build, **values):
    return build(cfg, **values)


def values_of(wildcards, names):
    return {n: int(wildcards[n]) if n == "seed" else wildcards[n] for n in names}


def job(build, *names):
    """The JSON of exactly the settings that a stage uses.

    Snakemake does not compare a parameter that takes `output`; it compares those of `settings`, which hold the same, one by one.
    """
    return lambda wildcards, output: jobs.dumps(built(build, **values_of(wildcards, names)))


def settings(build, *names):
    """One parameter per setting of the stage's job, so that a dry run names the setting that has changed."""

    def one(name):
        return lambda wildcards: lines_of(build, **values_of(wildcards, names))[name]

    return [one(name) for name in job_settings.names(typing.get_type_hints(build)["return"])]


@functools.cache
def lines_of(build, **values):
    return job_settings.lines(built(build, **values))


def exact_flow_job(config) -> jobs.FlowErrorJob:
    return jobs.flow_error_job(config, EXACT[0])


def code(*modules, files=()):
    """One parameter per file of code (and template or table) that the stage uses: its path and the hash of its content."""
    return [f"{path} = {value}" for path, value in file_hashes(*modules, files=files).items()]


def method_code(*modules):
    """As `code`; a file of one family of methods counts for the methods of that family only."""
    families = {}
    for family, module in OWN_MODULES.items():
        families.setdefault(f"{module.replace('.', '/')}.py", set()).add(family)

    def of_method(line):
        own = families.get(line.split(" = ")[0])
        return line if own is None else lambda wildcards: line if cfg.switches(wildcards.method).family in own else ""

    return [of_method(line) for line in code(*modules)]


def folder(wildcards, output):
    """Where the outputs lie."""
    return str(Path(output[0]).parent)


def records(wildcards, output):
    """Where the run card lies."""
    return str(Path(output.card).parent)


def shards(store, dataset, suffix=".parquet"):
    return [str(p) for p in shard_paths(store(dataset), cfg.datasets[dataset].shards, suffix)]


# Numbers of processes, of loaders and the like are a matter of the machine, not of the result: resources, not parameters.


def loader(wildcards):
    return cfg.compute.workers


def workers(wildcards):
    """ffmpeg processes or flow threads of one job."""
    return cfg.compute.extract_workers


def downloads(wildcards):
    """Archives fetched at a time."""
    return cfg.compute.download_workers


def checkpoint_minutes(wildcards):
    return cfg.compute.checkpoint_minutes


def processes(wildcards):
    """Processes, one per GPU, that share a batch."""
    return cfg.compute.processes


def limit_gpus():
    """How many GPUs all jobs together may use; None: no limit is set here.

    It is what --resources gpu=N says, else the number of this machine's GPUs. On a cluster the queue sees to it; there, and nowhere
    else, the number of jobs is limited beside that of the cores (the executor is not known yet when this file is read).
    """
    given = workflow.global_resources.get("gpu")
    if (number := getattr(given, "value", given)) is not None:
        return number
    if not workflow.is_main_process or workflow.nodes is not None or cfg.compute.device == "cpu":
        return None
    found = len(visible())
    if not found and cfg.compute.device == "auto":
        return None
    workflow.register_resource("gpu", found)
    return found


GPUS = limit_gpus()


def gpus(wildcards=None, processes=1):
    """GPUs of one job. Snakemake would lower a number that is too large in silence; a dry run plans for other machines, too."""
    wanted = 0 if cfg.compute.device == "cpu" else processes
    if GPUS is not None and wanted > GPUS and not workflow.dryrun and not workflow.touch:
        raise WorkflowError(
            f"a job needs {wanted} GPU(s) (compute.device: {cfg.compute.device}, compute.processes: {processes}) and {GPUS} can be used here;"
            " change that, or say --resources gpu=N where there are more"
        )
    return wanted


def flow_gpus(wildcards):
    return gpus() if cfg.flow.method == "raft" else 0


def training_cpus(wildcards):
    return cfg.compute.processes * (cfg.compute.threads + cfg.compute.workers)


def training_gpus(wildcards):
    return gpus(processes=cfg.compute.processes)


def annotations_present(wildcards):
    """Annotation files that the user brought: an edit of one reruns what follows.

    Files that the workflow makes (embedded, downloaded, unpacked) are left out, since a job's inputs must not change because it has run.
    """
    dataset = cfg.datasets[wildcards.dataset]
    if dataset.embedded:
        return []
    downloaded = [f"{at.data}/downloads/{wildcards.dataset}.json"] if dataset.download else []
    return downloaded + [str(f) for f in dataset.brought_files()]


def raft_weights(wildcards):
    """RAFT's file of weights where it lies; where it does not, the job itself says where to get it."""
    weights = cfg.flow.weights if cfg.flow.method == "raft" else None
    return [str(weights)] if weights and weights.exists() else []


def pretraining_data(wildcards):
    """Manifests and shards of the pretraining data; flow only for a method that looks at it."""
    looks_at_flow = cfg.switches(wildcards.method).flow
    found = []
    for dataset in cfg.pretrain.datasets:
        found.append(at.manifest(dataset))
        for store in (at.frames, at.flow) if looks_at_flow else (at.frames,):
            found += shards(store, dataset) + shards(store, dataset, ".tar")
    if cfg.pretrain.monitor:
        watched = cfg.pretrain.monitor.dataset
        found += [at.manifest(watched), *shards(at.frames, watched), *shards(at.frames, watched, ".tar")]
    return list(dict.fromkeys(found))


def pretrained_weights(wildcards):
    """None for a method without pretraining."""
    if not cfg.switches(wildcards.method).pretrain:
        return []
    return f"{at.pretrain(wildcards.model, wildcards.method, wildcards.seed)}/weights.safetensors"


def weights_option(wildcards, input):
    return ["--weights", input.weights] if input.weights else []


def compared_runs(wildcards):
    """Predictions and weights of the two methods that the analysis compares."""
    return [
        f"{at.finetune(wildcards.model, m, s)}/{f}"
        for m in COMPARED
        for s in SEEDS
        for f in ("predictions.parquet", "weights.safetensors")
    ]
