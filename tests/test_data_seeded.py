# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
import torch
from torchvision import tv_tensors

from proxyformer_hf.data.seeded import Sample, SeededDataset


class Draws(SeededDataset):
    def __getitem__(self, index: int) -> Sample:
        rng = self.generator(index)
        masks = tv_tensors.Mask(torch.tensor([int(rng.integers(1000))]))
        return self.transformed({"masks": masks}, rng)


def add_noise(sample: Sample) -> Sample:
    return sample | {"noise": torch.rand(())}


def test_random_numbers_are_those_of_seed_epoch_and_index():
    values = {}
    for seed in (0, 1):
        draws = Draws(seed, add_noise)
        for epoch in (0, 1):
            draws.set_epoch(epoch)
            assert draws.epoch == epoch
            for index in (0, 1):
                sample = draws[index]
                values[seed, epoch, index] = (sample["masks"].item(), sample["noise"].item())
    assert len(set(values.values())) == 8
    again = Draws(1, add_noise)
    again.set_epoch(1)
    torch.rand(3)
    assert (again[1]["masks"].item(), again[1]["noise"].item()) == values[1, 1, 1]


def test_the_transform_leaves_the_generator_alone_and_gives_plain_tensors():
    before = torch.get_rng_state()
    sample = Draws(0, add_noise)[0]
    assert torch.equal(torch.get_rng_state(), before)
    assert type(sample["masks"]) is torch.Tensor
    assert type(Draws(0)[0]["masks"]) is torch.Tensor
