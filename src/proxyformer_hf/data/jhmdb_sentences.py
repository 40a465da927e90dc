# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""JHMDB-Sentences (Gavrilyuk et al., CVPR 2018): one person a video; for evaluation only."""

import glob
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import scipy.io

from .records import Row, RVOSBuilder, RVOSConfig, reading

FRAMES_PER_VIDEO = 3
OBJECT = 1  # the value of the person's pixels


@dataclass
class JHMDBConfig(RVOSConfig):
    """seed of the frames drawn where there is no published list."""

    seed: int = 0


class Video(NamedTuple):
    query: str
    media: str
    masks: str
    num_frames: int
    frames: list[int]  # those to evaluate, from 1


class JHMDBSentences(RVOSBuilder):
    """Index of JHMDB-Sentences: a row for each frame that is evaluated, three a video.

        jhmdb_annotation.txt
        Rename_Images/<action>/<video>/<frame>.png, frames counted from 1
        puppet_mask/<action>/<video>/puppet_mask.mat
        jhmdb_sentences_samples_metadata.json (MTTR's, optional)

    The frames are those of the published list, which MTTR drew. (Other systems drew others: their
    numbers are not comparable.) Where the list is absent, three are drawn of each video, uniformly
    without replacement, from `seed` and the video's name. Frames at the end of a video that have no
    mask do not count.
    """

    BUILDER_CONFIG_CLASS = JHMDBConfig
    benchmark = "jhmdb-sentences"
    splits = ("test",)
    form = "video_id,query and a row for each video"

    @property
    def annotations(self) -> Path:
        return self.root / "jhmdb_annotation.txt"

    @property
    def _sample_list(self) -> Path:
        return self.root / "jhmdb_sentences_samples_metadata.json"

    def digested_files(self) -> Iterable[Path]:
        yield from (self.annotations, self._sample_list)

    def dated_paths(self) -> Iterable[Path]:
        if not self._sample_list.is_file():
            yield from sorted(self.root.glob("Rename_Images/*/*"))
            yield from sorted(self.root.glob("puppet_mask/*/*/puppet_mask.mat"))

    def videos(self) -> list[tuple[str, Video | str]]:
        queries = dict(self.read_csv(self.annotations, self.form, widths=(2,)))
        if not self._sample_list.is_file():
            return list(queries.items())
        return [(name, video) for name, video in self._read_sample_list(queries).items()]

    def _read_sample_list(self, queries: dict[str, str]) -> dict[str, Video]:
        form = "[[video, path of the frame, path of the masks, number of frames, query]]"
        videos = {}
        content = self.read_json(self._sample_list, form)
        with reading(self.benchmark, self._sample_list, form):
            for video_id, frame, masks, num_frames, _ in content:
                # Their paths start at the folder above ours, under the name that MTTR gave it.
                *_, images, action, _, name = PurePosixPath(frame).parts
                media = f"{images}/{action}/{video_id}"
                masks = "/".join(PurePosixPath(masks).parts[-4:])
                video = Video(queries[video_id], media, masks, num_frames, [])
                videos.setdefault(video_id, video).frames.append(int(PurePosixPath(name).stem))
        return videos

    def rows(self, video_id: str, entry: Video | str) -> Iterator[Row]:
        video = self._draw(video_id, entry) if isinstance(entry, str) else entry
        for frame in sorted(video.frames):
            yield self.row(
                video_id,
                str(frame),
                video.query,
                object_ids=[OBJECT],
                media=video.media,
                frames=[f"{number:05d}.png" for number in range(1, video.num_frames + 1)],
                num_frames=video.num_frames,
                annotated=[frame - 1],
                masks={"format": "mat", "path": video.masks},
            )

    def _draw(self, video_id: str, query: str) -> Video:
        """What the published list would tell, from the video's folders."""
        expected = f"Rename_Images/<action>/{video_id} and puppet_mask/<action>/{video_id}"
        folder = next((self.root / "Rename_Images").glob(f"*/{glob.escape(video_id)}"), None)
        if folder is None:
            raise self.error(self.root / "Rename_Images", f"has no video {video_id}", expected)
        masks = self.root / "puppet_mask" / folder.parent.name / video_id / "puppet_mask.mat"
        form = "a MATLAB file with part_mask (height, width, frames)"
        with reading(self.benchmark, masks, form), masks.open("rb") as file:
            shapes = {name: shape for name, shape, _ in scipy.io.whosmat(file)}
            _, _, num_masks = shapes["part_mask"]
        num_frames = min(len(list(folder.glob("*.png"))), num_masks)
        generator = random.Random(f"{self.config.seed}/{video_id}")
        drawn = generator.sample(range(1, num_frames + 1), min(FRAMES_PER_VIDEO, num_frames))
        media, masks = (path.relative_to(self.root).as_posix() for path in (folder, masks))
        return Video(query, media, masks, num_frames, drawn)
