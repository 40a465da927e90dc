# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
import copy

import pytest
import torch
from torch import nn
from transformers import get_cosine_schedule_with_warmup

from proxyformer_hf.training.optimization import (
    average_weights,
    freeze_unused_parameters,
    learning_rate_schedule,
    parameter_groups,
)
from proxyformer_hf.training.recipe import OptimizerRecipe
from tests.tiny_model import TINY_TIMM, tiny_model


def test_groups_hold_each_trained_parameter_once():
    model = tiny_model(vision_config=TINY_TIMM, vision_neck_size=8, freeze_text=True)
    model.box_head.requires_grad_(False)
    groups = parameter_groups(model, OptimizerRecipe())
    grouped = [id(p) for group in groups for p in group["params"]]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == {id(p) for p in model.parameters() if p.requires_grad}


@pytest.mark.parametrize("fields", [{}, {"vision_config": TINY_TIMM, "vision_neck_size": 8}])
def test_parts_have_their_rates_and_only_matrices_decay(fields):
    model = tiny_model(grounding_map=True, lexical_words=True, **fields)
    recipe = OptimizerRecipe(
        learning_rate=3.0, vision_learning_rate=2.0, text_learning_rate=1.0, weight_decay=0.5
    )
    settings = {
        id(parameter): group
        for group in parameter_groups(model, recipe)
        for parameter in group["params"]
    }
    for name, parameter in model.named_parameters():
        group = settings[id(parameter)]
        vision = "video_encoder.backbone" in name or "video_encoder.neck" in name
        text = "text_encoder" in name
        assert group["lr"] == (2.0 if vision else 1.0 if text else 3.0), name
        assert group["name"] == ("vision" if vision else "text" if text else "heads")
        table = "embeddings" in name or "position_bias_table" in name or "proxy_queries" in name
        assert group["weight_decay"] == (0.5 if parameter.ndim > 1 and not table else 0.0), name
    assert any("proxy_queries" in name for name, _ in model.named_parameters())


def rates(recipe: OptimizerRecipe, num_steps: int, steps_per_epoch: float) -> list[float]:
    """Learning rate of each update."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(()))], lr=recipe.learning_rate)
    schedule = learning_rate_schedule(optimizer, recipe, num_steps, steps_per_epoch)
    found = []
    for _ in range(num_steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def test_multistep_drops_at_its_epochs():
    recipe = OptimizerRecipe(learning_rate=1.0, milestones=[4, 2], decay=0.1)
    assert rates(recipe, 15, 3) == pytest.approx([1.0] * 6 + [0.1] * 6 + [0.01] * 3)


def test_multistep_warms_up():
    recipe = OptimizerRecipe(learning_rate=1.0, milestones=[3], decay=0.5, warmup_steps=4)
    assert rates(recipe, 8, 2) == pytest.approx([0, 0.25, 0.5, 0.75, 1, 1, 0.5, 0.5])


def test_other_schedules_are_those_of_transformers():
    recipe = OptimizerRecipe(learning_rate=1.0, scheduler="cosine", warmup_steps=2)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(()))], lr=1.0)
    schedule = get_cosine_schedule_with_warmup(optimizer, 2, 6)
    expected = [schedule.lr_lambdas[0](step) for step in range(6)]
    assert rates(recipe, 6, 1) == pytest.approx(expected)


@pytest.mark.parametrize("name", OptimizerRecipe.__annotations__["scheduler"].__args__)
def test_every_schedule_starts_and_stays_in_range(name):
    found = rates(OptimizerRecipe(learning_rate=1.0, scheduler=name, warmup_steps=2), 9, 3)
    assert len(found) == 9 and 0 <= min(found) and max(found) == pytest.approx(1.0)


def test_average_follows_its_formula():
    model = nn.BatchNorm1d(1)
    average = average_weights(model, decay=0.5)
    weight = mean = 0.0
    for step, value in enumerate((3.0, 5.0, -2.0, 8.0)):
        with torch.no_grad():
            model.weight.fill_(value)
            model.running_mean.fill_(-value)
        model.num_batches_tracked.fill_(step)
        average.update_parameters(model)
        decay = min(0.5, (1 + step) / (10 + step)) if step else 0.0
        weight = decay * weight + (1 - decay) * value
        mean = decay * mean - (1 - decay) * value
    assert average.module.weight.item() == pytest.approx(weight)
    assert average.module.running_mean.item() == pytest.approx(mean)  # buffers too
    assert average.module.num_batches_tracked.item() == 3  # but counters are copied
    assert model.weight.item() == 8.0 and model.training and not average.module.training


def test_average_goes_on_from_its_state():
    model = nn.Linear(2, 2)
    average, resumed = average_weights(model, 0.9), average_weights(nn.Linear(2, 2), 0.9)
    average.update_parameters(model)
    resumed.load_state_dict(copy.deepcopy(average.state_dict()))
    with torch.no_grad():
        model.weight.add_(1.0)
    for each in (average, resumed):
        each.update_parameters(model)
    assert torch.equal(average.module.weight, resumed.module.weight)
    assert not torch.equal(average.module.weight, model.weight)


@pytest.mark.parametrize(
    ("fields", "unused"),
    [
        ({}, ()),
        ({"vision_config": TINY_TIMM, "grounding_map": True, "soft_selection": True}, ()),
        ({"bbox_loss_coefficient": 0, "giou_loss_coefficient": 0}, ("box_head.",)),
        ({"jsc_loss_coefficient": 0}, ("joint_projection.", "logit_scale")),
        ({"encoded_stride": 16}, ("model.video_encoder.backbone.",)),
        ({"interaction": "direct"}, ()),
        ({"interaction": "conditional", "jsc_semantics": "none"}, ()),
    ],
)
def test_what_is_not_frozen_has_a_gradient_in_every_step(fields, unused):
    model = tiny_model(**fields).train()
    random_state = torch.get_rng_state()
    frozen = freeze_unused_parameters(model)
    assert torch.equal(torch.get_rng_state(), random_state) and model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert {prefix for prefix in unused if any(n.startswith(prefix) for n in frozen)} == {*unused}
    assert all(name.startswith(unused) for name in frozen)

    labels = torch.zeros(4, 2, 32, 64)
    labels[1:, :, 8:20, 8:20] = 1  # the first object is nowhere
    for mask_labels in (labels, labels.zero_()):
        words = torch.randint(5, 20, (4, 3))
        output = model(torch.randn(2, 2, 3, 32, 64), words, mask_labels=mask_labels)
        output.loss.backward()
        trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
        assert [name for name, parameter in trained.items() if parameter.grad is None] == []
        model.zero_grad()
