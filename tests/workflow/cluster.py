"""A Slurm cluster of one node for the tests: munged, slurmctld and slurmd with their own folders, ports and key.

Needs root. On Debian and Ubuntu missing programs are installed. A cluster that is already configured on the machine is not touched:
this one uses its own SLURM_CONF, ports and munge socket.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

PROGRAMS = {"munged": "munge", "slurmctld": "slurmctld", "slurmd": "slurmd", "sbatch": "slurm-client"}  # program -> package
CPUS, MEMORY_MB = 32, 128_000  # pretended, so that rules that request many CPUs run on two cores

CONF = """
ClusterName=mscltest
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
PlugStackConfig={folder}/plugstack.conf
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SlurmdParameters=config_overrides
SchedulerParameters=sched_min_interval=100000,batch_sched_delay=0,sched_interval=5,bf_interval=5
JobCompType=jobcomp/none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherParams=OverMemoryKill
JobAcctGatherFrequency=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ReturnToService=2
MinJobAge=3600
KillWait=20
GresTypes=gpu
NodeName=node NodeHostname={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory} Gres=gpu:{gpus} State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
PartitionName=urgent Nodes=ALL PriorityTier=100 MaxTime=INFINITE State=UP
"""
DEVICES = ("/dev/null", "/dev/zero")  # files that stand for GPUs


class NoCluster(Exception):
    """No cluster can be started here. The text gives the reason."""


@dataclass
class Cluster:
    """A running cluster. `environment` holds the environment variables for processes that use it."""

    folder: Path
    environment: dict[str, str]
    daemons: list[subprocess.Popen] = field(default_factory=list)

    def __call__(self, *command: str) -> str:
        """The output of a Slurm command. Raises CalledProcessError when it fails."""
        run = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=60, check=True)
        return run.stdout

    def jobs(self) -> list[dict[str, str]]:
        """Every job since the start of the cluster: the fields of `scontrol show job` by name."""
        return [fields(line) for line in self("scontrol", "show", "job", "--oneliner", "--details").splitlines() if "=" in line]

    def job(self, number: str) -> dict[str, str]:
        return fields(self("scontrol", "show", "job", "--oneliner", "--details", number))


def fields(line: str) -> dict[str, str]:
    return dict(re.findall(r"(\w[\w/:]*)=(\S*)", line))


def install() -> None:
    """Install missing programs. Raises NoCluster if that is not possible."""
    if os.environ.get("MSCL_NO_CLUSTER"):
        raise NoCluster("MSCL_NO_CLUSTER is set")
    if os.geteuid():
        raise NoCluster("a Slurm cluster for the tests needs root")
    os.environ["PATH"] = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    missing = [package for program, package in PROGRAMS.items() if not shutil.which(program)]
    if not missing:
        return
    if not shutil.which("apt-get"):
        raise NoCluster(f"not installed: {', '.join(missing)}, and there is no apt-get to install them")
    get = ["apt-get", "-q", "-o", "DPkg::Lock::Timeout=60", "-o", "Acquire::Retries=2"]
    want = [*get, "install", "-y", "--no-install-recommends", *missing]
    quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for command in (want, [*get, "update"], want):  # the package lists may be missing or old
        run = subprocess.run(command, env=quiet, capture_output=True, text=True, timeout=300)
        if command is want and not run.returncode:
            return
    raise NoCluster(f"apt-get could not install {', '.join(missing)}: {(run.stderr.strip().splitlines() or ['?'])[-1]}")


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]


def configure(folder: Path, gpus: int) -> None:
    controller_port, node_port = free_ports(2)
    for name in ("state", "spool"):
        (folder / name).mkdir()
    (folder / "plugstack.conf").touch()
    (folder / "munge.key").write_bytes(os.urandom(1024))
    (folder / "munge.key").chmod(0o400)
    values = {"host": socket.gethostname(), "controller_port": controller_port, "node_port": node_port, "folder": folder}
    (folder / "slurm.conf").write_text(CONF.format(**values, cpus=CPUS, memory=MEMORY_MB, gpus=gpus))
    (folder / "gres.conf").write_text("".join(f"Name=gpu File={device}\n" for device in DEVICES[:gpus]))


def write_srun(folder: Path) -> Path:
    """A folder with an `srun` that finds this cluster, since Snakemake's job steps drop every SLURM_ variable, also SLURM_CONF."""
    (folder / "bin").mkdir()
    script = folder / "bin" / "srun"
    script.write_text(f'#!/bin/sh\nSLURM_CONF={folder}/slurm.conf exec {shutil.which("srun")} "$@"\n')
    script.chmod(0o755)
    return script.parent


