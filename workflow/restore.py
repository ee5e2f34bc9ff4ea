"""Restore the files recorded in dvc.lock into a fresh clone: `make restore`, or `python -m workflow.restore` in the root.

The files come from the DVC remote or from a bundle, and the hash of every file is checked before it is used. Then Snakemake marks them
as up to date, so that neither `snakemake -n` nor `dvc status` finds anything to do. `--only results` leaves out videos, frames and flow;
`--only tables` also the weights: it takes only the inputs of the tables (predictions, metrics, histories, cards). Both rebuild the
report. Nothing is deleted or replaced without `--force`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from mscl.config.schema import Config, load_config
from mscl.stages import jobs
from mscl.stages.layout import Layout
from workflow.recorded import ROOT, Recorded, RecordError, command, line
from workflow.sources import HEAVY, TRANSFER, Bundle, Remote, fetch, listed, md5_of


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m workflow.restore", description="Restore the files recorded in dvc.lock.")
    parser.add_argument("--only", choices=["results", "tables"], help="results: no data; tables: no data and no weights")
    parser.add_argument("--from", dest="bundle", type=Path, help="a bundle made by `make bundle`, instead of a DVC remote")
    parser.add_argument("--remote", help="name of a DVC remote other than the default one")
    parser.add_argument("--force", action="store_true", help="replace files that differ from the recorded ones")
    command(restore, parser)


def restore(arguments: argparse.Namespace) -> None:
    """Restore the recorded files of an experiment, or only those that its tables need.

    Raises RecordError when there is no dvc.lock or no remote, when code, settings or local files differ from the recorded ones,
    and when the remote or bundle does not have a file or has a damaged one.
    """
    with Recorded(arguments.experiment) as recorded:
        refuse_stale(recorded)
        config, repo = load_config(recorded.config), recorded.repo
        source = Bundle(arguments.bundle) if arguments.bundle else Remote(repo, arguments.remote)
        only = arguments.only or source.holds(config)
        at = f"{Layout(config).report()}/"
        outs = recorded.outs if only is None else recorded.outs_below(config.paths.results)
        files = listed(repo, outs, source)
        report = {path: md5 for path, md5 in files.items() if path.startswith(at)}
        wanted, paths = files, [out.def_path for out in outs]
        if only == "tables":  # all that the report reads: no weights, no features, and not the report itself
            wanted = {path: md5 for path, md5 in files.items() if path not in report and not path.endswith(HEAVY)}
            paths = [path for path in paths if path.startswith(at)]
        check_mine(recorded, wanted | report, paths, arguments.force)
        fetch(repo, wanted, source)
        checkout(recorded, list(wanted) if only == "tables" else paths, source.where)
        print(f"{len(wanted)} files from {source.where}: all hashes are those recorded in {recorded.lock}")
        if only is not None:
            make_tables(config, report, recorded.lock)
        if only != "tables":
            settle(recorded, paths)


def refuse_stale(recorded: Recorded) -> None:
    """Raise RecordError if code or settings have changed since dvc.lock was written.

    Otherwise Snakemake would treat the recorded files as results of the new code.
    """
    if changed := [change for changes in recorded.stale().values() for change in changes]:
        raise RecordError(
            f"{', '.join(dict.fromkeys(changed))}: changed since {recorded.lock} was written, so the recorded files do not belong to "
            f"this code and these settings; undo the change, or run `dvc pull` and then `{recorded.repro}`"
        )


def check_mine(recorded: Recorded, wanted: dict[str, str], folders: Iterable[str], force: bool) -> None:
    """Raise RecordError, unless `force`, if a local file would be replaced or removed: it may be the user's work."""
    if force:
        return
    mine = [path for path, md5 in wanted.items() if Path(path).exists() and md5_of(path) != md5]
    for folder in folders:
        if Path(folder).is_dir():
            here = (
                Path(path).relative_to(ROOT).as_posix()
                for path in recorded.repo.dvcignore.find(recorded.repo.fs, str(ROOT / folder))
            )
            mine += [path for path in here if path not in wanted]
    if mine:
        more = f" and {len(mine) - 1} more" if len(mine) > 1 else ""
        raise RecordError(
            f"{mine[0]}{more}: exists and differs from the file recorded in {recorded.lock}; move it away, or replace it with --force "
            "(FORCE=1)"
        )


def checkout(recorded: Recorded, paths: list[str], where: str) -> None:
    """Copy files and folders from the cache to the working folder."""
    try:
        recorded.repo.checkout(targets=paths, force=True)
    except TRANSFER as error:
        raise RecordError(f"the files from {where} cannot be written: {line(error)}") from None


def settle(recorded: Recorded, outs: list[str]) -> None:
    """Mark all outputs as up to date in Snakemake, then check that neither Snakemake nor DVC finds anything to do with these."""
    own = [] if recorded.config == Path("config.yaml") else ["--configfile", str(recorded.config)]
    snakemake("--touch", "--forceall", "--quiet", "all", *own)
    said = snakemake("-n", *own)
    if "Nothing to be done" not in said:
        raise RecordError(f"the files are restored, but `snakemake -n` would still run jobs: {said.strip().splitlines()[-1]}")
    recorded.repo._reset()  # DVC caches the state of the working folder
    status = [out for out in recorded.outs if out.status()]
    if left := [out.def_path for out in status if out.def_path in outs]:
        raise RecordError(f"the files are restored, but `dvc status` still finds changes in {', '.join(left)}")
    absent = ", ".join(dict.fromkeys(out.def_path for out in status))
    print(f"snakemake -n: nothing to be done; dvc status: {f'only {absent} not restored' if absent else 'up to date'}")


def snakemake(*arguments: str) -> str:
    """The output of a Snakemake command. Raises RecordError if it fails."""
    command = [sys.executable, "-m", "snakemake", "--cores", "1", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        lines = [line for line in (done.stdout + done.stderr).strip().splitlines() if line.strip()] or ["no output"]
        raise RecordError(f"the files are restored, but `snakemake {' '.join(arguments)}` failed: {lines[-1].strip()}")
    return done.stdout + done.stderr


def make_tables(config: Config, report: dict[str, str], lock: str) -> None:
    """Rebuild the report and compare each file with the recorded one. Raises RecordError on a difference."""
    from mscl.reporting.report import build_report, print_tables

    out = Layout(config).report()
    build_report(jobs.ReportJob(config=config), Path(config.paths.results), Path(out))
    other = [path for path, md5 in report.items() if md5_of(path) != md5]
    print_tables(Path(out))
    if other:
        raise RecordError(
            f"{other[0]}: the rebuilt file differs from the recorded one ({len(other)} of {len(report)} files of the report differ); "
            "check that the environment is that of requirements.lock"
        )
    print(f"{len(report)} files of the report rebuilt: all hashes are those recorded in {lock}")


if __name__ == "__main__":
    main()
