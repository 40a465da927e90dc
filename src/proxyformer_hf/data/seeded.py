# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""Samples that depend on a seed, the epoch and their index alone: not on the process that makes
them, nor on the samples made before."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset
from torchvision.transforms import v2

Sample = dict[str, Any]
Transform = Callable[[Sample], Sample]


class SeededDataset(Dataset):
    """The seed and the epoch of a training set.

    Args:
        seed: of all that is drawn.
        transform: of data/transforms.py, or any other that takes and gives a sample; its random
            numbers are those of torch's default generator.
    """

    def __init__(self, seed: int, transform: Transform | None = None):
        self.seed, self.transform = seed, transform
        # In shared memory, so that the workers of a running DataLoader see a new epoch.
        self._epoch = torch.zeros((), dtype=torch.long).share_memory_()

    @property
    def epoch(self) -> int:
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Other samples from now on, also in the workers of a running DataLoader."""
        self._epoch.fill_(epoch)

    def generator(self, *key: int) -> np.random.Generator:
        """The random numbers of a sample, by its index, or of what several samples share."""
        return np.random.default_rng((self.seed, self.epoch, *key))

    def transformed(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """The sample after the transform, whose seed is drawn from `rng`, as plain tensors."""
        if self.transform is not None:
            # The CPU's generator alone: a GPU's is the model's.
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(int(rng.integers(2**63)))
                sample = self.transform(sample)
        return v2.ToPureTensor()(sample)
