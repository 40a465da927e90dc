# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""Checkpoints that are whole or absent, however a run ends.

    checkpoints/step-0000100/state/         all that training goes on from, to the bit
                             model/         what `from_pretrained` loads
                             manifest.json  step, number of processes, size and CRC-32 of each file

A folder is written beside its place, flushed to the disk and then renamed. All processes write to
the same file system.
"""

import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from accelerate import Accelerator
from accelerate.logging import get_logger
from accelerate.utils import broadcast_object_list

from .agreement import raised_together

CHECKPOINTS = "checkpoints"
STATE, MODEL, MANIFEST = "state", "model", "manifest.json"
PARTIAL, REPLACED = ".partial", ".replaced"
CHUNK = 1 << 20  # bytes

logger = get_logger(__name__)


def save_checkpoint(
    accelerator: Accelerator,
    output_dir: str | Path,
    step: int,
    export: Callable[[Path], None],
    limit: int,
) -> Path:
    """Save what `accelerator` has prepared and what is registered with it, and an exported model.

    Every process calls this after the same step. Then all but the newest `limit` checkpoints are
    removed, and those of later steps, which resuming has passed over.

    Args:
        output_dir: of the run.
        step: updates done.
        export: writes the model into a folder. Every process calls it, for it may have to gather
            weights; only the main one writes.
        limit: how many checkpoints to keep, at least 1.

    Returns:
        The checkpoint's folder.

    Raises:
        OSError: it could not be written; says how much space there was. Earlier checkpoints stay.
    """
    root = Path(output_dir) / CHECKPOINTS
    if accelerator.is_main_process:
        for leftover in [*root.glob(f"*{PARTIAL}"), *root.glob(f"*{REPLACED}")]:
            shutil.rmtree(leftover, ignore_errors=True)
    with written_whole(accelerator, root / f"step-{step:07d}") as partial:
        with raised_together(accelerator):
            accelerator.save_state(partial / STATE)
            export(partial / MODEL)
        if accelerator.is_main_process:
            write_manifest(partial, step, accelerator.num_processes)
    if accelerator.is_main_process:
        folders = list_checkpoints(root)
        later = [folder for folder in folders if step_of(folder) > step]
        earlier = folders[: len(folders) - len(later)]
        for folder in later + earlier[:-limit]:
            shutil.rmtree(folder, ignore_errors=True)
    return root / f"step-{step:07d}"


@contextmanager
def written_whole(accelerator: Accelerator, folder: Path) -> Iterator[Path]:
    """A new folder to write into, which takes the place of `folder` at the end of the block, once
    it is on the disk. After an error, in whichever process, it is gone and `folder` as before.

    Raises:
        OSError: the block raised an error, or the disk did.
    """
    partial = folder.with_name(folder.name + PARTIAL)
    try:
        with raised_together(accelerator):
            if accelerator.is_main_process:
                shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir(parents=True)
        with raised_together(accelerator):
            yield partial
        with raised_together(accelerator):
            if accelerator.is_main_process:
                put_in_place(partial, folder)
    except Exception as error:
        if accelerator.is_main_process:
            shutil.rmtree(partial, ignore_errors=True)
        raise OSError(f"{folder} cannot be written ({space_for(folder)}): {error}") from error


def put_in_place(partial: Path, folder: Path) -> None:
    """Flush `partial` to the disk, with all that is in it, and rename it to `folder`."""
    for path in [*partial.rglob("*"), partial]:
        flush(path)
    replaced = folder.with_name(folder.name + REPLACED)
    shutil.rmtree(replaced, ignore_errors=True)
    if folder.exists():
        folder.rename(replaced)
    partial.rename(folder)
    flush(folder.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def flush(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def space_for(folder: Path) -> str:
    """What is free on a folder's disk, and what the newest checkpoint beside it takes."""
    parent = next(path for path in folder.parents if path.exists())
    told = f"{shutil.disk_usage(parent).free / 1e6:,.1f} MB are free"
    if neighbours := list_checkpoints(folder.parent):
        size = sum(path.stat().st_size for path in neighbours[-1].rglob("*") if path.is_file())
        told += f", {neighbours[-1].name} takes {size / 1e6:,.1f} MB"
    return told


def write_manifest(folder: Path, step: int, num_processes: int) -> None:
    files = {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "crc32": crc32(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    manifest = {"step": step, "num_processes": num_processes, "files": files}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2), encoding="utf-8")


def crc32(path: Path) -> int:
    checksum = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            checksum = zlib.crc32(chunk, checksum)
    return checksum


def list_checkpoints(root: Path) -> list[Path]:
    """The checkpoints in a folder, whole or damaged, by step."""
    folders = [folder for folder in root.glob("step-*") if folder.name[5:].isdigit()]
    return sorted(folders, key=step_of)


def step_of(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))


def latest_checkpoint(accelerator: Accelerator, output_dir: str | Path) -> Path | None:
    """The newest checkpoint of a run that is as it was written; `None` if none was written.

    Every process calls this and gets the same answer. Damaged checkpoints, and one that was not
    finished, are passed over with a warning that names what is wrong.

    Raises:
        ValueError: there are checkpoints, and all are damaged.
    """
    root, found = Path(output_dir) / CHECKPOINTS, [None]
    if accelerator.is_main_process:
        for partial in root.glob(f"*{PARTIAL}"):
            logger.warning(f"{partial} was not finished and is passed over")
        found = [newest_whole(root)]
    newest, damages = broadcast_object_list(found)[0]
    for damage in damages:
        logger.warning(f"a damaged checkpoint is passed over: {damage}")
    if newest is None and damages:
        raise ValueError(f"no checkpoint in {root} is whole: {'; '.join(damages)}")
    return newest


def newest_whole(root: Path) -> tuple[Path | None, list[str]]:
    """The newest whole checkpoint, and what is wrong with those that are newer."""
    damages = []
    for folder in reversed(list_checkpoints(root)):
        damage = find_damage(folder)
        if damage is None:
            return folder, damages
        damages.append(damage)
    return None, damages


def find_damage(folder: Path) -> str | None:
    """Which file of a checkpoint is not as it was written, and how; `None`: all are."""
    try:
        files = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
        for name, told in files.items():
            path = folder / name
            size = path.stat().st_size
            if size != told["bytes"]:
                return f"{path} has {size} bytes instead of {told['bytes']}"
            if crc32(path) != told["crc32"]:
                return f"the content of {path} has changed"
    except OSError as error:
        return f"{error.filename or folder}: {error.strerror}"
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{folder / MANIFEST} is no manifest ({error!r})"
    return None


def load_checkpoint(accelerator: Accelerator, folder: Path) -> None:
    """Bring all that `accelerator` has prepared, and what is registered with it, to the state of a
    checkpoint; and the random numbers of each process.

    Raises:
        ValueError: the checkpoint is of a run on another number of processes.
    """
    saved = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["num_processes"]
    if saved != accelerator.num_processes:
        raise ValueError(
            f"{folder} is of a run on {saved} processes and cannot go on with "
            f"{accelerator.num_processes}: start {saved}, or a new run from {folder / MODEL}"
        )
    accelerator.load_state(folder / STATE)
