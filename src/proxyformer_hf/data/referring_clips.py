# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""Clips of a benchmark's videos with one expression or several, for training and for validation.

A sample is one of data/clips.py, with
    frames: uint8 (T, 3, height, width)
    masks: uint8 (E, T, height, width), 0 where a frame is not annotated
    annotated: bool (T,)
    expressions: E strings
    id: "<benchmark>/<video>/<expression>+<expression>@<frame>,<frame>", what the clip shows
`data.clips.ClipCollator` makes batches of them.
"""

from pathlib import Path
from typing import Literal

import datasets
import numpy as np
import torch
from torchvision import tv_tensors

from .decoding import read_frames, read_masks
from .moving_shapes import generate_video
from .records import DataError, Row, data_error
from .sampling import consecutive_around, sample_around, window_around
from .seeded import Sample, SeededDataset, Transform

MAX_DRAWS = 100  # of a sample that shows its object


class ReferringClips(SeededDataset):
    """Samples (see the module) of the rows that have masks.

    A row gives one sample for every `num_frames` annotated frames: for the frames 0, num_frames,
    2 * num_frames, ... of a video annotated throughout, for the annotated frame in A2D- and
    JHMDB-Sentences. With several expressions a sample has those of as many rows that share video
    and annotated frames (fewer where there are fewer); in each epoch they are grouped anew, so that
    all come in turn.

    In training the clip is drawn around that frame, an expression whose object it does not show
    once transformed is left out, and if none is left, another sample is drawn in its place. Without
    training the clip is the window around the frame (`window_around`).

    Sample `index` depends on `(seed, epoch, index)` alone; see [`SeededDataset`], also for `seed`
    and `transform`.

    Args:
        rows: of data/records.py, as `load_rvos_dataset` gives them.
        data_dir: the folder that the rows' paths are relative to.
        num_frames: T.
        training: whether clips are drawn, and drawn again.
        expressions: E, the most expressions of a sample.
        sampling: of training clips: "random", ReferFormer's, or "consecutive" frames.

    Raises:
        DataError: no row has masks; in training also, from `[index]`, if none of many samples shows
            its object.
    """

    def __init__(
        self,
        rows: datasets.Dataset,
        data_dir: str | Path | None,
        num_frames: int,
        transform: Transform | None = None,
        seed: int = 0,
        training: bool = True,
        expressions: int = 1,
        sampling: Literal["random", "consecutive"] = "random",
    ):
        super().__init__(seed, transform)
        self.rows, self.data_dir, self.num_frames = rows, data_dir, num_frames
        self.training, self.expressions, self.sampling = training, expressions, sampling
        groups: dict[tuple, list[int]] = {}
        for row, key in enumerate(
            zip(rows["video_id"], map(tuple, rows["annotated"]), strict=True)
        ):
            groups.setdefault(key, []).append(row)
        # Arrays: workers must not copy the index. A group is a slice of `members`.
        self.members = np.array([row for group in groups.values() for row in group], dtype=np.int32)
        stops = np.cumsum([len(group) for group in groups.values()], dtype=np.int32)
        self.samples = np.array(
            [
                (stop - len(group), stop, first, centre)
                for ((_, annotated), group), stop in zip(groups.items(), stops, strict=True)
                for first in range(0, len(group), expressions)
                for centre in annotated[::num_frames]
            ],
            dtype=np.int32,
        )
        if len(self.samples) == 0:
            raise DataError(
                f"none of the {len(rows)} rows has masks, which clips are made of: the masks of "
                "this split are not public; take another, such as 'train'"
            )

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        rng = self.generator(index)
        for _ in range(MAX_DRAWS):
            sample = self._sample(index, rng)
            shown = sample["masks"].flatten(1).amax(1) > 0
            if not self.training or shown.all():
                return sample
            if shown.any():
                texts = [t for t, kept in zip(sample["expressions"], shown, strict=True) if kept]
                return sample | {"masks": sample["masks"][shown], "expressions": texts}
            index = int(rng.integers(len(self)))
        raise DataError(
            f"none of {MAX_DRAWS} random samples of {self.data_dir} shows its object: expected "
            "masks as in the official download, and a transform that keeps them"
        )

    def _sample(self, index: int, rng: np.random.Generator) -> Sample:
        rows, centre = self._rows(index)
        indices = self._frame_indices(centre, rows[0]["num_frames"], rng)
        frames = read_frames(self.data_dir, rows[0], indices)
        masks = []
        for row in rows:
            mask, annotated = read_masks(self.data_dir, row, indices)  # rows of a group agree
            self._check_size(row, mask.shape[1:], frames.shape[2:])
            masks.append(mask)
        sample = {
            "frames": tv_tensors.Video(frames),
            "masks": tv_tensors.Mask(torch.stack(masks)),
            "annotated": annotated,
            "expressions": [row["expression"] for row in rows],
            "id": f"{rows[0]['benchmark']}/{rows[0]['video_id']}/"
            f"{'+'.join(row['expression_id'] for row in rows)}@{','.join(map(str, indices))}",
        }
        return self.transformed(sample, rng)

    def _check_size(self, row: Row, mask: torch.Size, frame: torch.Size) -> None:
        # A pixel is tolerated: masks that were made for resized frames may be rounded otherwise.
        if any(abs(side - other) > 1 for side, other in zip(mask, frame, strict=True)):
            path = Path(self.data_dir, row["masks"]["path"])
            problem = (
                f"holds masks of {tuple(mask)} (height, width), and not of {row['media']}'s "
                f"{tuple(frame)}"
            )
            raise data_error(row["benchmark"], path, problem, "masks as large as the frames")

    def _rows(self, index: int) -> tuple[list[Row], int]:
        """The rows of a sample, and the frame that its clip is made around."""
        start, stop, first, centre = self.samples[index].tolist()
        members = self.members[start:stop]
        if self.training and self.expressions > 1:
            members = self.generator(start, 1).permutation(members)
        # Those of a group's last sample start again from the group's first one.
        chosen = np.roll(members, -first)[: self.expressions]
        return [self.rows[int(row)] for row in chosen], centre

    def _frame_indices(self, centre: int, length: int, rng: np.random.Generator) -> list[int]:
        if not self.training:
            return window_around(centre, length, self.num_frames)
        if self.sampling == "consecutive":
            return consecutive_around(centre, length, self.num_frames)
        return sample_around(centre, length, self.num_frames, rng)


class MovingShapesClips(SeededDataset):
    """Samples (see the module) of moving-shapes' training videos, new ones in every epoch: sample i
    of epoch e is `generate_video(e * num_videos + i)`, shown from its first frame to its last.

    Args:
        num_frames: T.
        transform: see [`SeededDataset`].
        seed: of the videos, and of what is drawn.
        expressions: E, the most expressions of a sample; a video has four, one of each kind. With
            fewer, that of motion is always said, which only clips can teach, and others are drawn.
        num_videos: samples of an epoch.
        only_shapes: share of the videos whose objects look alike but for their shapes, which are
            learned long after colours, textures and sizes.
        height, width: of the videos, in pixels.

    Raises:
        ValueError: `only_shapes` is no share; from `[index]`, the videos cannot have this size or
            length.
    """

    def __init__(
        self,
        num_frames: int,
        transform: Transform | None = None,
        seed: int = 0,
        expressions: int = 4,
        num_videos: int = 1000,
        only_shapes: float = 0.0,
        height: int = 96,
        width: int = 160,
    ):
        super().__init__(seed, transform)
        self.num_frames, self.num_videos, self.expressions = num_frames, num_videos, expressions
        if not 0 <= only_shapes <= 1:
            raise ValueError(f"only_shapes must be a share in [0, 1], got {only_shapes}")
        self.only_shapes = only_shapes
        self.height, self.width = height, width

    def __len__(self) -> int:
        return self.num_videos

    def __getitem__(self, index: int) -> Sample:
        rng, number = self.generator(index), self.epoch * self.num_videos + index
        size = self.height, self.width, self.num_frames
        only_shapes = bool(rng.random() < self.only_shapes)
        video = generate_video(number, "train", *size, self.seed, only_shapes)
        said = video.expressions
        motion = np.array([expression.kind == "motion" for expression in said])
        order = rng.permutation(len(said))
        order = order[np.argsort(~motion[order], kind="stable")]
        said = [said[i] for i in sorted(order[: self.expressions])]
        meant = torch.tensor([expression.object_id for expression in said])
        object_map = torch.from_numpy(video.object_map)
        sample = {
            "frames": tv_tensors.Video(torch.from_numpy(video.frames).permute(0, 3, 1, 2)),
            "masks": tv_tensors.Mask((object_map == meant[:, None, None, None]).to(torch.uint8)),
            "annotated": torch.ones(self.num_frames, dtype=torch.bool),
            "expressions": [expression.text for expression in said],
            "id": f"moving-shapes/train-{number:06d}/"
            f"{'+'.join(expression.kind for expression in said)}",
        }
        return self.transformed(sample, rng)
