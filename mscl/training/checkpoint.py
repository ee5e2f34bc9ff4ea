"""Files that are whole or absent: checkpoints to resume from, final weights as safetensors."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mscl.machine.files import atomic_write, sync
from mscl.models.finite import non_finite

SEAL = b"\nmscl checkpoint, sha256 "  # before the checksum at the end of a checkpoint
PIECE = 1 << 24  # bytes that are read at a time


class CheckpointError(ValueError):
    """A checkpoint cannot be resumed from; the text says which file, why, and what to do."""


def digest(*parts: str) -> str:
    """Short hash of texts."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def previous(path: Path) -> Path:
    """Where the checkpoint before the last one is kept."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def save_checkpoint(path: Path, state: dict[str, Any], identity: dict[str, str], keep_previous: bool = True) -> None:
    """Write `state` (tensors, numbers, strings, lists, dicts) under a temporary name, then rename; the one before is kept, too.

    `identity` says what it belongs to: `job` (JSON of the settings), and hashes by name. The file ends with the sha256 of all that
    stands before; `torch.load` reads it all the same.
    """
    buffer = io.BytesIO()  # written by Python, a full disk is an OSError; torch's own writer hides what it is
    torch.save({"identity": identity, **state}, buffer)
    with atomic_write(path) as temporary:
        with open(temporary, "wb") as file:
            file.write(buffer.getbuffer())
            file.write(_seal(hashlib.sha256(buffer.getbuffer())))
        sync(temporary)  # before the last one takes the place of the one before it
        if keep_previous and path.exists():
            with contextlib.suppress(OSError):  # a file system without links keeps one checkpoint only
                link = path.with_name(f".{path.name}.link")
                link.unlink(missing_ok=True)
                os.link(path, link)
                os.replace(link, previous(path))


def _seal(content: Any) -> bytes:
    """The last bytes of a checkpoint, from the hash of those before."""
    return SEAL + content.hexdigest().encode()


def _verify(path: Path) -> None:
    """Raise ValueError unless the file is, bit by bit, what was written; it is read once, in pieces."""
    length, content = len(_seal(hashlib.sha256())), hashlib.sha256()
    with open(path, "rb") as file:
        left = os.fstat(file.fileno()).st_size - length
        while left > 0 and (piece := file.read(min(left, PIECE))):
            content.update(piece)
            left -= len(piece)
        if file.read() != _seal(content):
            raise ValueError("its content does not fit its checksum")


def load_checkpoint(path: Path, identity: dict[str, str], anyway: bool = False) -> dict[str, Any] | None:
    """The state at `path`, None where there is none.

    Raises CheckpointError for a torn, changed or foreign file, for one with values that are not finite, and, unless `anyway`, for
    one of another `identity`, naming what differs.
    """
    if not path.exists():
        return None
    try:
        _verify(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
        written = state["identity"]
    except Exception as error:
        why = str(error) if type(error) is ValueError else type(error).__name__
        raise CheckpointError(f"{path}: not a checkpoint of mscl, or a damaged one ({why}); {_without(path)}") from None
    if written != identity and not anyway:
        raise CheckpointError(
            f"{path}: belongs to another run ({'; '.join(differences(written, identity))}); "
            "restore that to resume, delete the file to start again, or give --resume-anyway"
        )
    if name := non_finite(state):
        raise CheckpointError(f"{path}: {name} holds values that are not finite; {_without(path)}")
    return state


def _without(path: Path) -> str:
    """What to do when the checkpoint at `path` is of no use."""
    before = previous(path)
    other = f", or rename {before.name} to {path.name} to go on from the one before" if before.exists() else ""
    return f"delete it to start again{other}"


def differences(old: dict[str, str], new: dict[str, str]) -> list[str]:
    """What differs between two identities, a setting each, in words."""
    found = [f"the {name} changed" for name in sorted({*old, *new} - {"job"}) if old.get(name) != new.get(name)]
    before, after = (dict(_flat(json.loads(i.get("job", "{}")))) for i in (old, new))
    for key in sorted({*before, *after}):
        if before.get(key) != after.get(key):
            found.append(f"{key} was {before.get(key, 'absent')} and is {after.get(key, 'absent')}")
    return found


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _flat(inner, f"{key}.{name}" if key else name)
    else:
        yield key, value


def save_weights(path: Path, weights: dict[str, Tensor], metadata: dict[str, Any]) -> None:
    """Write a safetensors file under a temporary name, then rename; the same weights give the same bytes."""
    from safetensors.torch import save

    tensors = {k: v.detach().cpu().contiguous() for k, v in weights.items()}
    # One metadata key only: safetensors writes several in no fixed order.
    data = save(tensors, metadata={"mscl": json.dumps(metadata, sort_keys=True)})
    with atomic_write(path) as temporary:
        temporary.write_bytes(data)
