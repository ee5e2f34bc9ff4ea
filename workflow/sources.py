"""Where recorded files come from: a DVC remote (a folder, a bucket, a web server), or a bundle made by `make bundle`.

Both are data: every file is looked up by the hash in dvc.lock, which is part of the repository, and nothing is used before its content
has that hash. The rest of a bundle is not read, and no address in it is followed.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

import requests
from dvc.exceptions import DvcException
from dvc.output import Output
from dvc.repo import Repo
from dvc_data.hashfile.hash_info import HashInfo
from dvc_objects.errors import ObjectDBError, ObjectFormatError

from mscl.config.schema import Config
from mscl.datasets.acquire.unpack import Damaged, check_name
from mscl.machine.files import atomic_write
from workflow.recorded import RecordError, line

TRANSFER = (DvcException, ObjectDBError, ObjectFormatError, OSError)
ADVICE = "(docs/dvc.md says how to set up a remote)"
LISTS = "lists"  # the folder of a bundle with DVC's lists of the files in each folder
HEAVY = (".safetensors", ".pt", ".npz")  # files that the tables do not need
READ_ONLY = 0o444  # as DVC leaves its objects
OBJECT = re.compile(r"[0-9a-f]{32}(\.dir)?")


class Remote:
    """A DVC remote: `name`, or the default one. Raises RecordError when it cannot be used."""

    def __init__(self, repo: Repo, name: str | None):
        name = name or repo.config["core"].get("remote")
        if not name:
            raise RecordError(
                f"no DVC remote is set: dvc remote add --default storage <folder, https://... or s3://bucket/path> {ADVICE}; or give "
                "a bundle, FROM=bundle.tar"
            )
        if name not in repo.config["remote"]:
            known = ", ".join(repo.config["remote"]) or "none"
            raise RecordError(
                f"there is no DVC remote '{name}' (known: {known}); add it with dvc remote add {name} <address> {ADVICE}"
            )
        settings = repo.config["remote"][name]
        self.name, self.where = name, f"remote '{name}' ({settings.get('url')})"
        try:
            if settings["url"].startswith(
                ("http://", "https://")
            ):  # DVC takes a server that does not answer for one without files
                requests.head(settings["url"], timeout=20, verify=settings.get("ssl_verify", True), allow_redirects=False)
            odb = repo.cloud.get_remote_odb(name)
            if odb.fs.protocol == "local" and not odb.fs.exists(settings["url"]):
                raise RecordError(
                    f"{self.where}: no such folder; mount it, or correct the address with dvc remote modify {name} url ..."
                )
        except TRANSFER as error:
            raise RecordError(f"{self.where} cannot be used: {line(error)}") from None

    mend = (
        "run `dvc push` on the machine that has them, or restore less: ONLY=results leaves out the data, ONLY=tables also weights"
    )

    def holds(self, config: Config) -> str | None:
        """What is restored from it if nothing else is said: everything."""
        return None

    def bring(self, repo: Repo, lacking: dict[str, str]) -> None:
        """Pull the objects (path or description -> md5) into the cache."""
        try:
            repo.cloud.pull({HashInfo("md5", md5) for md5 in lacking.values()}, remote=self.name)
        except ObjectFormatError as error:
            name = next((name for name, md5 in lacking.items() if md5 in str(error)), line(error))
            raise RecordError(
                f"{self.where}: {name} is damaged there; delete it there and run `dvc push` on the machine that has it"
            ) from None
        except Exception as error:  # each kind of remote has its own errors: no credentials, no route, no such bucket
            raise RecordError(f"{self.where} cannot be read: {line(error)} {ADVICE}") from None


class Bundle:
    """A tar made by `make bundle`: files at their paths below one folder. Raises RecordError if it is none, or unsafe.

    It must not be compressed or sparse, so that no member can be larger than the file.
    """

    mend = "the bundle was made without them or at another commit, which its README.md names"

    def __init__(self, path: Path):
        self.path, self.where = path, str(path)
        try:
            self.tar = tarfile.open(path, mode="r:")  # noqa: SIM115
            self.members = dict(self._members())
        except FileNotFoundError:
            raise RecordError(f"{path}: no such file; FROM must name a bundle that `make bundle` has written") from None
        except (tarfile.TarError, OSError, EOFError) as error:
            raise RecordError(f"{path}: not a bundle, or damaged ({line(error)}); get it again") from None
        except Damaged as error:
            raise RecordError(str(error)) from None

    def _members(self) -> Iterator[tuple[str, tarfile.TarInfo]]:
        for member in self.tar:
            check_name(member.name, self.path)
            if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.issparse():
                raise RecordError(
                    f"{self.path}: {member.name} is a link, a folder or another special file, which no bundle has; it is refused"
                )
            yield member.name.partition("/")[2], member

    def holds(self, config: Config) -> str | None:
        """What can be restored from it: None for everything, else the value of `--only`."""
        if any(name.startswith(f"{config.paths.data}/") for name in self.members):
            return None
        return "results" if any(name.endswith(HEAVY) for name in self.members) else "tables"

    def bring(self, repo: Repo, lacking: dict[str, str]) -> None:
        """Copy the members with these objects into the cache, if their content has the recorded hash."""
        for name, md5 in lacking.items():
            member = self.members.get(f"{LISTS}/{md5}" if md5.endswith(".dir") else name)
            if member is not None and not repo.cache.local.exists(md5):
                self._take(member, md5, Path(repo.cache.local.oid_to_path(md5)))

    def _take(self, member: tarfile.TarInfo, md5: str, to: Path) -> None:
        try:
            with atomic_write(to) as temporary:
                with self.tar.extractfile(member) as packed, open(temporary, "wb") as file:
                    shutil.copyfileobj(packed, file, 1 << 20)
                if (found := md5_of(temporary)) != md5.removesuffix(".dir"):
                    raise RecordError(
                        f"{self.path}: {member.name}: expected md5 {md5}, found {found}; the bundle is damaged or of another commit than "
                        "this checkout (its README.md names the commit)"
                    )
                temporary.chmod(READ_ONLY)
        except (tarfile.TarError, OSError, EOFError) as error:
            raise RecordError(f"{self.path}: {member.name} cannot be read: {line(error)}; get the bundle again") from None


def fetch(repo: Repo, wanted: dict[str, str], source: Remote | Bundle) -> None:
    """Bring every object of `wanted` (path or description -> md5) into the cache, and check the hash of each.

    DVC does not check its cache, so this is done here before anything is used. Damaged objects are removed from the cache, so that the
    next run fetches them again. Raises RecordError for a missing or damaged object.
    """
    lacking = {name: md5 for name, md5 in wanted.items() if not repo.cache.local.exists(md5)}
    if lacking:
        source.bring(repo, lacking)
    missing = [name for name, md5 in lacking.items() if not repo.cache.local.exists(md5)]
    if missing:
        raise RecordError(
            f"{source.where} does not have {len(missing)} of {len(wanted)} files; the first is {missing[0]} (md5 {wanted[missing[0]]}); "
            f"{source.mend}"
        )
    damaged = []
    for name, md5 in wanted.items():
        stored = Path(repo.cache.local.oid_to_path(md5))
        if (found := md5_of(stored)) != md5.removesuffix(".dir"):
            stored.unlink(missing_ok=True)
            damaged.append(f"{name}: expected md5 {md5}, found {found}")
    if damaged:
        more = f" (and {len(damaged) - 1} more files)" if len(damaged) > 1 else ""
        raise RecordError(
            f"{damaged[0]}{more}; the damaged copy has been removed from the cache; run the same command again. If this repeats, the copy in "
            f"{source.where} is damaged: delete it there and run `dvc push` on the machine that has it"
        )


def listed(repo: Repo, outs: list[Output], source: Remote | Bundle) -> dict[str, str]:
    """Every recorded file of these outputs -> its md5. Lists of folders that are not in the cache come from `source`.

    Raises RecordError for an output that is not recorded, and for a list that is damaged or names a file outside of its folder.
    """
    if absent := next((out.def_path for out in outs if not out.hash_info), None):
        raise RecordError(f"dvc.lock: {absent} is not recorded; run `dvc repro` on the machine with the data and commit dvc.lock")
    fetch(repo, {f"the file list of {out.def_path}": out.hash_info.value for out in outs if out.is_dir_checksum}, source)
    files = {}
    for out in outs:
        if not out.is_dir_checksum:
            files[out.def_path] = out.hash_info.value
            continue
        for key, _, info in out.get_dir_cache():
            if (
                {"", ".", ".."} & set(key)
                or any("\\" in part or "\0" in part for part in key)
                or not OBJECT.fullmatch(info.value)
            ):
                raise RecordError(
                    f"the file list of {out.def_path} names {'/'.join(key)!r}, which is no file in this folder; it is refused"
                )
            files["/".join((out.def_path, *key))] = info.value
    return files


def md5_of(path: str | Path) -> str | None:
    """The md5 of a file; None if it does not exist."""
    if not Path(path).is_file():
        return None
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()
