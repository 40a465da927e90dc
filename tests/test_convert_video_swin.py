# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
import runpy
from pathlib import Path

import pytest
import torch
import typer
from torchvision.models.video.swin_transformer import SwinTransformer3d
from typer.testing import CliRunner

from proxyformer_hf.modeling_video_swin import (
    VideoSwinBackbone,
    read_original_video_swin,
    video_swin_from_original,
)

SCRIPT = Path(__file__).parents[1] / "scripts" / "convert_video_swin.py"


@pytest.fixture
def torchvision_weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    model = SwinTransformer3d(
        [2, 4, 4], embed_dim=8, depths=[2, 1], num_heads=[2, 4], window_size=[8, 7, 7]
    )
    return {
        key: torch.randn_like(w) if w.is_floating_point() else w
        for key, w in model.state_dict().items()
    }


def official_weights(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same model by the names of the official repository's action recognisers."""
    names = {
        "features.0.0.": "layers.0.blocks.0.",
        "features.0.1.": "layers.0.blocks.1.",
        "features.1.": "layers.0.downsample.",
        "features.2.0.": "layers.1.blocks.0.",
        "mlp.0.": "mlp.fc1.",
        "mlp.3.": "mlp.fc2.",
        "head.": "cls_head.fc_cls.",
    }
    official = {}
    for key, weight in weights.items():
        for old, new in names.items():
            key = key.replace(old, new)
        official[key if key.startswith("cls_head.") else f"backbone.{key}"] = weight
    return official


def convert(*arguments: object):
    app = typer.Typer()
    app.command()(runpy.run_path(str(SCRIPT))["main"])
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def message(result) -> str:
    """The error without the box and the line breaks that typer draws."""
    assert result.exit_code == 2
    return " ".join(result.output.replace("│", " ").split())


def assert_same_weights(first: VideoSwinBackbone, second: VideoSwinBackbone):
    second_weights = second.state_dict()
    assert first.state_dict().keys() == second_weights.keys()
    for key, weight in first.state_dict().items():
        assert torch.equal(weight, second_weights[key]), key


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_torchvision_file_round_trips_through_a_folder(tmp_path, torchvision_weights, wrapped):
    checkpoint = {"state_dict": torchvision_weights} if wrapped else torchvision_weights
    torch.save(checkpoint, tmp_path / "swin.pth")
    result = convert(tmp_path / "swin.pth", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "config.json",
        "model.safetensors",
    }
    reloaded = VideoSwinBackbone.from_pretrained(tmp_path / "out")
    assert list(reloaded.config.depths) == [2, 1]
    assert_same_weights(reloaded, video_swin_from_original(torchvision_weights))


def test_every_weight_arrives_where_it_belongs(torchvision_weights):
    model = video_swin_from_original(torchvision_weights)
    weights, block = torchvision_weights, model.stages[0].layers[1]
    for ours, theirs in {
        model.patch_embed.projection.bias: "patch_embed.proj.bias",
        model.patch_embed.norm.weight: "patch_embed.norm.weight",
        block.norm1.weight: "features.0.1.norm1.weight",
        block.attention.qkv.weight: "features.0.1.attn.qkv.weight",
        block.attention.proj.weight: "features.0.1.attn.proj.weight",
        block.attention.relative_position_bias_table: (
            "features.0.1.attn.relative_position_bias_table"
        ),
        block.norm2.bias: "features.0.1.norm2.bias",
        block.mlp.fc1.weight: "features.0.1.mlp.0.weight",
        block.mlp.fc2.weight: "features.0.1.mlp.3.weight",
        model.stages[1].merging.norm.weight: "features.1.norm.weight",
        model.stages[1].merging.reduction.weight: "features.1.reduction.weight",
        model.stages[1].layers[0].mlp.fc1.bias: "features.2.0.mlp.0.bias",
    }.items():
        assert torch.equal(ours, weights[theirs]), theirs


def test_official_names_give_the_same_model(tmp_path, torchvision_weights):
    checkpoint = {"meta": {"epoch": 30}, "state_dict": official_weights(torchvision_weights)}
    torch.save(checkpoint, tmp_path / "official.pth")
    official = video_swin_from_original(read_original_video_swin(tmp_path / "official.pth"))
    assert_same_weights(official, video_swin_from_original(torchvision_weights))


@torch.no_grad()
def test_a_frame_embeds_as_the_original_embeds_it_shown_twice(torchvision_weights):
    weights = torchvision_weights
    frame = torch.randn(1, 3, 1, 8, 12)
    original = torch.nn.functional.conv3d(
        frame.repeat(1, 1, 2, 1, 1),
        weights["patch_embed.proj.weight"],
        weights["patch_embed.proj.bias"],
        stride=(2, 4, 4),
    )
    projection = video_swin_from_original(weights).patch_embed.projection
    torch.testing.assert_close(projection(frame[:, :, 0]), original[:, :, 0], atol=1e-4, rtol=0)


def test_a_window_of_another_size_is_converted(torchvision_weights):
    # Something-Something's checkpoints have windows of 16 frames.
    weights = torchvision_weights | {
        key: torch.randn(31 * 13 * 13, weight.shape[1])
        for key, weight in torchvision_weights.items()
        if key.endswith("relative_position_bias_table")
    }
    with pytest.raises(ValueError, match=r"\(5239, 2\) instead of \(2535, 2\)"):
        video_swin_from_original(weights)
    model = video_swin_from_original(weights, window_size=(16, 7, 7))
    table = model.stages[0].layers[0].attention.relative_position_bias_table
    assert torch.equal(table, weights["features.0.0.attn.relative_position_bias_table"])


def test_all_weights_that_do_not_fit_are_named_at_once(tmp_path, torchvision_weights):
    weights = dict(torchvision_weights)
    del weights["features.0.1.norm2.bias"]
    weights["features.0.1.attn.extra"] = torch.zeros(1)
    weights["features.2.0.mlp.0.bias"] = torch.zeros(5)
    torch.save(weights, tmp_path / "broken.pth")
    text = message(convert(tmp_path / "broken.pth", tmp_path / "out"))
    assert "missing stages.0.layers.1.norm2.bias" in text
    assert "unexpected stages.0.layers.1.attention.extra" in text
    assert "stages.1.layers.0.mlp.fc1.bias of shape (5,) instead of (64,)" in text
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "name, content, expected",
    [
        ("absent.pth", None, "neither a file nor the name of torchvision weights"),
        ("text.pth", "hello", "not a PyTorch checkpoint of plain tensors"),
        ("empty.pth", "", "not a PyTorch checkpoint of plain tensors"),
    ],
)
def test_an_unreadable_file_is_named(tmp_path, name, content, expected):
    if content is not None:
        (tmp_path / name).write_text(content)
    text = message(convert(tmp_path / name, tmp_path / "out"))
    assert name in text.replace(" ", "") and expected in text


def test_a_file_that_would_run_code_is_refused(tmp_path):
    torch.save({"state_dict": Path("anything")}, tmp_path / "code.pth")
    with pytest.raises(ValueError, match="plain tensors"):
        read_original_video_swin(tmp_path / "code.pth")


def test_weights_of_another_model_are_refused(tmp_path):
    torch.save({"fc.weight": torch.zeros(2, 2)}, tmp_path / "other.pth")
    text = message(convert(tmp_path / "other.pth", tmp_path / "out"))
    assert "not Video Swin weights" in text and "patch_embed.projection.weight" in text


def test_torchvision_weights_are_found_by_name(monkeypatch, torchvision_weights):
    from torchvision.models.video import Swin3D_T_Weights

    monkeypatch.setattr(
        Swin3D_T_Weights, "get_state_dict", lambda self, **kwargs: torchvision_weights
    )
    weights = read_original_video_swin("Swin3D_T_Weights.KINETICS400_V1")
    assert weights is torchvision_weights
