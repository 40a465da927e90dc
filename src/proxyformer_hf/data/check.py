# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""Finds what is wrong with a data set on disk before hours of training do."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from ..video_io import probe_video
from .decoding import read_masks, read_object_map
from .load import BUILDERS, builder_class
from .records import DOWNLOADS, DataError, Row, RVOSBuilder, frame_stems

MAX_VALUES = 5  # in a message
MAX_THREADS = 8  # decoding images releases the interpreter's lock


@dataclass
class SplitCounts:
    """What a split holds. Objects and frames are counted once a video."""

    split: str
    videos: int = 0
    expressions: int = 0
    objects: int = 0
    frames: int = 0


@dataclass
class DataReport:
    """What `check_data` found.

    Attributes:
        download: the official download, which holds what is missing; none for one's own videos.
        counts: of each split whose annotation files could be read.
        problems: sentences, each with the path or video that it concerns.
    """

    download: str | None
    counts: list[SplitCounts] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def check_data(name: str, data_dir: str | Path, splits: Sequence[str] | None = None) -> DataReport:
    """Read every annotation, frame and mask of a benchmark.

    Found are annotation files that are missing, malformed or at odds with each other; frames and
    masks that are missing or unreadable; frames of one video or masks and frames that differ in
    size; clips whose length is not the listed one; annotation ids without annotation, and objects
    that never appear.

    Args:
        name: of the benchmark, as in `load_rvos_dataset`.
        data_dir: its folder.
        splits: those to check. Default: all.

    Raises:
        DataError: `data_dir` is no folder.
        ValueError: there is no such benchmark or split.
    """
    names = [known for known in BUILDERS if builder_class(known).on_disk]
    if name not in names:
        raise ValueError(f"there is no benchmark {name!r}: give one of {', '.join(names)}")
    report = DataReport(DOWNLOADS.get(name))
    for split in splits or builder_class(name).splits:
        builder = builder_class(name)(data_dir, split, streaming=True)
        try:
            videos = builder.videos()
            found = Counter(builder.contradictions())
        except DataError as error:
            report.problems.append(f"{split}: {error.finding}")
            continue
        counts = SplitCounts(split, videos=len(videos))
        with ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1)) as pool:
            checks = pool.map(partial(_check_video, builder), videos)
            for check in tqdm(checks, split, len(videos), unit="video", disable=None):
                counts.expressions += check.num_expressions
                counts.objects += check.num_objects
                counts.frames += check.num_frames
                found.update(check.problems)
        report.counts.append(counts)
        report.problems += [
            f"{split}: {problem}" + (f" ({times} times)" if times > 1 else "")
            for problem, times in found.items()
        ]
    return report


def _check_video(builder: RVOSBuilder, video: tuple[str, Any]) -> "_VideoCheck":
    check = _VideoCheck(builder.root)
    try:
        rows = list(builder.checked_rows(*video))
    except DataError as error:
        check.note(error)
        return check
    if rows:
        check.count(rows)
        check.check_frames(rows[0])
    rows = check.check_indices(rows)
    mapped = [row for row in rows if row["masks"]["format"] == "palette"]
    if mapped:
        check.check_object_maps(mapped)
    else:
        check.check_masks(rows)
    return check


