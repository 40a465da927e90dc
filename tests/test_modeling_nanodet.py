# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoBackbone, AutoConfig

from proxyformer_hf.configuration_nanodet import NanoDetConfig
from proxyformer_hf.modeling_nanodet import NanoDetBackbone

NAMES = {0: "cat", 1: "red car", 2: "b"}
SMALL = {"stem_size": 4, "neck_size": 6, "depths": [1, 2, 1, 3], "reg_max": 2, "id2label": NAMES}
DEPTHS = [[1, 2, 1, 3], [2, 1, 3]]
SIZES = [(64, 96), (32, 32), (61, 75), (33, 160), (1, 1)]


def small_backbone(**fields) -> NanoDetBackbone:
    """Of random weights that keep the size of what they are given, so that all of them show."""
    torch.manual_seed(0)
    model = NanoDetBackbone(NanoDetConfig(**{**SMALL, **fields})).eval()
    with torch.no_grad():
        for weight in model.parameters():
            scale = 0.1 if weight.ndim == 1 else math.sqrt(2 / weight[0].numel())
            weight.normal_(std=scale)
    return model


def reference(model: NanoDetBackbone, pixels: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Maps of strides 4 on and class logits of strides 8 on, by functions alone.

    The structure is that of NanoDet's nanodet-g.yml: CustomCspNet, PAN and NanoDetHead.
    """
    weights = model.state_dict()

    def conv(name: str, hidden: Tensor, stride: int = 1) -> Tensor:
        weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
        return F.conv2d(hidden, weight, bias, stride, padding=weight.shape[-1] // 2)

    def active(name: str, hidden: Tensor, stride: int = 1) -> Tensor:
        return F.leaky_relu(conv(name, hidden, stride), 0.1)

    def like(hidden: Tensor, other: Tensor) -> Tensor:
        return F.interpolate(hidden, other.shape[-2:], mode="bilinear", align_corners=False)

    hidden = F.max_pool2d(active("stem", pixels, stride=2), 3, stride=2, padding=1)
    stages = []
    for stage, depth in enumerate(model.config.depths):
        name = f"stages.{stage}"
        short = hidden = active(f"{name}.in_conv", hidden, stride=1 if stage == 0 else 2)
        for block in range(depth):
            half = active(f"{name}.blocks.{block}.in_conv", hidden)
            hidden = torch.cat((active(f"{name}.blocks.{block}.mid_conv", half), half), dim=1)
        hidden = torch.cat((active(f"{name}.out_conv", hidden), short), dim=1)
        stages.append(hidden)
    fine, middle, *coarse = (conv(f"laterals.{i}", m) for i, m in enumerate(stages[1:]))
    if coarse:
        middle = middle + like(coarse[0], middle)
    fine = fine + like(middle, fine)
    middle = middle + like(fine, middle)
    if coarse:
        coarse = [coarse[0] + like(middle, coarse[0])]
    necks = [fine, middle, *coarse]
    logits = [
        conv(f"heads.{i}.output", active(f"heads.{i}.conv", neck))[:, : model.config.num_labels]
        for i, neck in enumerate(necks)
    ]
    joined = [torch.cat(pair, 1) for pair in zip(stages[1:], necks, strict=True)]
    return [stages[0], *joined], logits


@pytest.mark.parametrize("depths", DEPTHS)
@pytest.mark.parametrize("size", SIZES)
@torch.no_grad()
def test_maps_and_classes_equal_the_published_structure(size, depths):
    model, pixels = small_backbone(depths=depths), torch.randn(2, 3, *size)
    maps, logits = reference(model, pixels)
    outputs = model(pixels)
    for ours, expected in zip(outputs.feature_maps, maps, strict=True):
        assert expected.std() > 0.1 or size == (1, 1)
        torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)
    for ours, expected in zip(outputs.class_maps, logits, strict=True):
        torch.testing.assert_close(ours, expected.sigmoid(), atol=1e-5, rtol=0)
        assert expected.abs().min() < 1  # where a sigmoid tells one logit from another


@pytest.mark.parametrize("size", SIZES)
@torch.no_grad()
def test_maps_have_the_strides_and_channels_that_they_promise(size):
    model = small_backbone()
    outputs = model(torch.randn(2, 3, *size))
    assert model.channels == [8, 16 + 6, 32 + 6, 64 + 6]
    for channels, stride, features in zip(
        model.channels, (4, 8, 16, 32), outputs.feature_maps, strict=True
    ):
        assert features.shape == (2, channels, *(math.ceil(length / stride) for length in size))


@pytest.mark.parametrize("size", SIZES)
@torch.no_grad()
def test_class_maps_are_probabilities_at_strides_8_16_and_32(size):
    class_maps = small_backbone()(torch.randn(2, 3, *size)).class_maps
    for stride, probabilities in zip((8, 16, 32), class_maps, strict=True):
        assert probabilities.shape == (2, 3, *(math.ceil(length / stride) for length in size))
        assert probabilities.min() >= 0 and probabilities.max() <= 1


def test_the_default_is_as_large_as_published():
    model = NanoDetBackbone(NanoDetConfig(num_labels=80))
    assert round(sum(weight.numel() for weight in model.parameters()) / 1e6, 1) == 3.8
    assert model.channels == [64, 128 + 128, 256 + 128, 512 + 128]


@torch.no_grad()
def test_frames_of_a_batch_do_not_see_each_other():
    model, pixels = small_backbone(), torch.randn(2, 3, 64, 32)
    together, alone = model(pixels), model(pixels[1:])
    for name in ("feature_maps", "class_maps"):
        for ours, expected in zip(together[name], alone[name], strict=True):
            torch.testing.assert_close(ours[1:], expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_selected_maps_are_those_of_all():
    model, pixels = small_backbone(out_indices=[0, 1, 2, 3, 4]), torch.randn(1, 3, 64, 32)
    outputs = model(pixels)
    stem = F.leaky_relu(F.conv2d(pixels, model.stem.weight, model.stem.bias, 2, padding=1), 0.1)
    torch.testing.assert_close(outputs.feature_maps[0], F.max_pool2d(stem, 3, 2, padding=1))
    model.out_features = ["stem", "stage3"]
    selected = model(pixels)
    assert model.channels == [4, 32 + 6]
    for ours, index in zip(selected.feature_maps, (0, 3), strict=True):
        assert torch.equal(ours, outputs.feature_maps[index])
    for ours, expected in zip(selected.class_maps, outputs.class_maps, strict=True):
        assert torch.equal(ours, expected)


@torch.no_grad()
def test_compiled_without_graph_breaks_equals_eager():
    model, pixels = small_backbone(), torch.randn(1, 3, 64, 32)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")(pixels)
    for ours, expected in zip(compiled.class_maps, model(pixels).class_maps, strict=True):
        torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)


def test_auto_classes_know_it():
    config = AutoConfig.for_model("nanodet", **SMALL)
    assert type(config) is NanoDetConfig
    assert type(AutoBackbone.from_config(config)) is NanoDetBackbone


@torch.no_grad()
def test_a_copy_and_a_reloaded_model_give_the_same_maps(tmp_path):
    model, pixels = small_backbone(), torch.randn(1, 3, 40, 72)
    model.save_pretrained(tmp_path)
    reloaded = NanoDetBackbone.from_pretrained(tmp_path)
    assert not reloaded.training
    assert reloaded.config.id2label == NAMES
    assert reloaded.out_features == ["stage1", "stage2", "stage3", "stage4"]
    expected = model(pixels)
    for other in (copy.deepcopy(model), reloaded):
        for name in ("feature_maps", "class_maps"):
            for ours, theirs in zip(other(pixels)[name], expected[name], strict=True):
                assert torch.equal(ours, theirs)


@pytest.mark.parametrize("shape", [(3, 24, 24), (1, 2, 3, 24, 24), (1, 4, 24, 24), (0, 3, 8, 8)])
def test_a_wrong_image_shape_is_named(shape):
    with pytest.raises(ValueError, match="pixel_values.*3, height, width"):
        small_backbone()(torch.zeros(shape))
