# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""What is trained at which rate, how the rate changes, and the average of the weights."""

from bisect import bisect_right

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from torch.optim.swa_utils import AveragedModel
from transformers import get_scheduler

from ..modeling_proxyformer import ProxyFormerForReferringSegmentation
from .recipe import OptimizerRecipe

_PARTS = {  # prefix of a parameter's name -> the part of the model with a learning rate of its own
    "model.video_encoder.backbone.": "vision",
    "model.video_encoder.neck.": "vision",
    "model.text_encoder.": "text",
}
_DECAYED = (nn.Linear, nn.Conv2d, nn.Conv3d)


def freeze_unused_parameters(model: ProxyFormerForReferringSegmentation) -> list[str]:
    """Freezes what no loss term reads, such as the box head without box losses; returns the names.

    Which parameters these are depends on the configuration alone, so one step on a black clip
    finds them. DistributedDataParallel would wait for their gradients, and its way of looking for
    them costs time in every step. All processes have to call this; no random number is drawn.
    """
    training, device = model.training, model.device
    clip = torch.zeros(1, 2, 3, 64, 64, device=device)
    words = torch.zeros(1, 2, dtype=torch.long, device=device)
    labels = torch.ones(1, 2, 64, 64, dtype=torch.int8, device=device)
    model.eval()(pixel_values_videos=clip, input_ids=words, mask_labels=labels).loss.backward()
    unused = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    for name in unused:
        model.get_parameter(name).requires_grad_(False)
    model.zero_grad()
    model.train(training)
    return unused


def parameter_groups(model: nn.Module, recipe: OptimizerRecipe) -> list[dict]:
    """Trained parameters by part of the model ("name") and by weight decay.

    The vision part is the backbone with its neck, the text part the text encoder, the rest is
    "heads". The weights of linear and convolution layers decay; norms, biases, embeddings, position
    tables and the learned queries do not (the baseline decays everything, Mask2Former neither).
    """
    rates = {
        "heads": recipe.learning_rate,
        "vision": recipe.vision_learning_rate,
        "text": recipe.text_learning_rate,
    }
    decayed = {id(module.weight) for module in model.modules() if isinstance(module, _DECAYED)}
    groups: dict[tuple[str, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parts = (part for prefix, part in _PARTS.items() if name.startswith(prefix))
            key = (next(parts, "heads"), id(parameter) in decayed)
            groups.setdefault(key, []).append(parameter)
    return [
        {
            "name": part,
            "params": parameters,
            "lr": rates[part],
            "weight_decay": recipe.weight_decay if decays else 0.0,
        }
        for (part, decays), parameters in groups.items()
    ]


def learning_rate_schedule(
    optimizer: Optimizer, recipe: OptimizerRecipe, num_steps: int, steps_per_epoch: int
) -> LRScheduler:
    """Steps once per update. `num_steps` is the length of the run in updates."""
    if recipe.scheduler != "multistep":
        return get_scheduler(recipe.scheduler, optimizer, recipe.warmup_steps, num_steps)
    milestones = [round(epoch * steps_per_epoch) for epoch in sorted(recipe.milestones)]

    def factor(step: int) -> float:
        warmup = min(1.0, step / recipe.warmup_steps) if recipe.warmup_steps else 1.0
        return warmup * recipe.decay ** bisect_right(milestones, step)

    return LambdaLR(optimizer, factor)


def average_weights(model: nn.Module, decay: float) -> AveragedModel:
    """A copy of `model` that follows its weights and buffers as an exponential moving average.

    After n updates the decay is min(decay, (1 + n) / (10 + n)): the average forgets the start. To
    be made before accelerate prepares the model, which ties `forward` to the original.
    """

    @torch.no_grad()
    def move(averages: list[Tensor], values: list[Tensor], num_averaged: Tensor) -> None:
        if not averages[0].is_floating_point():  # counters and indices
            torch._foreach_copy_(averages, values)
            return
        n = num_averaged.item()
        torch._foreach_lerp_(averages, values, 1 - min(decay, (1 + n) / (10 + n)))

    average = AveragedModel(model, multi_avg_fn=move, use_buffers=True)
    return average.requires_grad_(False).eval()
