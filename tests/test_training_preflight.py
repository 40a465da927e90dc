# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
import json
import math
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator, PartialState
from accelerate.launchers import debug_launcher
from torch import nn
from torch.optim.swa_utils import AveragedModel

from proxyformer_hf.training.checkpoints import save_checkpoint
from proxyformer_hf.training.datasets import ClipSize
from proxyformer_hf.training.preflight import (
    check_data,
    check_disk,
    check_step,
    checkpoint_bytes,
    report_non_finite,
)
from tests.tiny_model import TINY_TIMM, tiny_model

CLIP = ClipSize(num_frames=3, height=64, width=96, expressions=2)


def stack(samples: list[int]) -> dict[str, torch.Tensor]:
    return {"inputs": torch.tensor(samples)}


def test_every_source_is_read_once():
    asked = []

    class Source(list):
        def __getitem__(self, index):
            asked.append((self.name, index))
            return super().__getitem__(index)

    sources = {name: Source([1, 2]) for name in ("images", "videos")}
    for name, source in sources.items():
        source.name = name
    check_data(Accelerator(cpu=True), sources, stack)
    assert asked == [("images", 0), ("videos", 0)]


@pytest.mark.parametrize("bad", [[], ["no number"]])
def test_source_that_cannot_be_read_or_collated_is_named(bad):
    with pytest.raises(ValueError, match="no sample of ref-davis17 train can be made: .*Error"):
        check_data(Accelerator(cpu=True), {"mevis train": [1], "ref-davis17 train": bad}, stack)


@pytest.mark.parametrize("averaged", [False, True])
def test_estimate_is_the_size_of_a_checkpoint(averaged, tmp_path):
    model = nn.Sequential(nn.Linear(500, 500), nn.BatchNorm1d(500), nn.Linear(500, 500))
    model[2].requires_grad_(False)
    estimate = checkpoint_bytes(model, averaged)
    accelerator = Accelerator(cpu=True)
    if averaged:
        accelerator.register_for_checkpointing(AveragedModel(model))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model, optimizer = accelerator.prepare(model, torch.optim.AdamW(trained))
    accelerator.backward(model(torch.randn(2, 500)).sum())
    optimizer.step()

    def export(folder: Path) -> None:
        folder.mkdir()
        torch.save(model.state_dict(), folder / "weights.pt")

    folder = save_checkpoint(accelerator, tmp_path, 1, export, limit=1)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    assert estimate == pytest.approx(size, rel=0.02)


def test_disk_must_hold_the_checkpoints_and_the_next_one(tmp_path, monkeypatch):
    accelerator, output = Accelerator(cpu=True), tmp_path / "runs/new"
    Usage = namedtuple("Usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, 8_000_000_000))
    check_disk(accelerator, output, 2_000_000_000, limit=3)
    assert list(output.iterdir()) == []
    with pytest.raises(OSError, match=r"new lacks 2.00 GB for 4 .*2.00 GB each.*checkpoint_limit"):
        check_disk(accelerator, output, 2_000_000_000, limit=4)
    old = output / "checkpoints/step-0000001/state/model.safetensors"
    old.parent.mkdir(parents=True)
    with old.open("wb") as file:
        file.truncate(2_000_000_000)  # without taking space
    check_disk(accelerator, output, 2_000_000_000, limit=4)


def test_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file/run"):
        check_disk(Accelerator(cpu=True), tmp_path / "file/run", 0, limit=1)


class Trained:
    """A model with batch norm and stochastic depth, one step after its start, its modes mixed."""

    def __init__(self):
        self.accelerator = Accelerator(cpu=True)
        model = tiny_model(vision_config=TINY_TIMM, num_queries=2)
        model.model.text_encoder.train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer)
        for parameter in self.model.parameters():
            parameter.grad = torch.ones_like(parameter)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def state(self) -> list[torch.Tensor]:
        moments = [value for of in self.optimizer.state.values() for value in of.values()]
        modes = torch.tensor([module.training for module in self.model.modules()])
        held = [*self.model.state_dict().values(), *moments, modes, torch.get_rng_state()]
        return [tensor.clone() for tensor in held]


def test_step_at_the_largest_size_leaves_no_trace():
    trained, seen, gradients = Trained(), {}, []
    model = trained.model

    def note_inputs(module, args, inputs):
        seen.update({name: value.shape for name, value in inputs.items()}, mode=module.training)

    model.register_forward_pre_hook(note_inputs, with_kwargs=True)
    weight = next(model.parameters())
    weight.register_hook(lambda gradient: gradients.append(gradient.abs().sum().item()))
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    means = []
    norms[0].register_forward_hook(lambda norm, *_: means.append(norm.running_mean.clone()))

    before = trained.state()
    check_step(trained.accelerator, model, batch_size=2, clip=CLIP, max_words=40)
    for old, new in zip(before, trained.state(), strict=True):
        assert torch.equal(old, new)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert seen["pixel_values_videos"] == (2, 3, 3, 64, 96)
    assert seen["mask_labels"] == (4, 3, 64, 96) and seen["input_ids"] == (4, 40)
    assert seen["mode"] and gradients[0] > 0
    assert not torch.equal(means[0], norms[0].running_mean)  # they had moved, and came back


def test_too_small_a_memory_is_explained():
    trained = Trained()
    before = trained.state()
    clip = CLIP._replace(num_frames=10**9, height=6400)
    told = (
        "memory of cpu is too small for the largest batch, 2 clips of 1000000000 frames of 6400x96 "
        "pixels with 2 expressions each: lower run.batch_size .* num_frames .*checkpointing"
    )
    with pytest.raises(ValueError, match=told):
        check_step(trained.accelerator, trained.model, 2, clip, 512)
    for old, new in zip(before, trained.state(), strict=True):
        assert torch.equal(old, new)


def test_error_of_the_model_is_not_taken_for_a_lack_of_memory():
    class Broken(nn.Linear):
        def forward(self, **inputs):
            raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes do not match"):
        check_step(Accelerator(cpu=True), Broken(1, 1), 1, CLIP, 512)


def report(folder: Path) -> None:
    """Process 1 has a loss that is not finite."""
    PartialState._reset_state()
    accelerator = Accelerator(cpu=True)
    rank = accelerator.process_index
    terms = {"loss": torch.tensor([1.5, math.nan][rank]), "loss_mask": torch.tensor(0.5)}
    try:
        report_non_finite(accelerator, folder, 7, [f"mevis/video{rank}/0@3"], terms)
    except FloatingPointError as error:
        (folder / f"{rank}.txt").write_text(str(error))


def test_samples_of_all_processes_are_stored_when_the_loss_of_one_is_not_finite(
    tmp_path, one_thread
):
    debug_launcher(report, (tmp_path,), num_processes=2)
    path = tmp_path / "non_finite_step_7.json"
    found = json.loads(path.read_text())
    assert [each["ids"] for each in found] == [["mevis/video0/0@3"], ["mevis/video1/0@3"]]
    assert [each["not finite"] for each in found] == [[], ["loss"]]
    assert found[0]["terms"] == {"loss": 1.5, "loss_mask": 0.5}
    for rank in (0, 1):
        told = (tmp_path / f"{rank}.txt").read_text()
        assert told.startswith(f"step 7: loss not finite; {path} names the samples")
