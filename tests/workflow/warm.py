"""Dry runs without the start of Snakemake: one process has imported it, and forks a copy of itself for each run.

Half of the time of a dry run is Python importing Snakemake. What is read and decided in a run, the Snakefile, this package and the
configuration, is imported by the copy, in the folder of the run. Real runs, and those that test the start itself, are commands.
"""

import json
import os
import subprocess
import sys
from pathlib import Path


class Warm:
    """`run(folder, arguments, to)`: the exit code of `snakemake` in `folder`; its output goes to the files `to`/stdout and stderr."""

    def __init__(self):
        command = [sys.executable, __file__]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(self, folder: Path, arguments: list[str], to: Path) -> subprocess.CompletedProcess:
        asked = {"folder": str(folder), "arguments": arguments, "to": str(to), "environment": dict(os.environ)}
        self.process.stdin.write(json.dumps(asked) + "\n")
        self.process.stdin.flush()
        code = int(self.process.stdout.readline())
        return subprocess.CompletedProcess(arguments, code, (to / "stdout").read_text(), (to / "stderr").read_text())

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait(timeout=60)


def serve() -> None:
    """Read one run a line from the standard input; answer each with its exit code."""
    import pydantic  # noqa: F401
    import snakemake.api  # noqa: F401
    import snakemake.workflow  # noqa: F401
    from snakemake.cli import main

    for line in sys.stdin:
        if not (child := os.fork()):
            one_run(main, **json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def one_run(main, folder: str, arguments: list[str], to: str, environment: dict[str, str]) -> None:
    """The life of a copy: as `cd folder; python -m snakemake arguments`."""
    code = 1
    try:
        for number, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(f"{to}/{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        sys.argv, sys.path[0] = ["snakemake", *arguments], folder
        main()
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve()
