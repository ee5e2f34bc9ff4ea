"""Unpack tar, zip and RAR archives into a folder that is either complete or absent. Members outside that folder are refused.

The archive type is read from the first bytes of the file. A single top-level folder is removed. An archive that holds only RAR
files (as HMDB51's, one per class) becomes one folder per RAR file.
"""

from __future__ import annotations

import bz2
import contextlib
import errno
import gzip
import io
import lzma
import os
import re
import shutil
import stat
import subprocess
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

_BROKEN = (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, EOFError, zlib.error, lzma.LZMAError)
_COMPRESSED = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}

# {program: function (archive, folder) -> arguments that unpack the archive into the folder}; both paths are absolute
RAR_TOOLS: dict[str, Callable[[str, str], list[str]]] = {
    "unrar": lambda archive, folder: ["x", "-o+", "-p-", "--", archive, f"{folder}/"],
    "7zz": lambda archive, folder: ["x", "-y", "-bso0", "-bsp0", f"-o{folder}", "--", archive],
    "7z": lambda archive, folder: ["x", "-y", "-bso0", "-bsp0", f"-o{folder}", "--", archive],
    "unar": lambda archive, folder: ["-quiet", "-force-overwrite", "-no-directory", "-output-directory", folder, archive],
    "bsdtar": lambda archive, folder: ["-x", "-f", archive, "-C", folder],
}


# Videos hardly compress, and the annotations beside them are small: an archive that grows more than this is not one of videos.
GROWTH, SMALL = 20, 10**9  # times its own size; bytes that any archive may unpack to


class Damaged(ValueError):
    """The archive is incomplete, damaged or unsafe. It must be downloaded again."""


class Refused(Damaged):
    """A member of the archive is unsafe to unpack, for example because it would be written outside the folder."""


@contextlib.contextmanager
def unpacked(archive: Path, folder: Path) -> Iterator[int]:
    """Unpack `archive` beside `folder`, yield the number of files, and rename to `folder` if the body succeeds.

    Raises Damaged if the archive is damaged or has an unsafe member, and ValueError if it cannot be unpacked on this machine
    (missing program, no space). After an error no unpacked file is left.
    """
    with whole_folder(folder) as draft:
        with sentences(archive):
            extract(archive, draft)
            drop_top(draft)
            _inner_rars(draft)
        yield sum(len(files) for _, _, files in os.walk(draft))


@contextlib.contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder beside `folder`; rename it to `folder` if the body succeeds, else remove it."""
    draft = folder.with_name(f".{folder.name}.unpacking")
    shutil.rmtree(draft, ignore_errors=True)  # left by a run that was killed
    draft.mkdir(parents=True)
    try:
        yield draft
        os.rename(draft, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def absent(folder: Path) -> bool:
    """Whether `folder` does not exist or is an empty folder."""
    return not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))


@contextlib.contextmanager
def sentences(archive: Path) -> Iterator[None]:
    """Convert the errors of the unpacking libraries into Damaged or ValueError that names the archive."""
    try:
        yield
    except _BROKEN as error:
        raise Damaged(
            f"{archive}: the archive is damaged or incomplete ({error}); run the same command again to download it again"
        ) from None
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise ValueError(f"{archive}: no space left to unpack it; free some space and run the same command again") from None


def extract(archive: Path, folder: Path) -> None:
    """Unpack `archive` into `folder`. Raises Damaged, ValueError, or the unpacking library's own error for a damaged archive."""
    with open(archive, "rb") as file:
        head = file.read(8)
        file.seek(0)
        if head.startswith(b"Rar!\x1a\x07"):
            _rar(archive, folder)
        elif head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
            _zip(archive, folder)
        else:
            untar(file, folder, archive, archive.stat().st_size)


