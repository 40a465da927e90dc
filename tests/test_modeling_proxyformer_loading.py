# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""Saving, loading, and building ProxyFormer around pretrained backbones, all without a network."""

import shutil
from types import SimpleNamespace

import pytest
import timm
import torch
import torchvision
from huggingface_hub import ModelCard
from safetensors import safe_open
from torch import nn
from torchvision.models.video import SwinTransformer3d
from transformers import BertConfig, BertModel
from transformers.utils import hub

from proxyformer_hf.modeling_proxyformer import (
    ProxyFormerForReferringSegmentation,
    ProxyFormerModel,
)
from proxyformer_hf.modeling_video_swin import VideoSwinBackbone, video_swin_from_original
from tests.tiny_model import (
    TINY_TEXT,
    TINY_TIMM,
    perturb,
    tiny_config,
    tiny_model,
    tiny_swin,
)

VIDEOS = torch.linspace(-2, 2, 2 * 3 * 3 * 32 * 64).view(2, 3, 3, 32, 64)
WORDS = torch.arange(5, 13).view(2, 4)


@torch.no_grad()
def test_checkpoint_in_float16_loads_in_either_precision(tmp_path):
    model = perturb(tiny_model(grounding_map=True))
    expected = model(VIDEOS, WORDS)
    model.half().save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert {file.get_slice(name).get_dtype() for name in file.keys()} == {"F16"}  # noqa: SIM118
    for dtype in (torch.float16, torch.float32):
        loaded = ProxyFormerForReferringSegmentation.from_pretrained(tmp_path, dtype=dtype)
        assert {weight.dtype for weight in loaded.parameters()} == {dtype}
        for weight, saved in zip(loaded.parameters(), model.parameters(), strict=True):
            assert torch.equal(weight.half(), saved)
    # the last one runs in float32 again, on rounded weights
    outputs = loaded(VIDEOS, WORDS)
    torch.testing.assert_close(
        outputs.referred_masks, expected.referred_masks, atol=0.05, rtol=0.05
    )


@pytest.mark.parametrize("vision", [tiny_swin(), TINY_TIMM], ids=["video_swin", "timm"])
@torch.no_grad()
def test_round_trip_is_exact(tmp_path, vision):
    model = perturb(tiny_model(vision_config=vision))
    model.save_pretrained(tmp_path)
    loaded = ProxyFormerForReferringSegmentation.from_pretrained(tmp_path)
    assert not loaded.training
    assert torch.equal(loaded(VIDEOS, WORDS).pred_masks, model(VIDEOS, WORDS).pred_masks)


def test_a_loaded_frozen_text_encoder_stays_frozen(tmp_path):
    tiny_model(freeze_text=True).save_pretrained(tmp_path)
    model = ProxyFormerForReferringSegmentation.from_pretrained(tmp_path).train().model
    assert not any(weight.requires_grad for weight in model.text_encoder.parameters())
    assert all(weight.requires_grad for weight in model.text_projection.parameters())
    assert model.text_projection.training and not model.text_encoder.training


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, str]:
    """A Video Swin and a Bert in float16, each alone in a folder."""
    torch.manual_seed(4)
    backbones = {
        "vision": VideoSwinBackbone(tiny_swin()),
        "text": BertModel(BertConfig(**TINY_TEXT)),
    }
    folders = {name: str(tmp_path_factory.mktemp(name)) for name in backbones}
    for name, backbone in backbones.items():
        backbone.half().save_pretrained(folders[name])
    return folders


@pytest.mark.parametrize("cls", [ProxyFormerModel, ProxyFormerForReferringSegmentation])
def test_checkpoint_of_another_model_type_is_refused(cls, folders):
    with pytest.raises(ValueError, match="checkpoint of model type 'bert', not 'proxyformer'"):
        cls.from_pretrained(folders["text"])


FIELDS = {
    "hidden_size": 16,
    "num_attention_heads": 2,
    "num_hidden_layers": 1,
    "mask_feature_size": 8,
}


def assert_same_weights(module: nn.Module, expected: nn.Module):
    weights, expected = module.state_dict(), expected.state_dict()
    expected = {name: weight for name, weight in expected.items() if "pooler" not in name}
    torch.testing.assert_close(weights, expected, atol=0, rtol=0, check_dtype=False)


