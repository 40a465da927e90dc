# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""Moving shapes: referring videos made from a seed, as many and as large as wanted.

Objects with a shape, colour, size, texture and motion pass over textured backgrounds, hide one
another, enter and leave. Each video has one expression of each kind (`KINDS`), such as "the small
red circle", "the second star from the left", "the square behind the green star" and "the dotted
triangle that stops"; videos of fewer than `MIN_MOTION_FRAMES` frames have none about motion.
data/shape_expressions.py tells what makes them unambiguous. The largest or the most central object,
or the one in front, is no likelier to be meant than another.

The expressions of a video mean two objects or more, so that one can be put to another's object;
frames read in another order take away what tells most motions.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from . import shape_expressions, shape_scenes, shape_wordings
from .records import Row, RVOSBuilder, RVOSConfig
from .shape_expressions import Expression, Sight, describe
from .shape_scenes import Scene, draw_scene

SPLITS = ("train", "valid", "test")
MIN_SIZE = 64  # pixels: patterns and shapes do not show in less
MAX_ATTEMPTS = 1000


class VideoKey(NamedTuple):
    """All that a video is made from."""

    seed: int
    split: int  # its place in SPLITS
    index: int
    attempt: int
    height: int
    width: int
    num_frames: int
    only_shapes: int  # 0 or 1


@dataclass(frozen=True, eq=False)
class ShapesVideo:
    """A video and what is said of it.

    Attributes:
        frames: uint8 RGB `(num_frames, height, width, 3)`.
        object_map: uint8 `(num_frames, height, width)`, the id of the object seen at each pixel,
            counted from 1; 0 is the background.
        expressions: one of each kind.
        scene: the objects; the one with the id i is `scene.objects[i - 1]`.
    """

    frames: np.ndarray
    object_map: np.ndarray
    expressions: tuple[Expression, ...]
    scene: Scene


def generate_video(
    index: int,
    split: str = "train",
    height: int = 96,
    width: int = 160,
    num_frames: int = 8,
    seed: int = 0,
    only_shapes: bool = False,
) -> ShapesVideo:
    """Video number `index` of a split; the same arguments give the same video.

    Args:
        index: 0 or more; every index is another video.
        split: "train", "valid" or "test", which have no video in common.
        height, width: pixels, at least `MIN_SIZE`.
        num_frames: at least 1; motions take the whole video, whatever its length.
        seed: of the data set.
        only_shapes: the objects look alike but for their shapes, a video for training. The
            benchmark has none.
    """
    _check(split, height, width, num_frames)
    _, sight, expressions = _draw_video(index, split, height, width, num_frames, seed, only_shapes)
    frames = sight.scene.render(range(num_frames))
    return ShapesVideo(frames, sight.object_map, tuple(expressions), sight.scene)


def _check(split: str, height: int, width: int, num_frames: int) -> None:
    if split not in SPLITS:
        raise ValueError(f"moving-shapes has no split {split!r}: give one of {', '.join(SPLITS)}")
    if min(height, width) < MIN_SIZE or num_frames < 1:
        raise ValueError(
            f"height and width must be {MIN_SIZE} or more and num_frames 1 or more, got height="
            f"{height}, width={width}, num_frames={num_frames}"
        )


def _draw_video(
    index: int,
    split: str,
    height: int,
    width: int,
    num_frames: int,
    seed: int,
    only_shapes: bool = False,
) -> tuple[VideoKey, Sight, list[Expression]]:
    """The first scene of an index that shows its objects well and has something to say of them."""
    for attempt in range(MAX_ATTEMPTS):
        place = seed, SPLITS.index(split), index, attempt
        key = VideoKey(*place, height, width, num_frames, int(only_shapes))
        scene = scene_of(key)
        if scene is None:
            continue
        silhouettes = scene.silhouettes(range(num_frames))
        sight = Sight(scene, silhouettes, scene.object_map(silhouettes))
        rng = np.random.default_rng(key[:-1])  # as before `only_shapes` was there
        expressions = describe(sight, rng) if sight.is_clear() else None
        if expressions:
            return key, sight, expressions
    raise RuntimeError(f"no scene of {height}x{width} pixels holds its objects: take another size")


@lru_cache(maxsize=32)
def scene_of(key: VideoKey) -> Scene | None:
    return draw_scene(key[:4], key.height, key.width, key.num_frames, bool(key.only_shapes))


@dataclass
class MovingShapesConfig(RVOSConfig):
    """Arguments of [`generate_video`]; indices 0 to `num_videos` - 1."""

    num_videos: int = 1000
    height: int = 96
    width: int = 160
    num_frames: int = 8
    seed: int = 0


class MovingShapes(RVOSBuilder):
    """Index of moving-shapes: nothing lies on disk, the pixels are made when they are read.

    Options: those of [`MovingShapesConfig`]. The id of an expression is its kind.
    """

    BUILDER_CONFIG_CLASS = MovingShapesConfig
    benchmark = "moving-shapes"
    splits = SPLITS
    on_disk = False

    def digested_files(self) -> Iterable[Path]:
        """The code that makes the videos: rows of another version mean other pixels."""
        return [Path(m.__file__) for m in (shape_expressions, shape_scenes, shape_wordings)]

    def videos(self) -> list[tuple[str, int]]:
        _check(self.split, self.config.height, self.config.width, self.config.num_frames)
        return [(f"{self.split}-{index:06d}", index) for index in range(self.config.num_videos)]

    def rows(self, video_id: str, entry: int) -> Iterator[Row]:
        config = self.config
        key, sight, expressions = _draw_video(
            entry, self.split, config.height, config.width, config.num_frames, config.seed
        )
        for expression in expressions:
            i = expression.object_id
            yield self.row(
                video_id,
                expression.kind,
                expression.text,
                object_ids=[i],
                categories=[sight.scene.objects[i - 1].shape],
                media=video_id,
                frames=[f"{t:05d}.png" for t in range(config.num_frames)],
                num_frames=config.num_frames,
                annotated=range(config.num_frames),
                masks={"format": "moving-shapes", "keys": [str(part) for part in key]},
            )


def render_frames(row: Row, indices: Sequence[int]) -> torch.Tensor:
    """Frames of a row's video: uint8 RGB `(T, 3, height, width)`."""
    frames = torch.from_numpy(_scene_of_row(row).render(indices))
    return frames.permute(0, 3, 1, 2).contiguous()


def render_object_map(row: Row, indices: Sequence[int]) -> torch.Tensor:
    """Ids of the objects seen in a row's video: uint8 `(T, height, width)`, 0 the background."""
    scene = _scene_of_row(row)
    return torch.from_numpy(scene.object_map(scene.silhouettes(indices)))


def render_masks(row: Row, indices: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Masks of a row's objects, uint8 `(T, height, width)` of 0 and 1, and which of the frames are
    annotated, bool `(T,)`: all."""
    meant = torch.tensor(row["object_ids"], dtype=torch.uint8)
    masks = torch.isin(render_object_map(row, indices), meant)
    return masks.to(torch.uint8), torch.ones(len(indices), dtype=torch.bool)


def _scene_of_row(row: Row) -> Scene:
    return scene_of(VideoKey(*map(int, row["masks"]["keys"])))
