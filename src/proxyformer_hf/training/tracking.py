# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""What can be seen of a run: its numbers, scores and pictures in trackers, and a progress bar.

Trackers are accelerate's: TensorBoard, whose files are in <output_dir>/logs, or any other.

    loss/total, loss/<term>, loss/<term>_aux_<layer>    means over the steps since the last entry
    training/gradient_norm                              before clipping; mean likewise
    training/skipped_updates                            since the start of the run
    learning_rate/<group>
    speed/clips_per_second                              of all processes, without validation
    speed/data_wait                                     share of the time spent waiting for data
    memory/gigabytes                                    peak of the fullest device, or process
    validation/<score>                                  in percent
    predictions/<number>                                pictures, see `draw_clips`
"""

import resource
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import Tensor
from tqdm import tqdm

from ..evaluation.inference import predict
from ..evaluation.protocols import Protocol
from ..evaluation.scoring import score
from ..modeling_proxyformer import ProxyFormerForReferringSegmentation
from ..processing_proxyformer import ProxyFormerProcessor
from ..visualization import contact_sheet, draw_masks
from .agreement import raised_together

LOGS = "logs"
BAR_SECONDS = 30  # between two states of the bar in a file

Batch = TypeVar("Batch")


class RunLog:
    """Numbers of a run, gathered over processes every `log_every` steps and nowhere else, so that
    a device is not waited for in between. Every process uses it alike.

    Args:
        accelerator: its trackers are started here.
        max_steps: updates of the whole run.
        done: updates made before a resumption; what an interrupted run logged beyond is hidden.
        log_every: updates between two entries.
        settings: of the run, nested; stored once.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        max_steps: int,
        done: int,
        log_every: int,
        settings: Mapping[str, Any],
    ):
        self.accelerator, self.max_steps, self.log_every = accelerator, max_steps, log_every
        accelerator.init_trackers(
            LOGS, flatten(settings), {"tensorboard": {"purge_step": done + 1}}
        )
        self.bar = tqdm(
            initial=done,
            total=max_steps,
            unit="step",
            disable=not accelerator.is_main_process,
            mininterval=0.1 if sys.stderr.isatty() else BAR_SECONDS,
        )
        self.shown: dict[str, str] = {}
        self.started: float | None = None  # of the step in progress
        self._clear()

    def _clear(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.norms: Tensor | float = 0.0
        self.micro_batches = self.updates = self.clips = 0
        self.seconds = self.waited = 0.0

    def timed(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The same batches; notes how long each is waited for."""
        with self._waiting():
            iterator = iter(batches)
        while True:
            with self._waiting():
                batch = next(iterator, None)
            if batch is None:
                return
            yield batch

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        begun = time.perf_counter()
        self.started = self.started or begun
        yield
        self.waited += time.perf_counter() - begun

    def add(self, terms: Mapping[str, Tensor], num_clips: int) -> None:
        """After the loss of a micro-batch.

        Args:
            terms: "loss" and the terms of `loss_dict`, the same ones in all processes.
            num_clips: of the micro-batch in this process.
        """
        for name, value in terms.items():
            self.sums[name] = self.sums.get(name, 0) + value.detach()
        self.micro_batches += 1
        self.clips += num_clips

    def step(
        self,
        step: int,
        gradient_norm: Tensor | float,
        learning_rates: Mapping[str, float],
        skipped: int,
    ) -> None:
        """After an update.

        Args:
            step: updates made.
            gradient_norm: before clipping, that of all processes.
            learning_rates: by group of parameters.
            skipped: updates left out so far.
        """
        self.norms = self.norms + gradient_norm
        self.updates += 1
        self.seconds += time.perf_counter() - self.started
        self.started = None
        if step % self.log_every == 0 or step == self.max_steps:
            values = self._gather() | {"training/skipped_updates": skipped}
            values |= {f"learning_rate/{name}": rate for name, rate in learning_rates.items()}
            self.accelerator.log(values, step=step)
            self._clear()
            self.shown["loss"] = f"{values['loss/total']:.3g}"
            self.bar.set_postfix(self.shown, refresh=False)
        self.bar.update()

    def _gather(self) -> dict[str, float]:
        """Numbers of all processes since the last entry."""
        device = self.accelerator.device
        own = [
            *(total / self.micro_batches for total in self.sums.values()),
            self.norms / self.updates,
            self.waited / self.seconds,
            self.clips / self.seconds,
            peak_memory(device),
        ]
        own = [torch.as_tensor(value, dtype=torch.float32, device=device) for value in own]
        everyone = self.accelerator.gather(torch.stack(own)[None]).cpu()
        *losses, norm, wait = everyone[:, :-2].mean(0).tolist()
        names = ["total" if name == "loss" else name.removeprefix("loss_") for name in self.sums]
        return {f"loss/{name}": loss for name, loss in zip(names, losses, strict=True)} | {
            "training/gradient_norm": norm,
            "speed/data_wait": wait,
            "speed/clips_per_second": everyone[:, -2].sum().item(),
            "memory/gigabytes": everyone[:, -1].max().item(),
        }

    def scores(self, step: int, scores: Mapping[str, float]) -> None:
        """Of a validation; the first one stays in the progress bar."""
        values = {f"validation/{name}": value for name, value in scores.items()}
        self.accelerator.log(values, step=step)
        if scores:
            name, value = next(iter(scores.items()))
            self.shown[name] = f"{value:.1f}"
            self.bar.set_postfix(self.shown)

    def pictures(self, step: int, pictures: Sequence[np.ndarray]) -> None:
        """uint8 `(height, width, 3)` RGB, to the trackers that take pictures."""
        for tracker in self.accelerator.trackers:
            if not hasattr(tracker, "log_images"):
                continue
            layout = {"dataformats": "NHWC"} if tracker.name == "tensorboard" else {}
            for number, picture in enumerate(pictures):
                values = {f"predictions/{number}": picture[None]}
                tracker.log_images(values, step=step, **layout)

    def close(self) -> None:
        """At the end, also after an error."""
        self.bar.close()
        for tracker in self.accelerator.trackers:
            tracker.finish()


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted name, as trackers take them: numbers, texts, `None`."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, list | tuple):
            value = dict(enumerate(value))
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            known = value is None or isinstance(value, bool | int | float | str)
            flat[f"{prefix}{name}"] = value if known else str(value)
    return flat


def peak_memory(device: torch.device) -> float:
    """Gigabytes that this process has used at most, on a GPU or else of the machine's memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


@contextmanager
def evaluating(model: ProxyFormerForReferringSegmentation) -> Iterator[None]:
    """The model is in evaluation mode; all its modes and the random numbers are as before
    afterwards, so that training goes on as if nothing had been."""
    modes = [(module, module.training) for module in model.modules()]
    devices = [model.device] if model.device.type == "cuda" else []
    model.eval()
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def validate(
    accelerator: Accelerator,
    model: ProxyFormerForReferringSegmentation,
    processor: ProxyFormerProcessor,
    protocol: Protocol,
    data_dir: str | Path | None,
    split: str,
    folder: Path,
    num_workers: int,
) -> dict[str, float]:
    """Scores as a benchmark gives them, in percent. The processes share the videos.

    Args:
        model: whole in every process, with the weights to judge.
        protocol: of evaluation/protocols.py; `num_videos` limits the work.
        data_dir, split: of the benchmark.
        folder: for predictions; what is in it is lost, and it is gone afterwards.
        num_workers: of each process, that read frames, and later of the main one, that score.

    Raises:
        ValueError: the split has no masks, or cannot be read.
    """
    with raised_together(accelerator):
        if accelerator.is_main_process:
            shutil.rmtree(folder, ignore_errors=True)
    with evaluating(model):
        predict(model, processor, protocol, data_dir, folder, split, num_workers)
    found = [None]
    with raised_together(accelerator):
        if accelerator.is_main_process:
            found = [score(protocol, data_dir, folder, split, num_workers).scores]
            shutil.rmtree(folder)
    return broadcast_object_list(found)[0]


@torch.inference_mode()
def draw_clips(
    model: ProxyFormerForReferringSegmentation,
    processor: ProxyFormerProcessor,
    samples: Sequence[Mapping[str, Any]],
) -> list[np.ndarray]:
    """A picture of each clip: its frames with the true masks, and below with the predicted ones.

    Args:
        samples: of data/, as large as the model is to see them: `frames`, uint8 (T, 3, height,
            width); `masks` (E, T, height, width) and E `expressions`.

    Returns:
        uint8 `(height, width, 3)` RGB each. A mask has its expression's colour of
        `visualization.PALETTE`, and behind the expression stands the probability that the clip
        shows what it says.
    """
    pictures = []
    with evaluating(model):
        for sample in samples:
            texts, truths = sample["expressions"], sample["masks"].bool().numpy()
            inputs = processor(
                videos=sample["frames"],
                text=texts,
                do_resize=False,
                do_sample_frames=False,
                return_tensors="pt",
            )
            outputs = model(**inputs.to(model.device))
            sizes = [truths.shape[-2:]] * len(texts)
            results = processor.post_process_referring_segmentation(outputs, sizes)
            frames = sample["frames"].permute(0, 2, 3, 1).numpy()
            masks = np.stack([result["masks"].cpu().numpy() for result in results])
            tiles = draw_row(frames, truths, texts, [float(truth.any()) for truth in truths])
            tiles += draw_row(frames, masks, texts, [result["score"] for result in results])
            pictures.append(np.asarray(contact_sheet(tiles, columns=len(frames))))
    return pictures


def draw_row(
    frames: np.ndarray, masks: np.ndarray, texts: Sequence[str], scores: Sequence[float]
) -> list[np.ndarray]:
    """Frames `(T, height, width, 3)` with masks `(E, T, height, width)` and a legend."""
    return [draw_masks(frame, masks[:, index], texts, scores) for index, frame in enumerate(frames)]