def wait_for(what: str, ready, seconds: float, daemons=()) -> None:
    """Wait until `ready()` is true. Raises NoCluster after `seconds`, or when a daemon ends before."""
    deadline = time.monotonic() + seconds
    while not ready():
        dead = [d.args[3] for d in daemons if d.poll() is not None]
        if dead or time.monotonic() > deadline:
            raise NoCluster(f"{what} did not start" + (f"; ended: {', '.join(dead)}" if dead else ""))
        time.sleep(0.1)


@contextlib.contextmanager
def running(folder: Path, gpus: int = 2) -> Iterator[Cluster]:
    """A cluster with one idle node, stopped at the end. Raises NoCluster if it cannot be started."""
    install()
    folder.chmod(0o755)
    configure(folder, gpus)
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "SBATCH_", "SRUN_", "SQUEUE_"))}
    clean.pop("CUDA_VISIBLE_DEVICES", None)
    own = {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": f"{write_srun(folder)}:{os.environ['PATH']}"}
    cluster = Cluster(folder, clean | own)
    try:
        start_daemons(cluster)
        yield cluster
    finally:
        stop(cluster)


def start_daemons(cluster: Cluster) -> None:
    at = cluster.folder
    munged = ["munged", "--foreground", "--force", "--num-threads=2", f"--socket={at}/munge.socket", f"--key-file={at}/munge.key"]
    munged += [f"--pid-file={at}/munged.pid", f"--log-file={at}/munged.log", f"--seed-file={at}/munge.seed"]
    start(cluster, munged)
    wait_for("munged", (at / "munge.socket").exists, 20, cluster.daemons)
    start(cluster, ["slurmctld", "-D", "-i", "-f", f"{at}/slurm.conf"])
    start(cluster, ["slurmd", "-D", "-N", "node", "-f", f"{at}/slurm.conf"])
    wait_for("a node", lambda: asked(cluster, "sinfo", "--noheader", "--format=%T").strip() == "idle", 60, cluster.daemons)


def start(cluster: Cluster, command: list[str]) -> None:
    """Start a daemon in the foreground. It receives SIGTERM when the tests are killed."""
    with open(cluster.folder / f"{command[0]}.out", "wb") as log:
        told = ["setpriv", "--pdeathsig", "TERM", *command]
        options = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log, "start_new_session": True}
        cluster.daemons.append(subprocess.Popen(told, env=cluster.environment, **options))


@contextlib.contextmanager
def without_controller(cluster: Cluster) -> Iterator[None]:
    """The controller is stopped; afterwards it starts again with the jobs that it knew."""
    (old,) = [d for d in cluster.daemons if "slurmctld" in d.args]
    old.terminate()
    old.wait(30)
    cluster.daemons.remove(old)
    try:
        yield
    finally:
        start(cluster, ["slurmctld", "-D", "-f", f"{cluster.folder}/slurm.conf"])
        wait_for("the controller", lambda: asked(cluster, "sinfo", "--noheader"), 60, cluster.daemons)


def asked(cluster: Cluster, *command: str) -> str:
    """The output of a Slurm command; "" when it fails."""
    try:
        return cluster(*command)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        return ""


def stop(cluster: Cluster) -> None:
    """Cancel all jobs, then stop all daemons in reverse order."""
    if len(cluster.daemons) == 3 and all(d.poll() is None for d in cluster.daemons):
        asked(cluster, "scancel", "--user=root")
        with contextlib.suppress(NoCluster):
            wait_for("the end of the jobs", lambda: not asked(cluster, "squeue", "--noheader").strip(), 40)
    for daemon in reversed(cluster.daemons):
        daemon.terminate()
        try:
            daemon.wait(15)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()
    kill_left_over(cluster.folder)


def kill_job(cluster: Cluster, number: str) -> None:
    """Kill all that runs for a job at once, as a power cut does: a node that is only said to be down may start the job a second
    time while the first copy still ends, and Slurm then drains the node."""
    kill(f"{cluster.folder}/bin:", f"SLURM_JOB_ID={number}\0")


def kill_left_over(folder: Path) -> None:
    """Kill what still runs with this cluster's programs first on its path: steps of a job whose node went down ignore SIGTERM."""
    kill(f"{folder}/bin:")


def kill(*marks: str) -> None:
    """Kill the processes of this machine whose environment holds each of `marks`."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended, or is somebody else's
            environment = (process / "environ").read_bytes()
            if int(process.name) != os.getpid() and all(mark.encode() in environment for mark in marks):
                os.kill(int(process.name), signal.SIGKILL)
