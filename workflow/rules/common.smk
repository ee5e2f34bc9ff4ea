# Shared by the files beside this one: the prefix of shell commands, and the resources of jobs.
from mscl.machine.gpus import visible
from mscl.stages.build import features_of
from mscl.stages.table import outputs


def environment():
    """The conda environment of every rule, relative to the rule files. Snakemake formats the path, so one with braces doubles them."""
    path = str(ROOT / "workflow/envs/mscl.yaml")
    return path.replace("{", "{{").replace("}", "}}") if "{" in path or "}" in path else "../envs/mscl.yaml"


ENVIRONMENT = environment() if workflow.deployment_settings.deployment_method else None  # only where Snakemake makes it


def runs_jobs():
    """Whether this Snakemake runs jobs: no dry run, no summary. It is known only when all rules are read."""
    return workflow.executor_plugin is not None and not workflow.dryrun and not workflow.touch


def in_shell(path):
    """A path as a shell command of Snakemake writes it: quoted, and with each brace doubled, because Snakemake formats commands."""
    return shlex.quote(str(path)).replace("{", "{{").replace("}", "}}")


def stage_prefix():
    """The shell code before every command of a stage.

    * `set -euo pipefail`: Snakemake sets strict mode only if there is no prefix.
    * PYTHONPATH: the package is that of this checkout, also in a folder that holds another one (PYTHONSAFEPATH).
    * PATH: the Python that runs Snakemake also runs the stages, unless Snakemake provides an environment (--sdm).
    * keep LOG LABEL: the output goes to the log and to the console (`mscl.watch.keep`), on a terminal with progress bars.
    * trap: a cluster that stops a job sends SIGTERM to all its processes, and a terminal SIGINT. The shell and `keep` must keep running until Python has
      written a checkpoint.
    * PYTHONUNBUFFERED: the log contains the last output of a killed stage.
    * MSCL_TRACKING: the tracker of `compute.tracking`. Snakemake does not compare this prefix, so another tracker reruns nothing.
    """
    found = f"set -euo pipefail; export PYTHONUNBUFFERED=1 PYTHONSAFEPATH=1 PYTHONPATH={in_shell(ROOT)}${{{{PYTHONPATH:+:$PYTHONPATH}}}}; "
    if not workflow.deployment_settings.deployment_method:
        found += f"export PATH={in_shell(Path(sys.executable).parent)}:$PATH; "
    if cfg.compute.tracking:
        found += f"export MSCL_TRACKING={cfg.compute.tracking}; "
    found += "if [ -t 1 ]; then export MSCL_BARS=1; fi; trap : TERM INT; keep() {{ trap '' TERM INT; python -m mscl.watch.keep \"$@\"; }}; "
    return found


def show_report():
    """After a run up to the report: its short tables and its path."""
    if not workflow.is_main_process or not any(job.rule.name == "report" for job in workflow.dag.jobs):
        return
    if workflow.deployment_settings.deployment_method:  # Snakemake's own environment may have no tables
        print(f"Page: {at.report()}/index.html")
    else:
        subprocess.run(
            [sys.executable, "-m", "mscl", "tables", at.report()], env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False
        )


def refuse_links_for_dvc():
    """DVC takes no output behind a link, and says so only after the stage has run; so here it is said before."""
    for path in (cfg.paths.data, cfg.paths.results):
        linked = next((p for p in (Path(path), *Path(path).parents) if p.is_symlink()), None)
        if "DVC_STAGE" in os.environ and linked is not None:
            raise WorkflowError(
                f"{linked} is a link, which DVC takes for no output; nothing was run. Clone the repository onto that disk, or mount the disk"
                " at this place (sudo mount --bind), or run Snakemake without DVC: docs/dvc.md"
            )


def one_of(names):
    """A regular expression that matches exactly the given names; without names it matches nothing."""
    return "|".join(map(re.escape, names)) or "(?!)"


def made_by(*stages, dataset=None):
    """The output files of stages, as an input function: a target that nobody asks for costs nothing."""
    return lambda wildcards: outputs(cfg, *stages, dataset=dataset)


def folder(wildcards, output):
    """The folder of the outputs."""
    return str(Path(output[0]).parent)


# Numbers of processes and loaders depend on the machine and do not change results, so they are resources and not parameters:
# a change of them reruns nothing.


def pretraining_processes(wildcards):
    """Processes that share a batch of pretraining: a method may use fewer than `compute.processes`."""
    return cfg.processes_of(wildcards.model, wildcards.method)


def limit_gpus():
    """The number of GPUs that all jobs together may use; None: no limit.

    It is N of --resources gpu=N, else the number of GPUs of this machine. On a cluster the queue limits GPUs instead. A cluster is
    recognised by a limit on the number of jobs (`nodes`), since the executor is not known yet when this file is read.
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
    """GPUs of one job. Raises WorkflowError if there are too few, since Snakemake would silently lower the number.

    A dry run does not check this: it may plan for another machine.
    """
    wanted = 0 if cfg.compute.device == "cpu" else processes
    if GPUS is not None and wanted > GPUS and not workflow.dryrun and not workflow.touch:
        raise WorkflowError(
            f"a job needs {wanted} GPU(s) (compute.device: {cfg.compute.device}, in {processes} processes), but only {GPUS} can be used"
            " here; change these settings, or pass --resources gpu=N if there are more GPUs"
        )
    return wanted


def flow_gpus(wildcards):
    """GPUs of a flow job: DIS uses none."""
    return gpus() if cfg.flow.on_gpu else 0


def cpus_of(number):
    """CPU cores of a training in `number` processes, with its loaders."""
    return number * (cfg.compute.threads + cfg.compute.workers)


def pretraining_cpus(wildcards):
    return cpus_of(pretraining_processes(wildcards))


def pretraining_gpus(wildcards):
    return gpus(processes=pretraining_processes(wildcards))


def finetuning_gpus(wildcards):
    return gpus(processes=cfg.compute.processes)


def frozen_gpus(wildcards):
    """GPUs of a frozen test: none where its features are computed by `embed`."""
    return 0 if features_of(cfg, wildcards.target, wildcards.model) else gpus()


def check_weights(job):
    """A file of others' weights that is missing, or another one than the configuration says, fails before anything runs."""
    if job.rule.name == "adopt":
        try:
            build.adopt_job(cfg, job.wildcards.model, job.wildcards.method).check_file()
        except ValueError as error:
            raise WorkflowError(f"{error}; no job was started") from None


def check_root(job):
    """A folder of videos that is missing, such as a disk that is not mounted, fails before anything runs and deletes nothing."""
    if job.rule.name != "dataset":
        return
    name = job.wildcards.dataset
    data = cfg.datasets[name]
    if not data.embedded and not data.download and not data.root.is_dir():
        from mscl.datasets.formats import how_to_get  # here, since it takes pandas

        how = how_to_get(data).format(root=data.root, name=name)
        raise WorkflowError(
            f"datasets.{name}.root: no folder {data.root}; no job was started. Mount or restore it, or correct the path; to get the"
            f" data set: {how}"
        )
