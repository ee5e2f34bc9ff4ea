"""Restore what dvc.lock records into a fresh clone: `make restore`, or `python -m workflow.restore` in the repository's root.

Files come from the DVC remote, every one is hashed again, and Snakemake is told that they are up to date, so that
afterwards neither `snakemake -n` nor `dvc status` has anything to do. `--only tables` takes what the tables are made
from (predictions, metrics, histories, cards) and makes the report anew. Nothing is deleted or replaced without `--force`.
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
HEAVY = (".safetensors", ".pt")  # what the tables do without
TRANSFER = (DvcException, ObjectDBError, ObjectFormatError, OSError)
ADVICE = "(docs/dvc.md says how to set up a remote)"


class RestoreError(ValueError):
    """What was recorded cannot be restored; the text says why and what to do."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m workflow.restore", description="Restore what dvc.lock records.")
    parser.add_argument("--only", choices=["tables"], help="no data and no weights: only what the tables are made from")
    parser.add_argument("--remote", help="a DVC remote other than the default one")
    parser.add_argument("--force", action="store_true", help="replace files that differ from the recorded ones")
    arguments = parser.parse_args()
    os.chdir(ROOT)
    logging.getLogger("dvc").setLevel(logging.CRITICAL)  # its warnings say in many lines what one sentence says below
    warnings.filterwarnings("ignore", message="coroutine .* was never awaited")  # s3fs, where it finds no credentials
    logging.getLogger("dvc_objects").setLevel(logging.CRITICAL)
    logging.getLogger("dvc_data").setLevel(logging.CRITICAL)
    try:
        restore(arguments.only, arguments.remote, arguments.force)
    except ValueError as error:  # ours, and a configuration that is not valid
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None


def restore(only: str | None, remote: str | None, force: bool) -> None:
    """Raise RestoreError where there is no record or no remote, and where code, settings or files are not the recorded ones."""
    config = load_config(Path("config.yaml"))
    with open_repo() as repo:
        remote, where = remote_of(repo, remote)
        check_stages(repo)
        recorded = recorded_files(repo, remote, where)
        wanted = recorded if only is None else table_files(recorded, config)
        report = f"{Layout(config).report()}/"  # what is made anew where only tables are wanted
        made = {path: md5 for path, md5 in recorded.items() if path.startswith(report)}
        check_mine(repo, wanted | made, [o for o in outputs(repo) if o.startswith(report)] if only else outputs(repo), force)
        bring(repo, wanted, remote, where)
        checkout(repo, wanted if only else None, where)
        check_hashes(repo, wanted)
        print(f"{len(wanted)} files from {where}: each has the hash that dvc.lock records")
        if only is None:
            settle(repo)
        else:
            make_tables(config, recorded)


def open_repo() -> Repo:
    if not Path("dvc.lock").exists():
        raise RestoreError(
            "dvc.lock: not here, so nothing has been recorded; run `dvc repro` where the data are and commit dvc.lock, or check out "
            "a commit that has it"
        )
    try:
        return Repo(str(ROOT))
    except DvcException as error:
        raise RestoreError(f"{ROOT}: no DVC repository ({_line(error)}); clone it with git") from None


def remote_of(repo: Repo, name: str | None) -> tuple[str, str]:
    """The remote's name, and name and address for sentences."""
    name = name or repo.config["core"].get("remote")
    if not name:
        raise RestoreError(f"no DVC remote is set: dvc remote add --default storage <folder or s3://bucket/path> {ADVICE}")
    if name not in repo.config["remote"]:
        known = ", ".join(repo.config["remote"]) or "none"
        raise RestoreError(
            f"there is no DVC remote '{name}' (known: {known}); add it by dvc remote add {name} <address> {ADVICE}"
        )
    where = f"remote '{name}' ({repo.config['remote'][name].get('url')})"
    try:
        odb = repo.cloud.get_remote_odb(name)
        if odb.fs.protocol == "local" and not odb.fs.exists(repo.config["remote"][name]["url"]):
            raise RestoreError(f"{where}: no such folder; mount it, or correct the address by dvc remote modify {name} url ...")
    except TRANSFER as error:
        raise RestoreError(f"{where} cannot be used: {_line(error)}") from None
    return name, where


def check_stages(repo: Repo) -> None:
    """Raise where code or settings are not those that made the recorded files: Snakemake would take old files for new ones."""
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
            f"{', '.join(dict.fromkeys(changed))}: changed since dvc.lock was written, so what it records is not of this code or "
            "these settings; undo the change, or run `dvc pull` and then `dvc repro`"
        )


def outputs(repo: Repo) -> list[str]:
    return [out.def_path for out in repo.index.outs]


def recorded_files(repo: Repo, remote: str, where: str) -> dict[str, str]:
    """Every recorded file -> its md5; the lists of folders come from the remote where they are not in the cache."""
    for out in repo.index.outs:
        if not out.hash_info:
            raise RestoreError(
                f"dvc.lock: does not record {out.def_path}; run `dvc repro` where the data are and commit dvc.lock"
            )
    lists = {f"the list of {out.def_path}": out.hash_info.value for out in repo.index.outs if out.is_dir_checksum}
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
                f"the list of {out.def_path} was damaged in the cache and is removed there; run the same command again"
            )
        files |= {"/".join((out.def_path, *key)): info.value for key, _, info in tree}
    return files


