# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""Predictions on disk, the hinge between a model and its score. Any system's can be scored.

    Annotations/<video>/<expression>/<frame>.png    a mask: the object is where it is not black;
                                                    without Annotations/ is read as well
    anno_<a>/<video>/<frame>.png                    Ref-DAVIS17 merged: object ids of annotator a
    predictions.jsonl                               a line per expression, see `read_index`
    settings.json                                   what made them; a resumed run must agree with it

Frames are named as in the data set; a video without frame files counts 00000, 00001, ...
"""

import json
import os
import zipfile
from collections.abc import Iterable
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as rle

from ..data.load import load_rvos_dataset
from ..data.records import Row, frame_stems
from ..video_io import atomic_path
from .protocols import Protocol

ANNOTATIONS = "Annotations"
INDEX = "predictions.jsonl"
SETTINGS = "settings.json"
SUBMISSION = "submission.zip"

Key = tuple[str, str]  # video id and expression id


def load_rows(protocol: Protocol, data_dir: str | Path | None, split: str) -> list[Row]:
    """The expressions that predictions are to answer: of the first `protocol.num_videos` videos."""
    rows = load_rvos_dataset(protocol.benchmark, data_dir, split, **protocol.options).to_list()
    videos = list(dict.fromkeys(row["video_id"] for row in rows))
    chosen = {*videos[: protocol.num_videos]}
    return [row for row in rows if row["video_id"] in chosen]


def key_of(row: Row) -> Key:
    return row["video_id"], row["expression_id"]


def masks_folder(root: Path) -> Path:
    """The folder of the videos' masks, which lie in `root` itself where MeViS' server wants them
    so."""
    return root / ANNOTATIONS if (root / ANNOTATIONS).is_dir() else root


def expression_folder(masks: Path, row: Row) -> Path:
    return masks / row["video_id"] / row["expression_id"]


def annotator_folder(root: Path, annotator: int, row: Row) -> Path:
    return root / f"anno_{annotator}" / row["video_id"]


def read_ids(path: Path) -> np.ndarray:
    """The pixel values, uint8 `(height, width)`, of a predicted mask or map of objects.

    Raises:
        ValueError: the file is no PNG of one channel and 8 bits.
    """
    try:
        with Image.open(path) as image:
            if image.mode not in ("1", "L", "P"):
                raise ValueError(
                    f"{path} has the mode {image.mode}: a prediction is a grey or a palette image"
                )
            return np.asarray(image, dtype=np.uint8)
    except OSError as error:
        raise ValueError(f"{path} cannot be read as an image: {error}") from error


def encode_mask(mask: np.ndarray) -> dict[str, Any]:
    """COCO run-length code, as JSON holds it, of a mask of 0 and 1 `(height, width)`."""
    code = rle.encode(np.asfortranarray(mask, np.uint8))
    return {"size": code["size"], "counts": code["counts"].decode("ascii")}


def decode_mask(code: dict[str, Any]) -> np.ndarray:
    """The mask, uint8 `(height, width)` of 0 and 1, of a COCO run-length code."""
    return rle.decode(code)


def read_index(root: Path) -> dict[Key, dict[str, Any]]:
    """What is predicted already, by video and expression.

    Each line of the index is JSON: `video_id`, `expression_id` and `score`, the probability that
    the video shows the object; on A2D- and JHMDB-Sentences also `scores` and `masks`, a probability
    and a COCO run-length code per query, and `answer`, one more code, where the model's answer is
    no query's mask. The scores of masks in PNG files are not needed to score them.

    Raises:
        ValueError: a line is no such JSON.
    """
    entries = {}
    for path in sorted(root.glob("predictions*.jsonl")):
        lines = path.read_text(encoding="utf-8").split("\n")
        if path.name != INDEX:
            lines.pop()  # of a part: empty, or what a killed process left unfinished
        for number, line in enumerate(lines, 1):
            if line:
                try:
                    entry = json.loads(line)
                    entries[entry["video_id"], entry["expression_id"]] = entry
                except (json.JSONDecodeError, KeyError, TypeError) as error:
                    raise ValueError(
                        f"line {number} of {path} is no prediction: expected JSON with video_id "
                        f"and expression_id ({error!r})"
                    ) from error
    return entries


class IndexPart:
    """The lines that one process adds to the index; `merge_index` makes one file of all parts."""

    def __init__(self, root: Path, rank: int):
        self.path = root / f"predictions-{rank}.jsonl"
        if self.path.exists():
            whole, _, _ = self.path.read_bytes().rpartition(b"\n")
            os.truncate(self.path, len(whole) + bool(whole))

    def append(self, entries: Iterable[dict[str, Any]]) -> None:
        with open(self.path, "a", encoding="utf-8") as file:
            file.write("".join(f"{json.dumps(entry)}\n" for entry in entries))


def merge_index(root: Path, keys: Iterable[Key]) -> None:
    """One file of the lines of all processes, in the order of `keys`."""
    entries = read_index(root)
    with atomic_path(root / INDEX) as partial:
        partial.write_text("".join(f"{json.dumps(entries[key])}\n" for key in keys), "utf-8")
    for part in root.glob("predictions-*.jsonl"):
        part.unlink()


def claim_folder(root: Path, settings: dict[str, Any]) -> None:
    """Make `root` the folder of a run with these settings, or check that it is.

    Raises:
        ValueError: it holds predictions of other settings, or other things.
    """
    if (root / SETTINGS).exists():
        stored = read_settings(root)
        names = sorted(stored.keys() | settings.keys())
        changed = [name for name in names if stored.get(name) != settings.get(name)]
        if changed:
            raise ValueError(
                f"{root} holds predictions of another run: choose another folder. Changed: "
                + ", ".join(f"{k} from {stored.get(k)} to {settings.get(k)}" for k in changed)
            )
        return
    if root.exists() and any(root.iterdir()):
        raise ValueError(f"{root} is not empty and holds no {SETTINGS}: choose another folder")
    root.mkdir(parents=True, exist_ok=True)
    with atomic_path(root / SETTINGS) as partial:
        partial.write_text(json.dumps(settings, indent=2), encoding="utf-8")


def read_settings(root: Path) -> dict[str, Any]:
    """What `claim_folder` stored; {} for predictions that were made otherwise."""
    path = root / SETTINGS
    return json.loads(path.read_text()) if path.exists() else {}


def write_submission(root: Path, rows: Iterable[Row], top: str) -> Path:
    """A zip of the masks for a benchmark's server, the same bytes for the same masks.

    Args:
        top: folder within the zip that holds those of the videos; "": they lie at its top.
    """
    with atomic_path(root / SUBMISSION) as partial, zipfile.ZipFile(partial, "w") as archive:
        for row in rows:
            folder = expression_folder(root / ANNOTATIONS, row)
            for stem in frame_stems(row):
                name = PurePath(top, row["video_id"], row["expression_id"], f"{stem}.png")
                info = zipfile.ZipInfo(name.as_posix())  # dated 1980
                archive.writestr(info, (folder / f"{stem}.png").read_bytes())
    return root / SUBMISSION
