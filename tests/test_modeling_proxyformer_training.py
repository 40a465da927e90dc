# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""What a training step costs and how it may be run: memory, precision, checkpointing, compiling."""

import re
from collections import Counter
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from proxyformer_hf.configuration_video_swin import VideoSwinConfig
from proxyformer_hf.modeling_proxyformer import ProxyFormerForReferringSegmentation
from tests.tiny_model import VOCABULARY, perturb, tiny_model, tiny_swin

VIDEOS, FRAMES, HEIGHT, WIDTH = 2, 3, 64, 96
ALL_TERMS = {"grounding_map": True, "soft_selection": True, "num_hidden_layers": 2}


def make_batch() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    masks = torch.zeros(VIDEOS, FRAMES, HEIGHT, WIDTH)
    masks[:, :, 8:40, 16:60] = 1
    return {
        "pixel_values_videos": torch.randn(VIDEOS, FRAMES, 3, HEIGHT, WIDTH, generator=generator),
        "input_ids": torch.randint(5, len(VOCABULARY), (VIDEOS, 4), generator=generator),
        "mask_labels": masks,
    }


def training_step(model: ProxyFormerForReferringSegmentation) -> dict[str, Tensor]:
    """Loss and gradients, by name; dropout and stochastic depth draw the same numbers each time."""
    torch.manual_seed(0)
    model.zero_grad()
    loss = model(**make_batch()).loss
    loss.backward()
    trained = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    return {"loss": loss.detach(), **trained}


@pytest.mark.parametrize("weight", [1.0, 8.0])
def test_what_other_expressions_of_a_video_describe_weighs_more(weight):
    """Against the two videos with one expression each, whose masks are each other's."""
    model = perturb(tiny_model(**ALL_TERMS, confusable_weight=weight)).eval()
    batch = make_batch()
    batch["mask_labels"][1] = batch["mask_labels"][1].flip(-1)
    one = batch["pixel_values_videos"][:1]
    batch["pixel_values_videos"] = one.repeat(2, 1, 1, 1, 1)
    alone = model(**batch).loss_dict
    together = model(**{**batch, "pixel_values_videos": one}).loss_dict
    for name in ("loss_mask", "loss_selection", "loss_grounding"):
        changes = weight != 1 and name != "loss_mask"
        assert changes != torch.allclose(alone[name], together[name], atol=1e-5), name


MASK_LOSSES = ("aten.binary_cross_entropy_with_logits.default", "aten.sigmoid.default")


class Recorder(TorchDispatchMode):
    """Sees the result of every operation, backward pass included.

    Attributes:
        largest: elements of the largest tensor that was stored.
        loss_dtypes: of what cross-entropies and sigmoids of masks gave.
    """

    def __init__(self):
        super().__init__()
        self.largest, self.loss_dtypes = 0, set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        outputs = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(outputs):
            if isinstance(tensor, Tensor):
                size = tensor.untyped_storage().nbytes() // tensor.element_size()
                self.largest = max(self.largest, size)
                if str(func) in MASK_LOSSES and tensor.shape[-2:] == (HEIGHT // 4, WIDTH // 4):
                    self.loss_dtypes.add(tensor.dtype)
        return outputs


@pytest.mark.parametrize("autocast", [False, True])
def test_mask_losses_are_taken_at_stride_4_in_float32(autocast):
    """So many proxies that their masks at stride 4 are the largest tensor of a step."""
    num_queries = 100
    model = tiny_model(num_queries=num_queries, **ALL_TERMS).train()
    with Recorder() as recorder, torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        training_step(model)
    masks = VIDEOS * FRAMES * num_queries * HEIGHT * WIDTH
    assert recorder.largest == masks // 16
    assert recorder.loss_dtypes == {torch.float32}


def deep_model(**fields) -> ProxyFormerForReferringSegmentation:
    """Of two layers where there can be several; their activations outweigh those of the heads."""
    swin = VideoSwinConfig(
        embed_dim=16, depths=(2, 2, 2, 2), num_heads=(2, 2, 2, 2), window_size=(2, 2, 2)
    )
    return tiny_model(vision_config=swin, num_hidden_layers=2, **fields)


def saved_bytes(model: ProxyFormerForReferringSegmentation) -> int:
    """Of the activations kept for the backward pass, each counted once."""
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    kept = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        outputs = model(**make_batch())  # alive while counting, so that no address is used twice
    del outputs
    return sum(kept.values())


def linear_calls(model: ProxyFormerForReferringSegmentation) -> Counter:
    """How often a training step, backward pass included, runs each linear map."""
    calls, hooks = Counter(), []
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            count = partial(calls.update, [name])
            hooks.append(module.register_forward_pre_hook(lambda *_, count=count: count()))
    training_step(model)
    for hook in hooks:
        hook.remove()
    return calls


@pytest.mark.parametrize(
    "fields",
    [
        *({"interaction": name} for name in ("decoupled", "full", "direct", "conditional")),
        {"freeze_text": True},
    ],
    ids=lambda fields: "-".join(map(str, fields.values())),
)
def test_activation_checkpointing_saves_memory_and_changes_nothing(fields):
    model = perturb(deep_model(**fields)).train()
    expected, whole, calls = training_step(model), saved_bytes(model), linear_calls(model)
    model.activation_checkpointing_enable()
    torch.testing.assert_close(training_step(model), expected)
    assert saved_bytes(model) < 0.3 * whole
    again = linear_calls(model) - calls
    layers = {name for name in calls if re.search(r"(encoder|stages\.\d)\.\w*layers?\.\d", name)}
    if model.config.freeze_text:
        layers -= {name for name in layers if "text_encoder" in name}
    assert {*again} == layers


def test_frozen_text_gets_no_gradient():
    model = tiny_model(freeze_text=True).train()
    step = training_step(model)
    assert not any("text_encoder" in name for name in step)
    assert all(weight.grad is None for weight in model.model.text_encoder.parameters())
    assert step["model.text_projection.0.weight"].abs().max() > 0


def test_compiled_training_step_is_one_graph_with_equal_loss_and_gradients():
    """Without generated code: whether the graph is whole shows before the back end's turn."""
    torch.compiler.reset()
    vision = {"vision_config": tiny_swin(num_stages=2), "encoded_stride": 8}
    model = tiny_model(grounding_map=True, soft_selection=True, **vision)
    expected = training_step(model)
    model.compile(backend="aot_eager", dynamic=False, fullgraph=True)
    torch.testing.assert_close(training_step(model), expected, atol=1e-5, rtol=1e-5)