def untar(file: BinaryIO, folder: Path, name: Path, packed: int | None = None) -> None:
    """Unpack a tar file, compressed or not, from the stream `file` in one pass. `name` is the archive's name in error messages.

    `packed`: size of the archive (bytes), if it is known; it limits the unpacked size, as the free space does. Raises Refused for
    an unsafe member, ValueError if there is no room, and what tarfile and the decompressors raise for a damaged archive.
    """
    done, free = 0, shutil.disk_usage(folder).free
    buffered = file if isinstance(file, io.BufferedReader) else io.BufferedReader(file)
    head = buffered.peek(8)
    opener = next((o for magic, o in _COMPRESSED.items() if head.startswith(magic)), None)
    with opener(buffered) if opener else contextlib.nullcontext(buffered) as plain, tarfile.open(fileobj=plain, mode="r|") as tar:
        while (member := tar.next()) is not None:
            done += member.size
            _check_growth(name, member.name, done, packed)
            _check_room(name, done, free)
            _untar_member(tar, member, folder, name)
            tar.members = []  # else tarfile would keep all of, say, 200,000 members in memory
        while rest := tar.fileobj.read(1 << 20):  # read to the end so that the checksum of the compressed stream is verified
            if rest.strip(b"\0"):
                raise tarfile.ReadError("other data follows the last member")


def _untar_member(tar: tarfile.TarFile, member: tarfile.TarInfo, folder: Path, name: Path) -> None:
    check_name(member.name, name)
    if member.issym():
        raise _refusal(name, member.name, f"is a symbolic link (to '{member.linkname}')")
    if member.islnk():
        check_name(member.linkname, name)
        if not (folder / member.linkname).is_file():
            raise _refusal(name, member.name, f"is a link to '{member.linkname}', which is not a file that comes before it")
    elif not (member.isfile() or member.isdir()):
        raise _refusal(name, member.name, "is a device or another special file")
    try:
        with _placing(member.name, name):
            tar.extract(member, folder, filter="data")
    except tarfile.FilterError as error:
        raise _refusal(name, member.name, f"is unsafe to unpack ({error})") from None


@contextlib.contextmanager
def _placing(member: str, archive: Path) -> Iterator[None]:
    """Convert the errors of the file system that a member's name causes into Refused."""
    try:
        yield
    except (FileExistsError, NotADirectoryError, IsADirectoryError):
        raise _refusal(archive, member, "needs a name that is a file and a folder at once") from None
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        shown = f"{member[:40]}..." if len(member) > 40 else member
        raise _refusal(
            archive, shown, f"has a name of {len(member.encode(errors='replace'))} bytes, too long for this disk"
        ) from None


def check_name(member: str, archive: Path) -> None:
    """Raise Refused if a member's name is empty or absolute, contains '..', or is not a valid file name."""
    path = PurePosixPath(member.replace("\\", "/"))
    if not member or path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:", member) or "\0" in member:
        raise _refusal(archive, member, "would be written outside the folder")


def _refusal(archive: Path, member: str, why: str) -> Refused:
    return Refused(f"{archive}: member {member!r} {why}, so the archive is not unpacked; get it from a source that you trust")


def _check_growth(archive: Path, member: str, unpacked: int, packed: int | None) -> None:
    if packed is not None and unpacked > max(SMALL, GROWTH * packed):
        raise _refusal(archive, member, f"makes the unpacked files {unpacked / 1e9:.4g} GB, more than {GROWTH} times the archive")


def _check_room(archive: Path, needed: int, free: int) -> None:
    if needed > free:
        raise ValueError(
            f"{archive}: the unpacked files need {needed / 1e9:.4g} GB or more, but only {free / 1e9:.4g} GB are free; free some space "
            "and run the same command again"
        )


