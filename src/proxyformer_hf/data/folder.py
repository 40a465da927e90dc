# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""A folder of one's own videos, masks and expressions."""

import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import datasets

from ..video_io import VIDEO_EXTENSIONS, frame_files, probe_video
from .records import DataError, Row, RVOSBuilder, reading

REQUIRED, SPLIT = ("video", "object_id", "expression"), "split"  # columns
FIRST_SPLIT = "train"  # of an expression that names none
MAX_PROBLEMS = 5  # in the message of an error


class Line(NamedTuple):
    """A line of the table: its number, from 1, its cells by column, what is wrong with it, and the
    split that it counts for."""

    number: int
    cells: dict[str, str]
    problem: str | None
    split: str


class Entry(NamedTuple):
    """What is said of a video."""

    expression_id: str
    expression: str
    object_ids: list[int]


class VideoFolder(RVOSBuilder):
    """Index of a folder of videos:

        expressions.csv                  video,object_id,expression or with a fourth column, split
        frames/<video>/<frame>.jpg       or png, bmp, webp; in natural order
        videos/<video>.mp4               instead of frames; or avi, mkv, webm, mov, gif
        masks/<video>/<frame>.png        as large as the frame

    A mask is a palette or grey image. object_id is the value of the object's pixels in it, or
    several with blanks between them; it is empty where the object is all that is not 0. Masks of a
    video file are called 00000.png, 00001.png, ... by the number of the frame. A frame without mask
    is not annotated: what it shows is not known.

    split is train, valid or test; an expression that names none belongs to train. The table is in
    UTF-8 with commas, as spreadsheets write it. The id of an expression is its number among those
    of its video, from 0.
    """

    benchmark = "folder"
    splits = ("train", "valid", "test")
    form = (
        "a table in UTF-8, with commas, whose first line is video,object_id,expression or "
        "video,object_id,expression,split"
    )

    @property
    def annotations(self) -> Path:
        return self.root / "expressions.csv"

    def digested_files(self) -> Iterable[Path]:
        yield self.annotations

    def dated_paths(self) -> Iterable[Path]:
        for kind in ("frames", "videos", "masks"):
            yield self.root / kind
            yield from sorted((self.root / kind).glob("*"))

    def videos(self) -> list[tuple[str, list[Entry]]]:
        videos: dict[str, list[Entry]] = {}
        counts: Counter[str] = Counter()
        for line in self._lines:
            if line.problem is None:
                number = counts[line.cells["video"]]
                counts[line.cells["video"]] += 1
                if line.split == self.split:
                    ids = [int(i) for i in line.cells["object_id"].split()]
                    entry = Entry(str(number), line.cells["expression"], ids)
                    videos.setdefault(line.cells["video"], []).append(entry)
        return list(videos.items())

    def contradictions(self) -> Iterable[str]:
        """The lines of the split that are left out."""
        for line in self._lines:
            if line.problem is not None and line.split == self.split:
                yield f"{self.annotations}, line {line.number}: {line.problem}"

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        wrong = [f"line {line.number}: {line.problem}" for line in self._lines if line.problem]
        if wrong:
            more = len(wrong) - MAX_PROBLEMS
            told = "; ".join(wrong[:MAX_PROBLEMS]) + (f"; and {more} more" if more > 0 else "")
            raise self.error(self.annotations, f"has wrong lines ({told})", self.form)
        return super()._split_generators(dl_manager)

    @cached_property
    def _lines(self) -> list[Line]:
        """The lines below the header, without blank ones."""
        # Spreadsheets put a byte order mark in front, which utf-8-sig takes away.
        reader = csv.reader(io.StringIO(self.read_text(self.annotations, self.form, "utf-8-sig")))
        with reading(self.benchmark, self.annotations, self.form):
            header = [name.strip().lower() for name in next(reader, [])]
            lines = [(reader.line_num, cells) for cells in reader if any(map(str.strip, cells))]
        if {*header} not in ({*REQUIRED}, {*REQUIRED, SPLIT}) or len({*header}) < len(header):
            problem = f"begins with the line {','.join(header)!r}"
            raise self.error(self.annotations, problem, self.form)
        found = []
        for number, row in lines:
            cells = {name: cell.strip() for name, cell in zip(header, row, strict=False)}
            split = cells.get(SPLIT, "").lower()
            if len(row) == len(header):
                problem = self._problem(cells, split)
            else:
                problem = (
                    f"it has {len(row)} cells and the header {len(header)} (an expression with a "
                    "comma stands in double quotes)"
                )
            found.append(
                Line(number, cells, problem, split if split in self.splits else FIRST_SPLIT)
            )
        return found

    def _problem(self, cells: dict[str, str], split: str) -> str | None:
        """What is wrong with a line."""
        video, media = cells["video"], self._media.get(cells["video"], [])
        if not media:
            known = ", ".join([*self._media][:3]) or "none"
            return f"frames/ and videos/ hold no video {video!r}, but {known}"
        if len(media) > 1:
            return f"there are several videos {video!r}: {', '.join(media)}"
        if not cells["expression"]:
            return "the expression is empty"
        ids = cells["object_id"].split()
        if not all(i.isascii() and i.isdigit() and 0 < int(i) < 256 for i in ids):
            return f"the object_id {cells['object_id']!r} is no number from 1 to 255, nor empty"
        if split not in ("", *self.splits):
            return f"the split {split!r} is none of {', '.join(self.splits)}"
        return None

    @cached_property
    def _media(self) -> dict[str, list[str]]:
        """Video -> its folder of frames or its file, relative to the folder; more than one where
        names are not unique."""
        found: dict[str, list[str]] = {}
        for path in sorted((self.root / "frames").glob("[!.]*")):
            if path.is_dir():
                found.setdefault(path.name, []).append(f"frames/{path.name}")
        for path in sorted((self.root / "videos").glob("[!.]*")):
            if path.suffix.lower() in VIDEO_EXTENSIONS:
                found.setdefault(path.stem, []).append(f"videos/{path.name}")
        return found

    def rows(self, video_id: str, entry: list[Entry]) -> Iterator[Row]:
        (media,) = self._media[video_id]
        path = self.root / media
        frames, stems = [], []
        if path.is_dir():
            try:
                frames = [file.name for file in frame_files(path)]
            except FileNotFoundError as error:
                raise DataError(str(error), path=path) from error
            stems = [Path(name).stem for name in frames]
            if len({*stems}) < len(stems):
                raise self.error(path, "holds two frames of one name", "a name for each frame")
        else:
            with reading(self.benchmark, path, "a video file"):
                stems = [f"{index:05d}" for index in range(probe_video(path).num_frames)]
        annotated = self._annotated(self.root / "masks" / video_id, stems)
        for told in entry:
            yield self.row(
                video_id,
                told.expression_id,
                told.expression,
                object_ids=told.object_ids,
                media=media,
                frames=frames,
                num_frames=len(stems),
                annotated=annotated,
                masks={"format": "palette", "path": f"masks/{video_id}"},
            )

    def _annotated(self, masks: Path, stems: list[str]) -> list[int]:
        """Indices of the frames that have a mask."""
        expected = f"a PNG file for each annotated frame, named as the frame: {stems[0]}.png ..."
        found = {path.stem for path in masks.glob("[!.]*.png")}
        if not found:
            problem = "holds no PNG files" if masks.is_dir() else "is missing"
            raise self.error(masks, problem, expected)
        frameless = sorted(found - {*stems})
        if frameless:
            raise self.error(
                masks / f"{frameless[0]}.png",
                f"belongs to no frame (as {len(frameless)} of {len(found)} masks)",
                expected,
            )
        return [index for index, stem in enumerate(stems) if stem in found]
