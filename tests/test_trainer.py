# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""The model trains and is evaluated under transformers.Trainer, with our clips and collator."""

import math
from pathlib import Path

import pytest
import torch
from transformers import Trainer, TrainingArguments

from proxyformer_hf import ProxyFormerForReferringSegmentation, ProxyFormerProcessor
from proxyformer_hf.data.clips import ClipCollator
from proxyformer_hf.data.referring_clips import MovingShapesClips
from tests.tiny_model import save_tiny_checkpoint


def make_trainer(folder: Path, **arguments) -> Trainer:
    """Of a tiny model; batches hold 2 videos with 2 expressions each."""
    save_tiny_checkpoint(folder / "start")
    clips = MovingShapesClips(num_frames=2, num_videos=4, expressions=2, height=64, width=64)
    processor = ProxyFormerProcessor.from_pretrained(folder / "start")
    return Trainer(
        ProxyFormerForReferringSegmentation.from_pretrained(folder / "start"),
        TrainingArguments(
            output_dir=folder / "run",
            use_cpu=True,
            per_device_train_batch_size=2,
            per_device_eval_batch_size=2,
            logging_steps=1,
            remove_unused_columns=False,  # the collator reads them, the model does not
            disable_tqdm=True,
            **arguments,
        ),
        data_collator=ClipCollator(processor),
        train_dataset=clips,
        eval_dataset=clips,
        processing_class=processor,
    )


def logged_losses(trainer: Trainer) -> list[float]:
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def test_two_steps_change_the_weights_and_leave_a_checkpoint(tmp_path):
    trainer = make_trainer(tmp_path, max_steps=2, save_steps=2, learning_rate=1e-3)
    losses = logged_losses(trainer)
    assert len(losses) == 2 and all(0 < loss < math.inf for loss in losses)

    start = ProxyFormerForReferringSegmentation.from_pretrained(tmp_path / "start")
    end = ProxyFormerForReferringSegmentation.from_pretrained(tmp_path / "run/checkpoint-2")
    ProxyFormerProcessor.from_pretrained(tmp_path / "run/checkpoint-2")
    before, trained, after = (dict(m.named_parameters()) for m in (start, trainer.model, end))
    for name in before:
        assert torch.equal(after[name], trained[name]), name
    moved = [name for name in before if not torch.equal(before[name], after[name])]
    assert len(moved) > 0.9 * len(before)


def test_accumulated_loss_is_the_mean_of_its_steps(tmp_path):
    """Trainer sums the losses of models that divide by a count of labels which it hands them."""
    frozen = {"learning_rate": 0.0, "save_strategy": "no"}
    each = logged_losses(make_trainer(tmp_path, max_steps=2, **frozen))
    trainer = make_trainer(tmp_path, max_steps=1, gradient_accumulation_steps=2, **frozen)
    assert not trainer.model_accepts_loss_kwargs
    both = logged_losses(trainer)
    assert both == [pytest.approx(sum(each) / 2, rel=1e-4)]


def test_evaluation_gives_the_loss(tmp_path):
    trainer = make_trainer(tmp_path)
    assert trainer.label_names == ["mask_labels"]
    scores = trainer.evaluate()
    model, losses = trainer.model.eval(), []
    with torch.no_grad():
        for batch in trainer.get_eval_dataloader():
            losses.append(model(**batch).loss)
    assert scores["eval_loss"] == pytest.approx(torch.stack(losses).mean().item(), rel=1e-5)
