# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""Training: the recipe, parameter groups, the average of weights, checkpoints and the loop."""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import torch
import yaml
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset
from tqdm.auto import tqdm
from transformers import get_cosine_schedule_with_warmup

from .data.clips import ClipCollator, ClipRecipe, TrainingClips
from .data.sources import load_images, load_videos


@dataclass
class Recipe:
    """Settings of a run; a yaml file names what differs from these defaults."""

    vision: dict  # fields of TimmBackboneConfig
    text: str  # folder, Hub name, or installed package with a `model` folder
    vision_weights: str | None = None  # .npz for scripts/convert_deeplab_mobilenetv2.py
    image_mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    image_std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    model: dict = field(default_factory=dict)  # fields of ProxyFormerConfig
    clips: ClipRecipe = field(default_factory=ClipRecipe)
    batch_size: int = 2
    learning_rate: float = 1e-4
    vision_learning_rate_factor: float = 0.1
    weight_decay: float = 0.05
    warmup_steps: int = 100
    gradient_clip: float = 0.1
    ema_decay: float = 0.998
    seed: int = 0

    @classmethod
    def from_yaml(cls, path: str | Path) -> "Recipe":
        values = yaml.safe_load(Path(path).read_text())
        for kind, given in ((cls, values), (ClipRecipe, values.get("clips", {}))):
            unknown = set(given) - {f.name for f in fields(kind)}
            if unknown:
                raise ValueError(f"{path}: unknown setting {', '.join(sorted(unknown))}")
        return cls(**values | {"clips": ClipRecipe(**values.get("clips", {}))})


def parameter_groups(model: nn.Module, recipe: Recipe) -> list[dict]:
    """Trained parameters by learning rate (vision backbone and its neck lower) and weight decay.

    Norms, biases and other vectors do not decay.
    """
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            vision = "video_encoder.backbone." in name or "video_encoder.neck." in name
            groups.setdefault((vision, parameter.ndim > 1), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": recipe.learning_rate * (recipe.vision_learning_rate_factor if vision else 1),
            "weight_decay": recipe.weight_decay if decays else 0.0,
        }
        for (vision, decays), parameters in groups.items()
    ]


