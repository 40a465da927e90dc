# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""What can end a run after hours is tried before its first step; and the report of a loss that is
no number."""

import json
import math
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from accelerate.utils.memory import should_reduce_batch_size
from torch import Tensor, nn
from torch.utils.data import Dataset

from ..video_io import atomic_path
from .agreement import raised_together
from .checkpoints import CHECKPOINTS
from .datasets import ClipSize

NUM_WORDS = 64  # tokens; an expression of the benchmarks has 25 words at most
ADAM_MOMENTS = 2


def check_data(
    accelerator: Accelerator,
    sources: Mapping[str, Dataset],
    collate: Callable[[list[Any]], dict[str, Any]],
) -> None:
    """Read and collate a sample of each source, on each machine.

    Args:
        sources: data sets by name.
        collate: makes a batch of samples.

    Raises:
        ValueError: a source is empty or a sample cannot be read; names the source.
    """
    with raised_together(accelerator):
        if accelerator.is_local_main_process:
            for name, source in sources.items():
                try:
                    collate([source[0]])
                except Exception as error:
                    raise ValueError(f"no sample of {name} can be made: {error!r}") from error


def checkpoint_bytes(model: nn.Module, averaged: bool) -> int:
    """Size of a checkpoint: weights, Adam's moments of what is trained, the averaged weights if
    there are any, and the exported model.

    Args:
        model: as it is before `Accelerator.prepare`, which may shard it.
    """
    trained = sum(p.nbytes for p in model.parameters() if p.requires_grad)
    weights = sum(tensor.nbytes for tensor in model.state_dict().values())
    return ADAM_MOMENTS * trained + (3 if averaged else 2) * weights


def check_disk(
    accelerator: Accelerator, output_dir: str | Path, bytes_each: int, limit: int
) -> None:
    """Make the folder of a run, and check that all machines share it and that `limit` checkpoints
    and the next one fit.

    Args:
        bytes_each: size of a checkpoint. Those that are there already count as free space, for
            they will have to go.

    Raises:
        OSError: no folder can be made there, or the space is too small; says by how much.
    """
    output = Path(output_dir)
    probe = output / ".shared"
    with raised_together(accelerator):
        if accelerator.is_main_process:
            output.mkdir(parents=True, exist_ok=True)
            probe.touch()
    with raised_together(accelerator):
        if not probe.exists():
            raise OSError(f"{output} of the main process is not here: machines must share it")
    with raised_together(accelerator):
        if accelerator.is_main_process:
            probe.unlink()
            kept = [path.stat().st_size for path in (output / CHECKPOINTS).rglob("*")]
            needed, free = (limit + 1) * bytes_each, shutil.disk_usage(output).free + sum(kept)
            if free < needed:
                raise OSError(
                    f"{output} lacks {(needed - free) / 1e9:.2f} GB for {limit} checkpoints and "
                    f"the next one, {bytes_each / 1e9:.2f} GB each: make space or lower "
                    "run.checkpoint_limit"
                )


def check_step(
    accelerator: Accelerator, model: nn.Module, batch_size: int, clip: ClipSize, max_words: int
) -> None:
    """One forward and backward pass of noise at the largest size, in the run's precision.

    Weights, buffers, gradients, modes and random numbers are as before afterwards. Every process
    calls this. The space of Adam's moments, which its first step makes, is held meanwhile.

    Args:
        model: after `Accelerator.prepare`.
        batch_size: of a process.
        clip: the largest size of the clips of a batch.
        max_words: tokens that the text encoder takes.

    Raises:
        ValueError: the memory is too small; says for what.
    """
    device = accelerator.device
    modes = [(module, module.training) for module in model.modules()]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    model.train()
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            moments = [
                torch.empty_like(parameter)
                for parameter in model.parameters()
                if parameter.requires_grad
                for _ in range(ADAM_MOMENTS)
            ]
            batch = noise_batch(batch_size, clip, min(NUM_WORDS, max_words), device)
            accelerator.backward(model(**batch).loss)
            del moments
    except RuntimeError as error:
        if not should_reduce_batch_size(error):
            raise
        # Raised here and now: the others may be waiting for a gradient of this process.
        frames, height, width, expressions = clip
        raise ValueError(
            f"the memory of {device} is too small for the largest batch, {batch_size} clips of "
            f"{frames} frames of {height}x{width} pixels with {expressions} expressions each: "
            "lower run.batch_size (and raise run.gradient_accumulation_steps), num_frames or the "
            "sizes of the data, or set run.activation_checkpointing"
        ) from error
    finally:
        model.zero_grad()
        for module, mode in modes:
            module.training = mode
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)


def noise_batch(
    batch_size: int, clip: ClipSize, num_words: int, device: torch.device
) -> dict[str, Tensor]:
    """The model's inputs: noise, meaningless words, and a box in the middle as every mask."""
    num_frames, height, width, expressions = clip
    rows = batch_size * expressions
    masks = torch.zeros(rows, num_frames, height, width, dtype=torch.int8, device=device)
    masks[..., height // 4 : -(height // 4), width // 4 : -(width // 4)] = 1
    words = torch.zeros(rows, num_words, dtype=torch.long, device=device)
    return {
        "pixel_values_videos": torch.randn(batch_size, num_frames, 3, height, width, device=device),
        "input_ids": words,
        "attention_mask": torch.ones_like(words),
        "frame_mask": torch.ones(batch_size, num_frames, dtype=torch.bool, device=device),
        "pixel_mask": torch.ones(batch_size, height, width, dtype=torch.bool, device=device),
        "mask_labels": masks,
    }


def report_non_finite(
    accelerator: Accelerator,
    output_dir: str | Path,
    step: int,
    ids: list[str],
    terms: Mapping[str, Tensor],
) -> NoReturn:
    """Write `non_finite_step_<step>.json` and end the run, before the weights are spoilt.

    Every process calls this when the loss of any is not finite.

    Args:
        step: the update that was not made.
        ids: of the samples of this process in it.
        terms: the loss and its terms in this process.

    Raises:
        FloatingPointError: always; names the terms that are not finite, and the file.
    """
    values = {name: float(value) for name, value in terms.items()}
    bad = [name for name, value in values.items() if not math.isfinite(value)]
    own = {"process": accelerator.process_index, "ids": ids, "not finite": bad, "terms": values}
    found = gather_object([own])
    path = Path(output_dir) / f"non_finite_step_{step}.json"
    with raised_together(accelerator):
        if accelerator.is_main_process:
            with atomic_path(path) as partial:
                partial.write_text(json.dumps(found, indent=2), encoding="utf-8")
    names = dict.fromkeys(name for each in found for name in each["not finite"])
    raise FloatingPointError(
        f"step {step}: {', '.join(names)} not finite; {path} names the samples. "
        "The last checkpoint is from before"
    )
