# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
import copy
from functools import partial

import pytest
import torch
from torch import nn
from torchvision.models.video import swin3d_b, swin3d_s, swin3d_t
from torchvision.models.video.swin_transformer import PatchEmbed3d

from proxyformer_hf.configuration_video_swin import VideoSwinConfig
from proxyformer_hf.modeling_video_swin import (
    VideoSwinBackbone,
    VideoSwinDropPath,
    VideoSwinWindowGeometry,
    video_swin_from_original,
)

SMALL = {"embed_dim": 8, "depths": (2, 1), "num_heads": (2, 4), "window_size": (2, 3, 3)}


def small_backbone(**kwargs) -> VideoSwinBackbone:
    """Two stages with a shifted layer, and biases and norms far from their initial values."""
    torch.manual_seed(0)
    return perturb(VideoSwinBackbone(VideoSwinConfig(**{**SMALL, **kwargs}))).eval()


def perturb(model: nn.Module) -> nn.Module:
    """Adds noise to all weights, much to the bias tables, so that a wrong entry shows."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            scale = 0.5 if name.endswith("relative_position_bias_table") else 0.05
            weight.add_(scale * torch.randn_like(weight))
    return model


def torchvision_stages(model: nn.Module, videos: torch.Tensor) -> list[torch.Tensor]:
    """The raw stage outputs (B,T,C,H,W) of a torchvision swin3d, with T preserved.

    torchvision's patches span two frames. Ours span one, with the embedding summed over time, so
    torchvision's own patch embedding of depth 1 is given that sum; its stages stay as they are.
    """
    weights = model.patch_embed.state_dict()
    weights["proj.weight"] = weights["proj.weight"].sum(dim=2, keepdim=True)
    norm = partial(nn.LayerNorm, eps=1e-5)
    embed = PatchEmbed3d([1, 4, 4], embed_dim=len(weights["proj.bias"]), norm_layer=norm)
    embed.load_state_dict(weights)
    hidden_states = embed(videos.transpose(1, 2))
    stages = []
    for index, module in enumerate(model.features):
        hidden_states = module(hidden_states)
        if index % 2 == 0:
            stages.append(hidden_states.permute(0, 1, 4, 2, 3))
    return stages


@pytest.fixture(scope="module")
def tiny_pair() -> tuple[nn.Module, VideoSwinBackbone]:
    torch.manual_seed(0)
    original = perturb(swin3d_t()).eval()
    return original, video_swin_from_original(original.state_dict()).eval()


@torch.no_grad()
def assert_equals_torchvision(original: nn.Module, model: VideoSwinBackbone, shape: tuple):
    torch.manual_seed(1)
    batch, frames, height, width = shape
    videos = torch.randn(batch, frames, 3, height, width)
    maps = model(videos).feature_maps
    for index, (ours, theirs) in enumerate(
        zip(maps, torchvision_stages(original, videos), strict=True)
    ):
        stride = 4 * 2**index
        assert ours.shape[1] == frames
        assert ours.shape[-2:] == (-(-height // stride), -(-width // stride))
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "shape",
    [
        (1, 1, 237, 150),  # one frame, shifted in space in all stages
        (2, 5, 60, 70),  # a window shrunk in time
        (1, 8, 64, 64),  # a whole window of frames, no shift in time
        (1, 9, 61, 75),  # padded and shifted in time
        (1, 19, 48, 37),
        (1, 3, 16, 20),  # windows larger than the map in all axes
    ],
)
def test_tiny_stages_equal_torchvision(tiny_pair, shape):
    assert_equals_torchvision(*tiny_pair, shape)


@pytest.mark.parametrize("build, preset", [(swin3d_s, "small"), (swin3d_b, "base")])
def test_small_and_base_stages_equal_torchvision(build, preset):
    torch.manual_seed(0)
    original = perturb(build()).eval()
    model = video_swin_from_original(original.state_dict()).eval()
    expected = VideoSwinConfig.from_preset(preset)
    assert model.config.embed_dim == expected.embed_dim
    for field in ("depths", "num_heads", "window_size"):
        assert tuple(getattr(model.config, field)) == getattr(expected, field)
    assert_equals_torchvision(original, model, (1, 9, 61, 75))


@torch.no_grad()
def test_a_video_smaller_than_a_patch_has_one_position():
    maps = small_backbone()(torch.randn(1, 1, 3, 1, 1)).feature_maps
    assert [tuple(feature_map.shape) for feature_map in maps] == [(1, 1, 8, 1, 1), (1, 1, 16, 1, 1)]


@torch.no_grad()
def test_videos_of_a_batch_do_not_see_each_other():
    model, videos = small_backbone(), torch.randn(2, 5, 3, 40, 28)
    for together, alone in zip(
        model(videos).feature_maps, model(videos[1:]).feature_maps, strict=True
    ):
        torch.testing.assert_close(together[1:], alone, atol=1e-5, rtol=0)


@torch.no_grad()
def test_selected_stages_are_returned_raw():
    model, videos = small_backbone(), torch.randn(1, 2, 3, 24, 24)
    outputs = model(videos, output_hidden_states=True)
    assert len(outputs.hidden_states) == 3
    for hidden_state, feature_map in zip(
        outputs.hidden_states[1:], outputs.feature_maps, strict=True
    ):
        assert torch.equal(hidden_state.permute(0, 1, 4, 2, 3), feature_map)
    model.out_features = ["stem", "stage2"]
    selected = model(videos).feature_maps
    assert torch.equal(selected[0], outputs.hidden_states[0].permute(0, 1, 4, 2, 3))
    assert torch.equal(selected[1], outputs.feature_maps[1])
    assert model.channels == [8, 16]


@torch.no_grad()
def test_eager_attention_equals_sdpa_and_returns_weights():
    model, videos = small_backbone(), torch.randn(2, 3, 3, 40, 28)
    expected = model(videos).feature_maps
    model.set_attn_implementation("eager")
    outputs = model(videos, output_attentions=True)
    for ours, theirs in zip(outputs.feature_maps, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    # 3x10x7 patches in 2x4x3 windows of 18 tokens, then 3x5x4 in 2x2x2.
    shapes = [tuple(weights.shape) for weights in outputs.attentions]
    assert shapes == [(2, 24, 2, 18, 18), (2, 24, 2, 18, 18), (2, 8, 4, 18, 18)]
    for weights in outputs.attentions:
        torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]))


@torch.no_grad()
def test_shifted_windows_do_not_attend_across_the_seam():
    model = small_backbone(depths=(2,), num_heads=(2,))
    model.set_attn_implementation("eager")
    shifted = model(torch.randn(1, 4, 3, 24, 24), output_attentions=True).attentions[1]
    # 4x6x6 patches: along each axis the last window is half shifted in from the other end.
    labels = torch.tensor([0] * 3 + [1, 1, 2])
    regions = torch.stack(
        torch.meshgrid(torch.tensor([0, 0, 1, 2]), labels, labels, indexing="ij"), dim=-1
    )
    regions = regions.view(2, 2, 2, 3, 2, 3, 3).permute(0, 2, 4, 1, 3, 5, 6).reshape(8, 18, 3)
    together = (regions[:, :, None] == regions[:, None]).all(-1)
    assert torch.equal(shifted[0] > 1e-30, together[:, None].expand_as(shifted[0]))


@torch.no_grad()
def test_window_geometry_is_computed_once(monkeypatch):
    model = small_backbone()
    for method in ("make_index", "make_seam_mask"):
        monkeypatch.delattr(VideoSwinWindowGeometry, method)
    for size in ((1, 24, 24), (5, 40, 28)):
        model(torch.randn(1, size[0], 3, *size[1:]))
    assert not any("geometry" in key for key in model.state_dict())


def test_drop_path_drops_whole_videos_and_keeps_the_mean():
    torch.manual_seed(0)
    drop_path = VideoSwinDropPath(0.25)
    hidden_states = torch.ones(4000, 1, 2, 1, 1)
    dropped = drop_path(hidden_states)
    assert set(dropped.unique().tolist()) == {0.0, torch.tensor(1 / 0.75).item()}
    assert torch.equal(dropped[:, :, :1], dropped[:, :, 1:])
    assert abs(dropped.mean().item() - 1) < 0.03
    assert torch.equal(drop_path.eval()(hidden_states), hidden_states)


def test_drop_path_grows_linearly_with_depth():
    model = VideoSwinBackbone(VideoSwinConfig(**{**SMALL, "depths": (2, 3)}, drop_path_rate=0.2))
    rates = [m.rate for m in model.modules() if isinstance(m, VideoSwinDropPath)]
    assert rates == pytest.approx([0.0, 0.05, 0.1, 0.15, 0.2])


def gradients(model: VideoSwinBackbone, videos: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    torch.manual_seed(0)
    sum(feature_map.square().mean() for feature_map in model(videos).feature_maps).backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters()}


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_gradient_checkpointing_gives_the_same_gradients(use_reentrant):
    model, videos = small_backbone().train(), torch.randn(2, 3, 3, 28, 24)
    expected = gradients(model, videos)
    model.activation_checkpointing_enable(
        activation_checkpointing_kwargs={"use_reentrant": use_reentrant}
    )
    checkpointed = gradients(model, videos.requires_grad_())
    assert all(weight.abs().sum() > 0 for weight in expected.values())
    for name, weight in checkpointed.items():
        torch.testing.assert_close(weight, expected[name], atol=1e-6, rtol=1e-4, msg=name)


@torch.no_grad()
def test_compiled_without_graph_breaks_equals_eager():
    model, videos = small_backbone(), torch.randn(1, 3, 3, 28, 24)
    # This backend traces and functionalises as the default does, without its minutes of C++.
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for ours, theirs in zip(compiled(videos).feature_maps, model(videos).feature_maps, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


@torch.no_grad()
def test_exported_equals_eager():
    model, videos = small_backbone(), torch.randn(1, 3, 3, 28, 24)
    exported = torch.export.export(model, (videos,)).module()
    for ours, theirs in zip(exported(videos).feature_maps, model(videos).feature_maps, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)
    # The traced masks must not have leaked into the model.
    model(videos)


@torch.no_grad()
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_bfloat16_autocast_is_close_to_float32(attention):
    model, videos = small_backbone(), torch.randn(1, 3, 3, 28, 24)
    model.set_attn_implementation(attention)
    expected = model(videos).feature_maps
    with torch.autocast("cpu", torch.bfloat16):
        maps = model(videos).feature_maps
    for ours, theirs in zip(maps, expected, strict=True):
        assert (ours - theirs).norm() < 2e-2 * theirs.norm()


@torch.no_grad()
def test_a_copy_and_a_reloaded_model_give_the_same_maps(tmp_path):
    model, videos = small_backbone(), torch.randn(1, 3, 3, 28, 24)
    model.save_pretrained(tmp_path)
    reloaded = VideoSwinBackbone.from_pretrained(tmp_path)
    for other in (copy.deepcopy(model), reloaded):
        for ours, theirs in zip(
            other(videos).feature_maps, model(videos).feature_maps, strict=True
        ):
            assert torch.equal(ours, theirs)
    assert reloaded.config.to_dict()["out_features"] == ["stage1", "stage2"]


@pytest.mark.parametrize("shape", [(3, 2, 24, 24), (1, 2, 4, 24, 24), (1, 0, 3, 24, 24)])
def test_a_wrong_video_shape_is_named(shape):
    with pytest.raises(ValueError, match="pixel_values_videos.*3, height, width"):
        small_backbone()(torch.zeros(shape))