class _VideoCheck:
    """Counts, sizes (height, width) of the frames and problems of one video."""

    def __init__(self, root: Path):
        self.root = root
        self.num_expressions = self.num_objects = self.num_frames = 0
        self.sizes: set[tuple[int, int]] = set()
        self.problems: list[str] = []

    def note(self, error: DataError) -> None:
        missing = error.path is not None and not error.path.exists()
        self.problems.append(_missing(error.path) if missing else error.finding)

    def count(self, rows: list[Row]) -> None:
        self.num_expressions = len(rows)
        self.num_objects = len({i for row in rows for i in row["object_ids"]})
        self.num_frames = rows[0]["num_frames"]

    def check_indices(self, rows: list[Row]) -> list[Row]:
        """Those rows whose annotated frames are frames of the video."""
        good = []
        for row in rows:
            last = max(row["annotated"], default=-1)
            if last < row["num_frames"]:
                good.append(row)
            else:
                self.problems.append(
                    f"expression {row['expression_id']} of video {row['video_id']} is annotated in "
                    f"frame {last + 1} of {row['num_frames']}"
                )
        return good

    def check_frames(self, row: Row) -> None:
        media = self.root / row["media"]
        for path in [media / name for name in row["frames"]] or [media]:
            try:
                self.sizes.add(_image_size(path) if row["frames"] else self._clip_size(path, row))
            except FileNotFoundError:
                self.problems.append(_missing(path))
            except (OSError, ValueError) as error:
                self.problems.append(f"{path} cannot be read: {error}")
        if len(self.sizes) > 1:
            sizes = sorted(self.sizes)
            self.problems.append(f"{media} holds frames of several sizes (height, width): {sizes}")

    def _clip_size(self, path: Path, row: Row) -> tuple[int, int]:
        info, listed = probe_video(path), row["num_frames"]
        if info.num_frames != listed:
            self.problems.append(f"{path} holds {info.num_frames} frames, not {listed} as listed")
        return info.height, info.width

    def check_object_maps(self, rows: list[Row]) -> None:
        folder = self.root / rows[0]["masks"]["path"]
        stems, shown, complete = frame_stems(rows[0]), set(), True
        for index in rows[0]["annotated"]:
            try:
                ids = read_object_map(self.root, rows[0], [index])[0].numpy()
            except DataError as error:
                self.note(error)
                complete = False
                continue
            self._check_size(f"{folder}, frame {stems[index]},", ids.shape)
            shown.update(np.flatnonzero(np.bincount(ids.reshape(-1))).tolist())
        for row in rows if complete else ():  # what is missing may be in a map that was not read
            self._check_objects(str(folder), row, shown)

    def _check_objects(self, folder: str, row: Row, shown: set[int]) -> None:
        """Whether maps with the values `shown` show what an expression means."""
        expression, values = f"expression {row['expression_id']}", sorted(shown - {0})
        self.problems += [
            f"{folder} never shows object {object_id} of {expression}"
            for object_id in row["object_ids"]
            if object_id not in shown
        ]
        if not row["object_ids"] and not values:
            self.problems.append(f"{folder} never shows the object of {expression}")
        if not row["object_ids"] and len(values) > 1:
            told = ", ".join(map(str, values[:MAX_VALUES])) + " ..." * (len(values) > MAX_VALUES)
            self.problems.append(
                f"{folder} shows several objects ({told}), and {expression} does not say which it "
                "means"
            )

    def check_masks(self, rows: list[Row]) -> None:
        for what, row in _annotations(rows):
            try:
                masks, _ = read_masks(self.root, row, list(row["annotated"]))
            except DataError as error:
                self.note(error)
                continue
            what = f"{self.root / row['masks']['path']}, {what} of video {row['video_id']},"
            self._check_size(what, tuple(masks.shape[1:]))
            if not masks.any():
                self.problems.append(f"{what} is empty: the object never appears")

    def _check_size(self, what: str, size: tuple[int, int]) -> None:
        if self.sizes and size not in self.sizes:
            sizes = sorted(self.sizes)
            self.problems.append(f"{what} is {size} (height, width), the frames {sizes}")


def _annotations(rows: list[Row]) -> Iterator[tuple[str, Row]]:
    """Each annotation of a video once, as a row that means it alone."""
    seen = set()
    for row in rows:
        masks = row["masks"]
        for key, span in zip(masks["keys"], masks["spans"], strict=False):
            if key not in seen:
                seen.add(key)
                yield f"annotation {key}", row | {"masks": masks | {"keys": [key], "spans": [span]}}
        if row["annotated"] and not masks["spans"]:
            yield f"expression {row['expression_id']}", row


def _image_size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        size = image.height, image.width
        image.draft("L", (1, 1))  # the quickest way through all of a JPEG file
        image.load()
    return size


def _missing(path: Path) -> str:
    """The topmost path that is missing, so that a folder counts once and not file by file."""
    while not path.parent.exists():
        path = path.parent
    return f"{path} is missing"