def table_files(recorded: dict[str, str], config: Config) -> dict[str, str]:
    """What the report reads: everything below the results that is neither weights nor the report itself."""
    results, report = f"{config.paths.results}/", f"{Layout(config).report()}/"
    return {
        path: md5
        for path, md5 in recorded.items()
        if path.startswith(results) and not path.startswith(report) and not path.endswith(HEAVY)
    }


def check_mine(repo: Repo, wanted: dict[str, str], folders: Iterable[str], force: bool) -> None:
    """Raise where a file here would be replaced or removed: it may be somebody's work."""
    mine = [path for path, md5 in wanted.items() if Path(path).exists() and md5_of(path) != md5]
    for folder in folders:
        if Path(folder).is_dir():
            here = (Path(path).relative_to(ROOT).as_posix() for path in repo.dvcignore.find(repo.fs, str(ROOT / folder)))
            mine += [path for path in here if path not in wanted]
    if mine and not force:
        more = f" and {len(mine) - 1} more" if len(mine) > 1 else ""
        raise RestoreError(
            f"{mine[0]}{more}: here, and not what dvc.lock records; move it away, or replace it by --force (FORCE=1)"
        )


def bring(repo: Repo, wanted: dict[str, str], remote: str, where: str) -> None:
    """Bring every object of `wanted` (what it is -> its md5) into the cache."""
    lacking = {md5 for md5 in wanted.values() if not repo.cache.local.exists(md5)}
    if not lacking:
        return
    try:
        repo.cloud.pull({HashInfo("md5", md5) for md5 in lacking}, remote=remote)
    except ObjectFormatError as error:
        name = next((name for name, md5 in wanted.items() if md5 in str(error)), _line(error))
        raise RestoreError(f"{where}: {name} is damaged there; delete it there and `dvc push` from where it was made") from None
    except Exception as error:  # every kind of remote has errors of its own: no credentials, no route, no such bucket
        raise RestoreError(f"{where} cannot be read: {_line(error)} {ADVICE}") from None
    missing = [name for name, md5 in wanted.items() if md5 in lacking and not repo.cache.local.exists(md5)]
    if missing:
        raise RestoreError(
            f"{where} lacks {len(missing)} of {len(wanted)} files, the first is {missing[0]} (md5 {wanted[missing[0]]}); "
            "`dvc push` from where they were made"
        )


def checkout(repo: Repo, only: Iterable[str] | None, where: str) -> None:
    try:
        repo.checkout(targets=list(only) if only is not None else None, force=True)
    except TRANSFER as error:
        raise RestoreError(f"what came from {where} cannot be written: {_line(error)}") from None


def check_hashes(repo: Repo, wanted: dict[str, str]) -> None:
    """Hash every file itself: DVC takes a cached object's word. Damaged ones are removed, so that a second try fetches them."""
    damaged = [(path, md5, found) for path, md5 in wanted.items() if (found := md5_of(path)) != md5]
    for path, md5, _ in damaged:
        Path(path).unlink(missing_ok=True)
        Path(repo.cache.local.oid_to_path(md5)).unlink(missing_ok=True)
    if damaged:
        path, expected, found = damaged[0]
        more = f" (and {len(damaged) - 1} more files)" if len(damaged) > 1 else ""
        raise RestoreError(
            f"{path}: expected md5 {expected}, found {found}{more}; the damaged copy is removed from here and from the cache: run the "
            "same command again, and if it comes back, delete it in the remote and `dvc push` from where it was made"
        )


def md5_of(path: str) -> str | None:
    if not Path(path).is_file():
        return None
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def settle(repo: Repo) -> None:
    """Give outputs times in order and Snakemake its records of settings and code, then ask both programs."""
    snakemake("--touch", "--forceall", "--quiet", "all")
    said = snakemake("-n")
    if "Nothing to be done" not in said:
        raise RestoreError(f"the files are here, and yet `snakemake -n` would run jobs: {said.strip().splitlines()[-1]}")
    repo._reset()  # it remembers the tree as it was
    if left := repo.status():
        raise RestoreError(f"the files are here, and yet `dvc status` finds changes in {', '.join(left)}")
    print("snakemake -n: nothing to be done; dvc status: up to date")


def snakemake(*arguments: str) -> str:
    command = [sys.executable, "-m", "snakemake", "--cores", "1", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        lines = [line for line in (done.stdout + done.stderr).strip().splitlines() if line.strip()] or ["it says nothing"]
        raise RestoreError(f"the files are here, and `snakemake {' '.join(arguments)}` failed: {lines[-1].strip()}")
    return done.stdout + done.stderr


def make_tables(config: Config, recorded: dict[str, str]) -> None:
    """Build the report and compare it, file by file, with the recorded one."""
    from mscl.reporting.report import build_report, print_tables

    out = Layout(config).report()
    build_report(jobs.ReportJob(config=config), Path(config.paths.results), Path(out))
    report = {path: md5 for path, md5 in recorded.items() if path.startswith(f"{out}/")}
    other = [path for path, md5 in report.items() if md5_of(path) != md5]
    print_tables(Path(out))
    if other:
        raise RestoreError(
            f"{other[0]}: made anew it differs from the recorded one ({len(other)} of {len(report)} files of the report do); "
            "is this the environment of requirements.lock?"
        )
    print(f"{len(report)} files of the report made anew, each with the hash that dvc.lock records")


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


if __name__ == "__main__":
    main()
