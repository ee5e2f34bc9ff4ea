"""Write one archive with the recorded results of an experiment: `make bundle`, or `python -m workflow.bundle` in the root.

It is a tar of plain files at their paths, described in ro-crate-metadata.json for readers without DVC, and with DVC's lists of files for
`make restore FROM=...`. Files come from DVC's cache, and their hashes are checked. The same commit gives the same bytes.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import tarfile
from pathlib import Path

from mscl import __version__
from mscl.config.schema import load_config
from mscl.machine.files import atomic_write, sha256
from workflow.crate import crate
from workflow.recorded import ROOT, Recorded, RecordError, command
from workflow.sources import HEAVY, LISTS, fetch, listed

ABOUT = ("LICENSE", "CITATION.cff")
README = """\
Results of the experiment '{name}' of mscl (Motion Sensitive Contrastive Learning), at commit {commit}.

The page with all tables is {page}. ro-crate-metadata.json lists every file with its sha256 and the run that made it.
Licence: Apache-2.0 (LICENSE); pictures and frames of other people's videos have the terms of those videos.

To check and restore: clone the repository, then
    git checkout {commit}
    make restore FROM={archive}{experiment}
"""


class Cache:
    """DVC's cache as the only source of files."""

    where, mend = "DVC's cache", "bring them there with `make restore` or `dvc repro`"

    @staticmethod
    def bring(*_: object) -> None:
        """There is no other source."""


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m workflow.bundle", description="Write one archive with the results of an experiment."
    )
    parser.add_argument("--only", choices=["tables"], help="tables: without weights and features")
    parser.add_argument("--data", action="store_true", help="with manifests, frames and flow")
    parser.add_argument("--to", type=Path, help="the archive to write (default: mscl-<name>.tar)")
    command(bundle, parser)


def bundle(arguments: argparse.Namespace) -> None:
    """Write the archive. Raises RecordError if dvc.lock is stale or not committed, or if a recorded file is not in the cache."""
    with Recorded(arguments.experiment) as recorded:
        if stale := recorded.stale():
            raise RecordError(
                f"{recorded.lock}: {', '.join(stale)}: stale, so these are not the results of this code; {recorded.repro}"
            )
        config, repo = load_config(recorded.config), recorded.repo
        commit, date = committed(recorded)
        outs = recorded.outs if arguments.data else recorded.outs_below(config.paths.results)
        objects = listed(repo, outs, Cache())
        if arguments.only:
            objects = {path: md5 for path, md5 in objects.items() if not path.endswith(HEAVY)}
        fetch(repo, objects, Cache())
        objects |= {f"{LISTS}/{out.hash_info.value}": out.hash_info.value for out in outs if out.is_dir_checksum}
        files = {path: Path(repo.cache.local.oid_to_path(md5)) for path, md5 in sorted(objects.items())}
        own = {path: Path(path) for path in (*ABOUT, str(recorded.config), *recorded.files)}
        to = arguments.to or Path(f"mscl-{config.name}.tar")
        page = f"{config.paths.results}/report/index.html"
        experiment = f" EXPERIMENT={arguments.experiment}" if arguments.experiment else ""
        readme = README.format(name=config.name, commit=commit, page=page, archive=to.name, experiment=experiment)
        files = own | files
        described = crate(files, {path: sha256(file) for path, file in files.items()}, config, __version__, commit, date)
        pack(to, f"mscl-{config.name}", {"README.md": readme, "ro-crate-metadata.json": described}, files)
        print(
            f"{to}: {len(files) + 2} files, {to.stat().st_size / 1e6:.1f} MB, at commit {commit[:12]}; make restore FROM={to}{experiment}"
        )
        if arguments.data and (given := [name for name, data in config.datasets.items() if not data.embedded]):
            print(f"It has frames of {', '.join(given)}: pass it on only where the terms of these videos allow that.")


def committed(recorded: Recorded) -> tuple[str, str]:
    """(commit, its date) of this checkout. Raises RecordError if what a stranger needs beside the bundle is not in it."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
        if done.returncode:
            raise RecordError(
                f"git {arguments[0]}: {done.stderr.strip() or 'failed'}; a bundle needs a commit that it belongs to"
            )
        return done.stdout.strip()

    if changed := git("status", "--porcelain", "--", *recorded.files, str(recorded.config), "mscl", "workflow"):
        raise RecordError(
            f"{changed.splitlines()[0].split()[-1]}: not committed; a bundle belongs to a commit, so commit it first"
        )
    commit, date = git("log", "-1", "--format=%H %cs").split()
    return commit, date


def pack(to: Path, folder: str, texts: dict[str, str], files: dict[str, Path]) -> None:
    """Write an uncompressed tar of texts and files below `folder`, without times and owners."""
    with atomic_write(to) as temporary, tarfile.open(temporary, "w", format=tarfile.PAX_FORMAT) as tar:
        for path, text in texts.items():
            _add(tar, f"{folder}/{path}", len(text.encode()), io.BytesIO(text.encode()))
        for path, file in files.items():
            with open(file, "rb") as content:
                _add(tar, f"{folder}/{path}", file.stat().st_size, content)


def _add(tar: tarfile.TarFile, name: str, size: int, content: io.BufferedIOBase) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o644
    tar.addfile(member, content)


if __name__ == "__main__":
    main()