class WeightAverage:
    """Exponential moving average of the trained parameters, shorter at the start of a run."""

    def __init__(self, model: nn.Module, decay: float):
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.average = [p.detach().clone() for p in self.parameters]
        self.decay = decay

    @torch.no_grad()
    def update(self, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.average, self.parameters, 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model holds the averaged weights inside of this context."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for parameter, average in zip(self.parameters, self.average, strict=True):
            held = parameter.clone()
            parameter.copy_(average)
            average.copy_(held)


def save_checkpoint(folder: Path, model, processor, average: WeightAverage, state: dict) -> None:
    """Averaged model, processor and training state; the last one stays until this one is whole."""
    new, old = folder.with_name(folder.name + ".new"), folder.with_name(folder.name + ".old")
    for leftover in (new, old):
        shutil.rmtree(leftover, ignore_errors=True)
    with average.applied():
        model.save_pretrained(new)
    processor.save_pretrained(new)
    state = state | {
        "parameters": [p.detach() for p in average.parameters],
        "average": average.average,
        "random": torch.get_rng_state(),  # of dropout and stochastic depth
    }
    torch.save(state, new / "training_state.pt")
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def load_checkpoint(folder: Path, optimizer, scheduler, average: WeightAverage) -> int:
    """Continue from `save_checkpoint`; returns the number of steps done."""
    state = torch.load(folder / "training_state.pt", map_location="cpu", weights_only=True)
    with torch.no_grad():
        for kept, loaded in (
            (average.parameters, state["parameters"]),
            (average.average, state["average"]),
        ):
            for tensor, value in zip(kept, loaded, strict=True):
                tensor.copy_(value)
    optimizer.load_state_dict(state["optimizer"])
    scheduler.load_state_dict(state["scheduler"])
    torch.set_rng_state(state["random"])
    return state["step"]


def training_loader(
    recipe: Recipe,
    data_dir: Path,
    processor,
    max_steps: int,
    done: int,
    num_workers: int,
    shards: int,
) -> DataLoader:
    """Batches `done` to `max_steps` of every process, the same wherever a run was resumed."""
    clips = TrainingClips(
        load_images(data_dir),
        load_videos(data_dir),
        recipe.clips,
        max_steps * shards,
        recipe.batch_size,
        recipe.seed,
    )
    rest = Subset(clips, range(done * shards * recipe.batch_size, len(clips)))
    return DataLoader(
        rest,
        recipe.batch_size,
        num_workers=num_workers,
        collate_fn=ClipCollator(processor),
        persistent_workers=num_workers > 0,
        generator=torch.Generator(),  # so that starting the loader draws nothing from the model's
    )


def training_step(
    accelerator, network, batch, optimizer, gradient_clip: float
) -> dict[str, Tensor]:
    """One update, left out when the gradient is not finite; returns the loss terms."""
    output = network(**batch)
    accelerator.backward(output.loss)
    norm = accelerator.clip_grad_norm_(network.parameters(), gradient_clip)
    if torch.isfinite(norm):
        optimizer.step()
    optimizer.zero_grad()
    return {"loss": output.loss, "gradient_norm": norm, **output.loss_dict}


def train(
    model,
    processor,
    recipe: Recipe,
    data_dir: Path,
    output_dir: Path,
    max_steps: int,
    resume: bool,
    num_workers: int,
    checkpoint_minutes: float,
    evaluate: Callable[[], dict[str, float]],
    evaluate_every: int,
) -> None:
    """Train for `max_steps` and leave `last` (the averaged model) and `log.jsonl` in `output_dir`.

    `evaluate` is called every `evaluate_every` steps while the model holds the averaged weights;
    what it returns goes to the log.
    """
    accelerator = Accelerator()
    average = WeightAverage(model, recipe.ema_decay)
    optimizer = torch.optim.AdamW(parameter_groups(model, recipe), fused=True)
    scheduler = get_cosine_schedule_with_warmup(optimizer, recipe.warmup_steps, max_steps)
    last, log = output_dir / "last", output_dir / "log.jsonl"
    output_dir.mkdir(parents=True, exist_ok=True)
    (output_dir / "recipe.json").write_text(json.dumps(asdict(recipe), indent=2))
    done = load_checkpoint(last, optimizer, scheduler, average) if resume else 0
    shards = accelerator.num_processes
    loader = training_loader(recipe, data_dir, processor, max_steps, done, num_workers, shards)
    network, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    average.average = [tensor.to(accelerator.device) for tensor in average.average]

    def save(step: int) -> None:
        if accelerator.is_main_process:
            state = {"optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()}
            save_checkpoint(last, model, processor, average, state | {"step": step})

    started = saved = time.monotonic()
    bar = tqdm(loader, initial=done, total=max_steps, disable=not accelerator.is_main_process)
    network.train()
    for step, batch in enumerate(bar, done + 1):
        terms = training_step(accelerator, network, batch, optimizer, recipe.gradient_clip)
        scheduler.step()
        average.update(step)
        if accelerator.is_main_process and (step % 10 == 0 or step == max_steps):
            terms = {name: value.item() for name, value in terms.items()}
            write_log(log, {"step": step, "seconds": time.monotonic() - started, **terms})
            bar.set_postfix({k: f"{v:.3g}" for k, v in terms.items() if "_aux_" not in k})
        if step % evaluate_every == 0 and accelerator.is_main_process:
            network.eval()
            with average.applied():
                write_log(log, {"step": step, **evaluate()})
            network.train()
        if time.monotonic() - saved > 60 * checkpoint_minutes:
            save(step)
            saved = time.monotonic()
    save(max_steps)


def write_log(path: Path, entry: dict[str, float]) -> None:
    """Append a line of JSON."""
    with open(path, "a") as file:
        file.write(json.dumps(entry) + "\n")
