# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""The training loop: updates, checkpoints, validation and the final export, on any devices.

A resumed run is the run that was not interrupted, to the bit: what a checkpoint holds (weights,
optimizer, schedule, average, random states, the number of updates), together with samples that
depend on their place in the run alone, decides all that follows.
"""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, replace
from datetime import timedelta
from functools import partial
from itertools import islice
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import (
    DistributedType,
    InitProcessGroupKwargs,
    broadcast,
    send_to_device,
    set_seed,
)
from torch import Tensor

from ..cpu import keep_freed_memory
from ..evaluation.protocols import find_protocol
from ..loss_proxyformer import LossCounts, count_targets
from ..model_card import write_model_card
from ..modeling_proxyformer import ProxyFormerForReferringSegmentation
from ..processing_proxyformer import ProxyFormerProcessor
from .agreement import StopSignal, raised_together
from .checkpoints import latest_checkpoint, load_checkpoint, save_checkpoint, written_whole
from .datasets import (
    BatchCollator,
    TrainingSet,
    batches_per_epoch,
    fixed_clips,
    largest_clip,
    training_loader,
)
from .optimization import (
    average_weights,
    freeze_unused_parameters,
    learning_rate_schedule,
    parameter_groups,
)
from .preflight import check_data, check_disk, check_step, checkpoint_bytes, report_non_finite
from .recipe import Recipe, changed_settings, load_recipe, save_recipe
from .tracking import RunLog, draw_clips, evaluating, validate


def create_accelerator(recipe: Recipe, output_dir: Path) -> Accelerator:
    """The devices as `accelerate launch` or torchrun gives them, or one process; and the trackers.

    Raises:
        ValueError: the recipe asks for what cannot work with sharded weights.
    """
    run = recipe.run
    accelerator = Accelerator(
        gradient_accumulation_steps=run.gradient_accumulation_steps,
        mixed_precision=run.mixed_precision,
        dynamo_backend="inductor" if run.compile else "no",
        log_with=run.trackers,
        project_dir=output_dir,
        # While the main process scores a validation, the others wait.
        kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(hours=2))],
    )
    if accelerator.device.type == "cpu":
        keep_freed_memory()
    if accelerator.distributed_type == DistributedType.FSDP:
        if recipe.optimizer.ema_decay is not None:
            raise ValueError(
                "optimizer.ema_decay: weights that FSDP shards cannot be averaged: set it to null, "
                "or train without FSDP"
            )
        if recipe.validation is not None:
            raise ValueError(
                "validation: needs the whole model in each process, but FSDP shards it: set it to "
                "null, and evaluate the checkpoints with `proxyformer evaluate`"
            )
    return accelerator


def claim_output_dir(
    accelerator: Accelerator, output_dir: Path, recipe: Recipe, resume: bool
) -> None:
    """Reserves the folder for a run by writing its recipe; every process calls it.

    Raises:
        ValueError: there is something in it and `resume` is false; or nothing to resume, or a run
            of another recipe.
    """
    stored = output_dir / "recipe.yaml"
    with raised_together(accelerator):
        if not accelerator.is_main_process:
            return
        if resume:
            if not stored.exists():
                raise ValueError(f"{output_dir} holds no run to resume: leave out --resume")
            changed = changed_settings(load_recipe(stored), recipe)
            if changed:
                raise ValueError(
                    f"{output_dir} holds a run of another recipe, which differs in "
                    f"{', '.join(changed)}: resume with the same recipe, or train in another folder"
                )
        # A recipe alone is of a run that failed before its first step.
        elif output_dir.exists() and any(path != stored for path in output_dir.iterdir()):
            raise ValueError(
                f"{output_dir} is not empty: add --resume to go on with the run in it, or train in "
                "another folder"
            )
        output_dir.mkdir(parents=True, exist_ok=True)
        save_recipe(recipe, stored)


class Progress:
    """Updates made, and left out for a gradient that was not finite; part of a checkpoint."""

    def __init__(self):
        self.step, self.skipped = 0, 0

    def state_dict(self) -> dict[str, int]:
        return vars(self).copy()

    def load_state_dict(self, state: dict[str, int]) -> None:
        vars(self).update(state)


class TrainingState:
    """The model and all that changes with it; registered with the accelerator for checkpoints.

    Attributes:
        model: as it was given, on the accelerator's device.
        network: the same, prepared for the devices: for the forward pass in training.
        average: the moving average of the weights, or None.
        progress: updates made; `num_steps` is the number of them in the run.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        model: ProxyFormerForReferringSegmentation,
        recipe: Recipe,
        steps_per_epoch: int,
    ):
        settings = recipe.optimizer
        self.num_steps = recipe.run.max_steps or recipe.run.epochs * steps_per_epoch
        self.accelerator, self.gradient_clip = accelerator, settings.gradient_clip
        self.model, self.progress, self.average = model.to(accelerator.device), Progress(), None
        model.train()
        freeze_unused_parameters(model)
        if settings.ema_decay is not None:
            self.average = average_weights(model, settings.ema_decay)
            accelerator.register_for_checkpointing(self.average)
        if recipe.run.activation_checkpointing:
            model.activation_checkpointing_enable()
        optimizer = torch.optim.AdamW(parameter_groups(model, settings), fused=True)
        self.schedule = learning_rate_schedule(optimizer, settings, self.num_steps, steps_per_epoch)
        # Both at once, as FSDP replaces the parameters. The schedule stays ours: prepared, it would
        # step once per process.
        self.network, self.optimizer = accelerator.prepare(model, optimizer)
        accelerator.register_for_checkpointing(self.schedule, self.progress)

    def update(self, batches: list[dict], log: RunLog, output_dir: Path) -> None:
        """One update of the weights, of its micro-batches on this process.

        It is left out if the gradient is not finite though the loss is.

        Raises:
            FloatingPointError: a loss is not finite, on any process.
        """
        ids = [name for batch in batches for name in batch.pop("ids")]
        batches = send_to_device(batches, self.accelerator.device, non_blocking=True)
        counts = self._mean_counts(batches)
        totals: dict[str, Tensor] = {}
        for batch in batches:
            with self.accelerator.accumulate(self.network):
                output = self.network(**batch, loss_counts=counts)
                self.accelerator.backward(output.loss)
            terms = {"loss": output.loss.detach(), **output.loss_dict}
            log.add(terms, num_clips=len(batch["pixel_values_videos"]))
            totals = {name: totals.get(name, 0) + value for name, value in terms.items()}

        norm = self.accelerator.clip_grad_norm_(self.network.parameters(), self.gradient_clip)
        broken = (~torch.isfinite(totals["loss"])).float()
        if self.accelerator.reduce(broken, "sum") > 0:
            step = self.progress.step + 1
            report_non_finite(self.accelerator, output_dir, step, ids, totals)
        if torch.isfinite(norm):
            self.optimizer.step()
        else:
            self.progress.skipped += 1
        self.optimizer.zero_grad()
        rates = {group["name"]: group["lr"] for group in self.optimizer.param_groups}
        self.schedule.step()
        if self.average is not None:
            self.average.update_parameters(self.model)
        self.progress.step += 1
        log.step(self.progress.step, norm, rates, self.progress.skipped)

    def _mean_counts(self, batches: list[dict]) -> LossCounts:
        """What the loss of each micro-batch of an update is divided by."""
        own = [
            count_targets(batch["mask_labels"], batch.get("frame_mask"), batch.get("pixel_mask"))
            for batch in batches
        ]
        summed = LossCounts(*(sum(counts) for counts in zip(*own, strict=True)))
        total = self.accelerator.reduce(summed, "sum")
        parts = len(batches) * self.accelerator.num_processes
        return LossCounts(*(count / parts for count in total))

    def trained_model(self) -> ProxyFormerForReferringSegmentation:
        """The model to use: the average if there is one."""
        return self.model if self.average is None else self.average.module

    def export(self, processor: ProxyFormerProcessor, folder: Path) -> None:
        """Writes what `from_pretrained` loads; every process calls it."""
        weights = None
        if self.accelerator.distributed_type == DistributedType.FSDP:
            weights = self.accelerator.get_state_dict(self.network)
        is_main = self.accelerator.is_main_process
        # Also where nothing is written: it completes the configuration.
        self.trained_model().save_pretrained(folder, is_main, state_dict=weights)
        if is_main:
            processor.save_pretrained(folder)


