"""Restore the files recorded in dvc.lock into a fresh clone: `make restore`, or `python -m workflow.restore` in the root.

The files are pulled from the DVC remote, and the hash of every file is checked. Then Snakemake marks them as up to date, so that
neither `snakemake -n` nor `dvc status` finds anything to do. `--only tables` pulls only the inputs of the tables (predictions,
metrics, histories, cards) and rebuilds the report. Nothing is deleted or replaced without `--force`.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import os
import subprocess
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path

from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc_data.hashfile.hash_info import HashInfo
from dvc_objects.errors import ObjectDBError, ObjectFormatError

from mscl.config.schema import Config, load_config
from mscl.stages import jobs
from mscl.stages.layout import Layout

ROOT = Path(__file__).resolve().parents[1]
HEAVY = (".safetensors", ".pt")  # files that the tables do not need
TRANSFER = (DvcException, ObjectDBError, ObjectFormatError, OSError)
ADVICE = "(docs/dvc.md says how to set up a remote)"


class RestoreError(ValueError):
    """The recorded files cannot be restored. The text gives the reason and what to do."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m workflow.restore", description="Restore the files recorded in dvc.lock.")
    parser.add_argument("--only", choices=["tables"], help="only the inputs of the tables: no data and no weights")
    parser.add_argument("--remote", help="name of a DVC remote other than the default one")
    parser.add_argument("--force", action="store_true", help="replace files that differ from the recorded ones")
    arguments = parser.parse_args()
    os.chdir(ROOT)
    logging.getLogger("dvc").setLevel(logging.CRITICAL)  # its long warnings repeat the one-sentence errors below
    warnings.filterwarnings("ignore", message="coroutine .* was never awaited")  # from s3fs, without credentials
    logging.getLogger("dvc_objects").setLevel(logging.CRITICAL)
    logging.getLogger("dvc_data").setLevel(logging.CRITICAL)
    try:
        restore(arguments.only, arguments.remote, arguments.force)
    except ValueError as error:  # RestoreError and ConfigError
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None


def restore(only: str | None, remote: str | None, force: bool) -> None:
    """Restore the recorded files, or only those that the tables need (`only` = "tables").

    Raises RestoreError when there is no dvc.lock or no remote, when code, settings or local files differ from the recorded ones,
    and when the remote does not have a file or has a damaged one.
    """
    config = load_config(Path("config.yaml"))
    with open_repo() as repo:
        remote, where = remote_of(repo, remote)
        check_stages(repo)
        recorded = recorded_files(repo, remote, where)
        wanted = recorded if only is None else table_files(recorded, config)
        report = f"{Layout(config).report()}/"  # rebuilt when only the tables are restored
        made = {path: md5 for path, md5 in recorded.items() if path.startswith(report)}
        check_mine(repo, wanted | made, [o for o in outputs(repo) if o.startswith(report)] if only else outputs(repo), force)
        bring(repo, wanted, remote, where)
        checkout(repo, wanted if only else None, where)
        check_hashes(repo, wanted)
        print(f"{len(wanted)} files from {where}: all hashes are those recorded in dvc.lock")
        if only is None:
            settle(repo)
        else:
            make_tables(config, recorded)


def open_repo() -> Repo:
    """The DVC repository of this checkout. Raises RestoreError without dvc.lock or repository."""
    if not Path("dvc.lock").exists():
        raise RestoreError(
            "dvc.lock: missing, so no results are recorded; run `dvc repro` on the machine with the data and commit dvc.lock, or check "
            "out a commit that has it"
        )
    try:
        return Repo(str(ROOT))
    except DvcException as error:
        raise RestoreError(f"{ROOT}: not a DVC repository ({_line(error)}); clone it with git") from None


def remote_of(repo: Repo, name: str | None) -> tuple[str, str]:
    """The name of the remote, and its name and address for messages. Raises RestoreError when it cannot be used."""
    name = name or repo.config["core"].get("remote")
    if not name:
        raise RestoreError(f"no DVC remote is set: dvc remote add --default storage <folder or s3://bucket/path> {ADVICE}")
    if name not in repo.config["remote"]:
        known = ", ".join(repo.config["remote"]) or "none"
        raise RestoreError(
            f"there is no DVC remote '{name}' (known: {known}); add it with dvc remote add {name} <address> {ADVICE}"
        )
    where = f"remote '{name}' ({repo.config['remote'][name].get('url')})"
    try:
        odb = repo.cloud.get_remote_odb(name)
        if odb.fs.protocol == "local" and not odb.fs.exists(repo.config["remote"][name]["url"]):
            raise RestoreError(f"{where}: no such folder; mount it, or correct the address with dvc remote modify {name} url ...")
    except TRANSFER as error:
        raise RestoreError(f"{where} cannot be used: {_line(error)}") from None
    return name, where