def test_from_backbones_with_folders(folders):
    model = ProxyFormerForReferringSegmentation.from_backbones(**folders, **FIELDS, num_queries=2)
    assert model.config.num_queries == 2
    assert model.config.text_config.model_type == "bert"
    backbone = VideoSwinBackbone.from_pretrained(folders["vision"])
    assert_same_weights(model.model.video_encoder.backbone, backbone)
    assert_same_weights(model.model.text_encoder, BertModel.from_pretrained(folders["text"]))
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    assert model(VIDEOS, WORDS).pred_masks.shape == (2, 3, 2, 8, 16)


def test_from_backbones_with_configs_is_untrained(folders):
    torch.manual_seed(0)
    config = tiny_config(**FIELDS, num_queries=5)
    model = ProxyFormerForReferringSegmentation.from_backbones(
        config.vision_config, config.text_config, **FIELDS
    )
    assert model.config.to_dict() == config.to_dict()


@pytest.mark.parametrize(("stride", "indices"), [(32, [1, 2, 3, 4]), (16, [1, 2, 3])])
def test_from_backbones_with_a_timm_name_takes_its_pretrained_weights(
    folders, monkeypatch, stride, indices
):
    create_model = timm.create_model
    downloads = []

    def create_offline(name, pretrained=False, **kwargs):
        network = create_model(name, **kwargs)
        if pretrained:
            downloads.append(name)
            for tensor in network.state_dict().values():
                tensor.fill_(0.125)
        return network

    monkeypatch.setattr(timm, "create_model", create_offline)
    model = ProxyFormerForReferringSegmentation.from_backbones(
        "test_resnet", folders["text"], **FIELDS, encoded_stride=stride
    )
    assert downloads == ["test_resnet"]
    assert list(model.config.vision_config.out_indices) == indices
    assert model.config.vision_config.freeze_batch_norm_2d
    backbone = model.model.video_encoder.backbone
    assert any("running_var" in name for name in backbone.state_dict())
    for name, tensor in backbone.state_dict().items():
        assert (tensor == 0.125).all(), name
    assert model(VIDEOS, WORDS).pred_masks.shape == (2, 3, 5, 8, 16)


def test_from_backbones_with_a_torchvision_name(folders, monkeypatch):
    original = SwinTransformer3d(
        patch_size=[2, 4, 4],
        embed_dim=8,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 2, 2],
        window_size=[8, 7, 7],
    )
    weights = SimpleNamespace(DEFAULT=SimpleNamespace(get_state_dict=original.state_dict))
    monkeypatch.setattr(torchvision.models, "get_model_weights", {"swin3d_t": weights}.get)
    model = ProxyFormerForReferringSegmentation.from_backbones(
        "swin3d_t", folders["text"], **FIELDS
    )
    backbone = model.model.video_encoder.backbone
    assert list(backbone.config.num_heads) == [1, 1, 2, 2]
    assert_same_weights(backbone, video_swin_from_original(original.state_dict()))


def test_from_backbones_names_what_is_no_vision_backbone(folders):
    from_backbones = ProxyFormerForReferringSegmentation.from_backbones
    with pytest.raises(ValueError, match="`vision='resnet_fifty'` is neither an existing folder"):
        from_backbones("resnet_fifty", folders["text"])
    with pytest.raises(ValueError, match="model type 'bert', which is no vision backbone"):
        from_backbones(folders["text"], folders["text"])


@torch.no_grad()
def test_push_to_hub_uploads_a_folder_that_loads_again(tmp_path, monkeypatch):
    model = tiny_model()

    class Hub:
        def create_repo(self, repo_id, **kwargs):
            return SimpleNamespace(repo_id=repo_id)

        def create_commit(self, repo_id, operations, **kwargs):
            for operation in operations:
                shutil.copy(operation.path_or_fileobj, tmp_path / operation.path_in_repo)
            return repo_id

    monkeypatch.setattr(hub, "hf_api", Hub)
    monkeypatch.setattr(hub, "create_and_tag_model_card", lambda *_, **__: ModelCard("A card."))
    assert model.push_to_hub("someone/proxyformer") == "someone/proxyformer"
    assert {path.name for path in tmp_path.iterdir()} == {
        "README.md",
        "config.json",
        "model.safetensors",
    }
    loaded = ProxyFormerForReferringSegmentation.from_pretrained(tmp_path)
    assert torch.equal(loaded(VIDEOS, WORDS).pred_masks, model(VIDEOS, WORDS).pred_masks)
