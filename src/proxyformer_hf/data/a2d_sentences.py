# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""A2D-Sentences (Gavrilyuk et al., CVPR 2018): actors and actions, a few annotated frames each."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import h5py

from .records import Row, RVOSBuilder, reading

IMAGE_ID = re.compile(r"v_(.+)_f_(\d+)_i_(\d+)")
COPIED_INSTANCE = "1 (copy)"  # of T6bNPuKV-wY: a slip of the annotators
UNANNOTATED = "e7Kjy13woXg"  # has queries but no instances; public code leaves it out by name
SUBSETS = {"train": "0", "test": "1"}


class Video(NamedTuple):
    num_frames: int
    queries: dict[int, str]  # by instance
    pairs: list[tuple[int, int]] | None  # published (frame, instance) pairs, frames from 1


class A2DSentences(RVOSBuilder):
    """Index of A2D-Sentences: a row for each annotated frame that shows the instance of a query.

        Release/videoset.csv, Release/clips320H/<video>.mp4
        text_annotations/{a2d_annotation.txt,a2d_missed_videos.txt}
        text_annotations/a2d_annotation_with_instances/<video>/<frame>.h5
        a2d_sentences_single_frame_{train,test}_annotations.json (MTTR's, optional)
        a2d_sentences_test_annotations_in_coco_format.json (MTTR's, optional)

    The pairs of frame and instance are those of the published ground truth of the test set, else
    of the published list of the split, else those found in the h5 files, by the same rule. Frames
    are counted from 1 in the files. Videos listed as missed are left out, and so is the one
    instance called "1 (copy)".
    """

    benchmark = "a2d-sentences"
    splits = ("train", "test")
    form = "video_id,instance_id,query and a row for each query"

    @property
    def annotations(self) -> Path:
        return self.root / "text_annotations/a2d_annotation.txt"

    @property
    def _missed(self) -> Path:
        return self.root / "text_annotations/a2d_missed_videos.txt"

    @property
    def _videoset(self) -> Path:
        return self.root / "Release/videoset.csv"

    @property
    def _instances(self) -> Path:
        return self.root / "text_annotations/a2d_annotation_with_instances"

    @property
    def _sample_list(self) -> Path:
        return self.root / f"a2d_sentences_single_frame_{self.split}_annotations.json"

    @property
    def _ground_truth(self) -> Path:
        return self.root / f"a2d_sentences_{self.split}_annotations_in_coco_format.json"

    def digested_files(self) -> Iterable[Path]:
        yield from (self.annotations, self._missed, self._videoset)
        yield from (self._sample_list, self._ground_truth)

    def dated_paths(self) -> Iterable[Path]:
        if not self._sample_list.is_file() and not self._ground_truth.is_file():
            yield from sorted(self._instances.glob("*/*.h5"))

    def videos(self) -> list[tuple[str, Video]]:
        num_frames = self._read_videoset()
        queries = self._read_queries()
        pairs = self._read_pairs()
        return [
            (name, Video(num_frames[name], told, None if pairs is None else pairs[name]))
            for name, told in queries.items()
            if name in num_frames
        ]

    def _read_videoset(self) -> dict[str, int]:
        """Number of frames of each video of the split, without the missed ones."""
        missed = set(self.read_text(self._missed, "a video a line").split())
        return {
            row[0]: int(row[6])
            for row in self._videoset_rows()
            if row[8] == SUBSETS[self.split] and row[0] not in missed
        }

    def _videoset_rows(self) -> list[list[str]]:
        form = "9 columns without a header: video, ..., number of frames (7th), ..., subset 0 or 1"
        rows = self.read_csv(self._videoset, form, widths=(9,), header=False)
        for row in rows:
            if not row[6].isdigit() or row[8] not in SUBSETS.values():
                raise self.error(self._videoset, f"has the row {row}", form)
        return rows

    def _read_queries(self) -> dict[str, dict[int, str]]:
        queries = defaultdict(dict)
        # One of the copies in use has a shortened query in a fourth column.
        for video_id, instance, query, *_ in self.read_csv(self.annotations, self.form, (3, 4)):
            if instance == COPIED_INSTANCE:
                continue
            if not instance.isdigit():
                raise self.error(
                    self.annotations, f"has instance {instance!r} of {video_id}", self.form
                )
            queries[video_id][int(instance)] = query
        return queries

    def _read_pairs(self) -> dict[str, list[tuple[int, int]]] | None:
        """Video -> published pairs of frame and instance; None where nothing is published."""
        if self._ground_truth.is_file():
            source = self._ground_truth
            form = '{"images": [{"id": "v_<video>_f_<frame>_i_<instance>"}]}'
        elif self._sample_list.is_file():
            source, form = self._sample_list, "[[query, video, frame, instance]]"
        else:
            return None
        content = self.read_json(source, form)
        with reading(self.benchmark, source, form):
            if source == self._ground_truth:
                found = [IMAGE_ID.fullmatch(image["id"]).groups() for image in content["images"]]
            else:
                found = [(video_id, frame, i) for _, video_id, frame, i in content]
        pairs = defaultdict(list)
        for video_id, frame, instance in found:
            pairs[video_id].append((int(frame), int(instance)))
        return pairs

    def rows(self, video_id: str, entry: Video) -> Iterator[Row]:
        folder = self._instances / video_id
        pairs = self._find_pairs(folder, entry.queries) if entry.pairs is None else entry.pairs
        for frame, instance in sorted(pairs):
            yield self.row(
                video_id,
                f"{instance}@{frame}",
                entry.queries[instance],
                object_ids=[instance],
                media=f"Release/clips320H/{video_id}.mp4",
                num_frames=entry.num_frames,
                annotated=[frame - 1],
                masks={"format": "h5", "path": folder.relative_to(self.root).as_posix()},
            )

    def _find_pairs(self, folder: Path, queries: dict[int, str]) -> Iterator[tuple[int, int]]:
        """A pair whose instance the frame does not show has no ground truth: it is left out."""
        expected = "an h5 file for each annotated frame, with the ids of its instances"
        files = list(folder.glob("*.h5"))
        if not files and folder.name != UNANNOTATED:
            raise self.error(folder, "holds no h5 files", expected)
        for path in files:
            with reading(self.benchmark, path, expected), h5py.File(path) as file:
                shown = {int(i) for i in file["instance"][()].reshape(-1)}
            yield from ((int(path.stem), instance) for instance in shown & queries.keys())

    def contradictions(self) -> Iterable[str]:
        listed = {row[0] for row in self._videoset_rows()}
        for video_id in self._read_queries():
            if video_id not in listed:
                yield f"{self.annotations} has queries of {video_id}, which {self._videoset} lacks"
        known = dict(self.videos())
        for video_id in self._read_pairs() or ():
            if video_id not in known:
                yield f"the published list of {self.split} has {video_id}, which has no query there"