def check_stages(repo: Repo) -> None:
    """Raise RestoreError if code or settings have changed since dvc.lock was written.

    Otherwise Snakemake would treat the recorded files as results of the new code.
    """
    mine = {out.def_path for out in repo.index.outs}
    changed = []
    for parts in repo.status().values():
        for part in parts:
            for path, how in part.get("changed deps", {}).items() if isinstance(part, dict) else []:
                if path not in mine:
                    changed += [f"{path}: {key}" for key in how] if isinstance(how, dict) else [path]
            changed += ["the command of a stage"] if part == "changed command" else []
    if changed:
        raise RestoreError(
            f"{', '.join(dict.fromkeys(changed))}: changed since dvc.lock was written, so the recorded files do not belong to "
            "this code and these settings; undo the change, or run `dvc pull` and then `dvc repro`"
        )


def outputs(repo: Repo) -> list[str]:
    """The paths of all outputs in dvc.yaml."""
    return [out.def_path for out in repo.index.outs]


def recorded_files(repo: Repo, remote: str, where: str) -> dict[str, str]:
    """Every recorded file -> its md5. The file lists of folders are pulled from the remote if they are not in the cache."""
    for out in repo.index.outs:
        if not out.hash_info:
            raise RestoreError(
                f"dvc.lock: {out.def_path} is not recorded; run `dvc repro` on the machine with the data and commit dvc.lock"
            )
    lists = {f"the file list of {out.def_path}": out.hash_info.value for out in repo.index.outs if out.is_dir_checksum}
    bring(repo, lists, remote, where)
    files = {}
    for out in repo.index.outs:
        if not out.is_dir_checksum:
            files[out.def_path] = out.hash_info.value
            continue
        try:
            tree = out.get_dir_cache()
        except ObjectFormatError:
            tree = None
        if tree is None:
            Path(repo.cache.local.oid_to_path(out.hash_info.value)).unlink(missing_ok=True)
            raise RestoreError(
                f"the file list of {out.def_path} was damaged in the cache and has been removed there; run the same command again"
            )
        files |= {"/".join((out.def_path, *key)): info.value for key, _, info in tree}
    return files


def table_files(recorded: dict[str, str], config: Config) -> dict[str, str]:
    """The files that the report reads: all results except the weights and the report itself."""
    results, report = f"{config.paths.results}/", f"{Layout(config).report()}/"
    return {
        path: md5
        for path, md5 in recorded.items()
        if path.startswith(results) and not path.startswith(report) and not path.endswith(HEAVY)
    }


def check_mine(repo: Repo, wanted: dict[str, str], folders: Iterable[str], force: bool) -> None:
    """Raise RestoreError, unless `force`, if a local file would be replaced or removed: it may be the user's work."""
    mine = [path for path, md5 in wanted.items() if Path(path).exists() and md5_of(path) != md5]
    for folder in folders:
        if Path(folder).is_dir():
            here = (Path(path).relative_to(ROOT).as_posix() for path in repo.dvcignore.find(repo.fs, str(ROOT / folder)))
            mine += [path for path in here if path not in wanted]
    if mine and not force:
        more = f" and {len(mine) - 1} more" if len(mine) > 1 else ""
        raise RestoreError(
            f"{mine[0]}{more}: exists and differs from the file recorded in dvc.lock; move it away, or replace it with --force (FORCE=1)"
        )


