# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""Clips of a benchmark's videos, one expression each, for training and for a validation loss.

A sample is one of data/clips.py with one expression, and with `annotated`:
    frames: uint8 (T, 3, height, width)
    masks: uint8 (1, T, height, width), 0 where a frame is not annotated
    annotated: bool (T,)
    expressions: a list of one string
`data.clips.ClipCollator` makes batches of them.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from .decoding import read_frames, read_masks
from .records import DataError
from .sampling import sample_around, window_around

MAX_DRAWS = 100  # of a sample that shows its object


class ReferringClips(Dataset):
    """Samples (see the module) of the rows that have masks.

    A row gives one sample for every `num_frames` annotated frames: for the frames 0, num_frames,
    2 * num_frames, ... of a video annotated throughout, for the annotated frame in A2D- and
    JHMDB-Sentences. In training the clip is drawn around that frame (`sample_around`), and if it
    does not show its object once transformed, another sample is drawn in its place, until one does.
    Without training the clip is the window around the frame (`window_around`).

    Sample `index` depends on `(seed, epoch, index)` alone: not on the process that makes it nor on
    the samples made before. `set_epoch` also reaches the workers of a running DataLoader.

    Args:
        rows: of data/records.py, as `load_rvos_dataset` gives them.
        data_dir: the folder that the rows' paths are relative to.
        num_frames: T.
        transform: of data/transforms.py, or any other that takes and gives a sample; its random
            numbers are those of torch's default generator.
        seed: of all that is drawn.
        training: whether clips are drawn, and drawn again.

    Raises:
        DataError: no row has masks; in training also, from `[index]`, if none of many samples shows
            its object.
    """

    def __init__(
        self,
        rows: datasets.Dataset,
        data_dir: str | Path | None,
        num_frames: int,
        transform: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
        seed: int = 0,
        training: bool = True,
    ):
        self.rows, self.data_dir, self.num_frames = rows, data_dir, num_frames
        self.transform, self.training, self.seed = transform, training, seed
        # Arrays and shared memory: workers must not copy the index, and must see a new epoch.
        self.samples = np.array(
            [
                (row, centre)
                for row, annotated in enumerate(rows["annotated"])
                for centre in annotated[::num_frames]
            ],
            dtype=np.int32,
        )
        if len(self.samples) == 0:
            raise DataError(
                f"none of the {len(rows)} rows has masks, which clips are made of: the masks of "
                "this split are not public; take another, such as 'train'"
            )
        self._epoch = torch.zeros((), dtype=torch.long).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        rng = np.random.default_rng((self.seed, int(self._epoch), index))
        for _ in range(MAX_DRAWS):
            sample = self._sample(index, rng)
            if not self.training or sample["masks"].any():
                return sample
            index = int(rng.integers(len(self)))
        raise DataError(
            f"none of {MAX_DRAWS} random samples of {self.data_dir} shows its object: expected "
            "masks as in the official download, and a transform that keeps them"
        )

    def _sample(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        row_index, centre = self.samples[index].tolist()
        row = self.rows[row_index]
        if self.training:
            indices = sample_around(centre, row["num_frames"], self.num_frames, rng)
        else:
            indices = window_around(centre, row["num_frames"], self.num_frames)
        masks, annotated = read_masks(self.data_dir, row, indices)
        sample = {
            "frames": tv_tensors.Video(read_frames(self.data_dir, row, indices)),
            "masks": tv_tensors.Mask(masks[None]),
            "annotated": annotated,
            "expressions": [row["expression"]],
        }
        if self.transform is not None:
            # The CPU's generator alone: a GPU's is the model's.
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(int(rng.integers(2**63)))
                sample = self.transform(sample)
        return v2.ToPureTensor()(sample)