def _zip(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as file:
        members = file.infolist()
        for member in members:
            check_name(member.orig_filename, archive)
            kind = stat.S_IFMT(member.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _refusal(archive, member.filename, "is a link or another special file")
            if member.flag_bits & 1:
                raise _refusal(archive, member.filename, "is encrypted")
        _check_sizes(archive, folder, [(m.filename, m.file_size) for m in members])
        for member in members:
            with _placing(member.filename, archive):
                file.extract(member, folder)


def _check_sizes(archive: Path, folder: Path, sizes: list[tuple[str, int]]) -> None:
    """Check (name, unpacked bytes) of all members before any of them is unpacked."""
    total = sum(size for _, size in sizes)
    if sizes:
        _check_growth(archive, max(sizes, key=lambda s: s[1])[0], total, archive.stat().st_size)
    _check_room(archive, total, shutil.disk_usage(folder).free)


def _rar(archive: Path, folder: Path) -> None:
    """Check every member of a RAR; then extract it here if nothing is compressed, else with an external program."""
    import rarfile

    try:
        with rarfile.RarFile(archive, errors="strict") as file:
            if file.needs_password():
                raise _refusal(archive, archive.name, "is encrypted")
            members = file.infolist()
            for member in members:
                check_name(member.filename, archive)
                if not (member.is_file() or member.is_dir()) or getattr(member, "file_redir", None):
                    raise _refusal(archive, member.filename, "is a link or another special file")
            members = [m for m in members if m.is_file()]
            _check_sizes(archive, folder, [(m.filename, m.file_size) for m in members])
            if all(m.compress_type == rarfile.RAR_M0 for m in members):
                for member in members:
                    target = folder / member.filename
                    with _placing(member.filename, archive):
                        target.parent.mkdir(parents=True, exist_ok=True)
                        out = open(target, "wb")  # noqa: SIM115
                    with out, file.open(member) as source:
                        shutil.copyfileobj(source, out, 1 << 20)  # verifies the checksum at the end
                return
    except rarfile.RarCannotExec:  # an old RAR with a compressed comment
        raise _no_tool(archive) from None
    except rarfile.Error as error:
        raise tarfile.ReadError(" ".join(str(error).split())) from None
    _run_rar_tool(archive, folder, sorted(m.file_size for m in members))


def _run_rar_tool(archive: Path, folder: Path, sizes: list[int]) -> None:
    """Unpack with the first installed program that succeeds. The result must be regular files of the listed `sizes` (bytes)."""
    said = {}
    for tool, arguments in RAR_TOOLS.items():
        program = shutil.which(tool)
        if program is None:
            continue
        command = [program, *arguments(str(archive.resolve()), str(folder.resolve()))]
        environment = os.environ | {"LC_ALL": "C.UTF-8"}
        run = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, env=environment, check=False)
        found = _plain_sizes(archive, folder)
        if run.returncode == 0 and found == sizes:
            return
        words = " ".join((run.stderr if run.returncode else b"").decode(errors="replace").split())
        said[tool] = f"{tool}: {words[:200] or f'exit code {run.returncode}, {len(found)} of {len(sizes)} files'}"
        for entry in folder.iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    if not said:
        raise _no_tool(archive)
    raise ValueError(
        f"{archive}: cannot be unpacked ({'; '.join(said.values())}); install another of {', '.join(RAR_TOOLS)}, "
        "or, if the archive is damaged, delete it to download it again"
    )


def _no_tool(archive: Path) -> ValueError:
    return ValueError(
        f"{archive}: no program for compressed RAR files is installed; install one of {', '.join(RAR_TOOLS)} "
        "(conda-forge: p7zip; Debian: unar) and run the same command again: the archive is kept"
    )


def _plain_sizes(archive: Path, folder: Path) -> list[int]:
    """Sorted sizes (bytes) of all files below `folder`. Raises Refused if anything there is a link or a special file."""
    sizes = []
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            mode = os.lstat(os.path.join(parent, name))
            if stat.S_ISREG(mode.st_mode) and mode.st_nlink == 1:
                sizes.append(mode.st_size)
            elif not stat.S_ISDIR(mode.st_mode):
                raise _refusal(archive, name, "became a link or another special file")
    return sorted(sizes)


def drop_top(folder: Path) -> None:
    """If `folder` holds only one folder, replace `folder` by that inner folder."""
    entries = list(folder.iterdir())
    if len(entries) != 1 or not entries[0].is_dir():
        return
    aside = folder.with_name(f"{folder.name}.top")
    shutil.rmtree(aside, ignore_errors=True)
    os.rename(entries[0], aside)
    folder.rmdir()
    os.rename(aside, folder)


def _inner_rars(folder: Path) -> None:
    """If `folder` holds only RAR files, unpack each into a folder of the same name."""
    inner = sorted(folder.iterdir())
    if not inner or not all(path.is_file() and path.suffix == ".rar" for path in inner):
        return
    for path in inner:
        into = path.with_suffix("")
        into.mkdir()
        _rar(path, into)
        drop_top(into)
        path.unlink()