def bring(repo: Repo, wanted: dict[str, str], remote: str, where: str) -> None:
    """Pull every object of `wanted` (path or description -> md5) into the cache."""
    lacking = {md5 for md5 in wanted.values() if not repo.cache.local.exists(md5)}
    if not lacking:
        return
    try:
        repo.cloud.pull({HashInfo("md5", md5) for md5 in lacking}, remote=remote)
    except ObjectFormatError as error:
        name = next((name for name, md5 in wanted.items() if md5 in str(error)), _line(error))
        raise RestoreError(
            f"{where}: {name} is damaged there; delete it there and run `dvc push` on the machine that has it"
        ) from None
    except Exception as error:  # each kind of remote has its own errors: no credentials, no route, no such bucket
        raise RestoreError(f"{where} cannot be read: {_line(error)} {ADVICE}") from None
    missing = [name for name, md5 in wanted.items() if md5 in lacking and not repo.cache.local.exists(md5)]
    if missing:
        raise RestoreError(
            f"{where} does not have {len(missing)} of {len(wanted)} files; the first is {missing[0]} (md5 {wanted[missing[0]]}); "
            "run `dvc push` on the machine that has them"
        )


def checkout(repo: Repo, only: Iterable[str] | None, where: str) -> None:
    """Copy the files from the cache to the working folder: all of them, or `only` some paths."""
    try:
        repo.checkout(targets=list(only) if only is not None else None, force=True)
    except TRANSFER as error:
        raise RestoreError(f"the files from {where} cannot be written: {_line(error)}") from None


def check_hashes(repo: Repo, wanted: dict[str, str]) -> None:
    """Check the md5 of every file, since DVC does not check objects in its cache. Raises RestoreError for a damaged file.

    Damaged files are removed here and from the cache, so that the next run fetches them again.
    """
    damaged = [(path, md5, found) for path, md5 in wanted.items() if (found := md5_of(path)) != md5]
    for path, md5, _ in damaged:
        Path(path).unlink(missing_ok=True)
        Path(repo.cache.local.oid_to_path(md5)).unlink(missing_ok=True)
    if damaged:
        path, expected, found = damaged[0]
        more = f" (and {len(damaged) - 1} more files)" if len(damaged) > 1 else ""
        raise RestoreError(
            f"{path}: expected md5 {expected}, found {found}{more}; the damaged copy has been removed here and from the cache; run the "
            "same command again. If this repeats, delete it in the remote and run `dvc push` on the machine that has it"
        )


def md5_of(path: str) -> str | None:
    """The md5 of a file; None if it does not exist."""
    if not Path(path).is_file():
        return None
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def settle(repo: Repo) -> None:
    """Mark all outputs as up to date in Snakemake, then check that neither Snakemake nor DVC finds anything to do."""
    snakemake("--touch", "--forceall", "--quiet", "all")
    said = snakemake("-n")
    if "Nothing to be done" not in said:
        raise RestoreError(f"the files are restored, but `snakemake -n` would still run jobs: {said.strip().splitlines()[-1]}")
    repo._reset()  # DVC caches the state of the working folder
    if left := repo.status():
        raise RestoreError(f"the files are restored, but `dvc status` still finds changes in {', '.join(left)}")
    print("snakemake -n: nothing to be done; dvc status: up to date")


def snakemake(*arguments: str) -> str:
    """The output of a Snakemake command. Raises RestoreError if it fails."""
    command = [sys.executable, "-m", "snakemake", "--cores", "1", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        lines = [line for line in (done.stdout + done.stderr).strip().splitlines() if line.strip()] or ["no output"]
        raise RestoreError(f"the files are restored, but `snakemake {' '.join(arguments)}` failed: {lines[-1].strip()}")
    return done.stdout + done.stderr


def make_tables(config: Config, recorded: dict[str, str]) -> None:
    """Rebuild the report and compare each file with the recorded one. Raises RestoreError on a difference."""
    from mscl.reporting.report import build_report, print_tables

    out = Layout(config).report()
    build_report(jobs.ReportJob(config=config), Path(config.paths.results), Path(out))
    report = {path: md5 for path, md5 in recorded.items() if path.startswith(f"{out}/")}
    other = [path for path, md5 in report.items() if md5_of(path) != md5]
    print_tables(Path(out))
    if other:
        raise RestoreError(
            f"{other[0]}: the rebuilt file differs from the recorded one ({len(other)} of {len(report)} files of the report differ); "
            "check that the environment is that of requirements.lock"
        )
    print(f"{len(report)} files of the report rebuilt: all hashes are those recorded in dvc.lock")


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


if __name__ == "__main__":
    main()
