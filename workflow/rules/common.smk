# What the other files share: how a stage is called, and how large a job is.
from mscl.machine.gpus import visible


def stage_prefix():
    """What goes before every command of a stage.

    Strict mode is Snakemake's default only where there is no prefix. The package is this checkout's. The interpreter that runs
    Snakemake also runs the stages, activated or not, unless Snakemake itself brings an environment (--sdm). A cluster that stops a
    job sends SIGTERM to all its processes, a terminal SIGINT: the shell and tee must outlive Python, which then writes a checkpoint. Unbuffered, a log
    holds the last words of a stage that was killed.
    """
    found = f"set -euo pipefail; export PYTHONUNBUFFERED=1 PYTHONPATH={shlex.quote(str(ROOT))}${{{{PYTHONPATH:+:$PYTHONPATH}}}}; "
    if not workflow.deployment_settings.deployment_method:
        found += f"export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH; "
    found += "trap : TERM INT; tee() {{ trap '' TERM INT; command tee \"$@\"; }}; "
    return found


def one_of(names):
    """A pattern that one of the names fits; nothing fits where there are none."""
    return "|".join(map(re.escape, names)) or "(?!)"


def folder(wildcards, output):
    """Where the outputs lie."""
    return str(Path(output[0]).parent)


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