class Validation:
    """Scores and pictures of the model as it would be exported, on the recipe's validation split.

    What it needs is looked up at once, so that a mistake shows before training. Save a checkpoint
    before a call: a signal to all processes of a job would end the workers in the midst of it.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        processor: ProxyFormerProcessor,
        recipe: Recipe,
        folder: Path,
        scores: Callable[[ProxyFormerForReferringSegmentation], dict[str, float]] | None,
    ):
        self.accelerator, self.processor, self.scores = accelerator, processor, scores
        self.settings, self.folder = recipe.validation, folder
        self.every = self.settings.every
        self.num_workers = recipe.run.num_workers
        if scores is None:
            protocol = find_protocol(self.settings.benchmark, self.settings.protocol)
            self.protocol = replace(protocol, num_videos=self.settings.num_videos)
        self.clips = []
        if self.settings.num_pictures:
            self.clips = fixed_clips(recipe, self.settings.num_pictures)

    def __call__(self, state: TrainingState, log: RunLog) -> None:
        """Every process calls it."""
        model = state.trained_model()
        # Each process has batch statistics of its own; those of the main one are exported.
        broadcast(list(model.buffers()))
        if self.scores is None:
            scores = validate(
                self.accelerator,
                model,
                self.processor,
                self.protocol,
                self.settings.data_dir,
                self.settings.split or self.protocol.split,
                self.folder,
                self.num_workers,
            )
        else:
            with evaluating(model):
                scores = self.scores(model) if self.accelerator.is_main_process else {}
        log.scores(state.progress.step, scores)
        if self.accelerator.is_main_process:
            pictures = draw_clips(model, self.processor, self.clips)
            log.pictures(state.progress.step, pictures)


def train(
    accelerator: Accelerator,
    model: ProxyFormerForReferringSegmentation,
    processor: ProxyFormerProcessor,
    recipe: Recipe,
    dataset: TrainingSet,
    output_dir: Path,
    name: str,
    resume: bool = False,
    scores: Callable[[ProxyFormerForReferringSegmentation], dict[str, float]] | None = None,
) -> bool:
    """Trains as the recipe says and leaves the model, with its processor, in `output_dir`/model.

    Every process calls it, after `claim_output_dir`. Checkpoints are in `output_dir`/checkpoints,
    the tracker's files in `output_dir`/logs.

    Args:
        accelerator: of `create_accelerator`.
        model, processor: of the recipe; changed in place.
        dataset: of `training_dataset`.
        name: of the model, for its card.
        resume: go on from the newest whole checkpoint, if there is one yet.
        scores: of a model, for the log, in place of those of the recipe's benchmark; called on the
            main process.

    Returns:
        Whether the run is complete; otherwise a signal stopped it, and a checkpoint was written.

    Raises:
        ValueError: data, disk or a step at the largest size fail before the first update; or the
            checkpoints to resume from are damaged.
        FloatingPointError: a loss is not finite; the ids of its samples are in `output_dir`.
    """
    validation = None
    if recipe.validation is not None:
        folder = output_dir / "validation"
        validation = Validation(accelerator, processor, recipe, folder, scores)
    state = _prepare(accelerator, model, processor, recipe, dataset, output_dir, resume)
    run, progress = recipe.run, state.progress
    stream = _micro_batches(accelerator, dataset, recipe, processor, progress.step)
    log = RunLog(accelerator, state.num_steps, progress.step, run.log_every, asdict(recipe))
    with StopSignal() as stop, closing(log):
        batches = log.timed(stream)
        while progress.step < state.num_steps:
            state.update(list(islice(batches, run.gradient_accumulation_steps)), log, output_dir)
            complete = progress.step == state.num_steps
            stopped = stop.requested(accelerator) and not complete
            validates = validation and (complete or progress.step % validation.every == 0)
            if stopped or complete or validates or progress.step % run.checkpoint_every == 0:
                export = partial(state.export, processor)
                save_checkpoint(
                    accelerator, output_dir, progress.step, export, run.checkpoint_limit
                )
            if stopped:
                return False
            if validates:
                validation(state, log)
    with written_whole(accelerator, output_dir / "model") as folder:
        state.export(processor, folder)
        if accelerator.is_main_process:
            write_model_card(folder, name, recipe)
    return True


def _prepare(
    accelerator: Accelerator,
    model: ProxyFormerForReferringSegmentation,
    processor: ProxyFormerProcessor,
    recipe: Recipe,
    dataset: TrainingSet,
    output_dir: Path,
    resume: bool,
) -> TrainingState:
    """The state to go on from, after trying what could end the run later."""
    run = recipe.run
    batches = batches_per_epoch(dataset, recipe, accelerator.num_processes)
    check_data(accelerator, dataset.sources, BatchCollator(processor))
    averaged = recipe.optimizer.ema_decay is not None
    check_disk(accelerator, output_dir, checkpoint_bytes(model, averaged), run.checkpoint_limit)
    set_seed(run.seed, device_specific=True)  # dropout differs between processes
    state = TrainingState(accelerator, model, recipe, batches // run.gradient_accumulation_steps)
    max_words = processor.tokenizer.model_max_length
    clip = largest_clip(dataset, recipe)
    check_step(accelerator, state.network, run.batch_size, clip, max_words)
    checkpoint = latest_checkpoint(accelerator, output_dir) if resume else None
    if checkpoint is not None:
        load_checkpoint(accelerator, checkpoint)
    return state


def _micro_batches(
    accelerator: Accelerator,
    dataset: TrainingSet,
    recipe: Recipe,
    processor: ProxyFormerProcessor,
    step: int,
) -> Iterator[dict]:
    """Batches of this process, epoch after epoch, for all updates after `step`."""
    per_epoch = batches_per_epoch(dataset, recipe, accelerator.num_processes)
    epoch, first_batch = divmod(step * recipe.run.gradient_accumulation_steps, per_epoch)
    while True:
        yield from training_loader(
            dataset,
            recipe,
            processor,
            epoch=epoch,
            num_processes=accelerator.num_processes,
            process_index=accelerator.process_index,
            first_batch=first_batch,
        )
        epoch, first_batch = epoch + 1, 0
