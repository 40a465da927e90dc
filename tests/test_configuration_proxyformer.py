# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
import json

import pytest
from huggingface_hub.errors import StrictDataclassError
from transformers import (
    AutoConfig,
    BertConfig,
    ResNetConfig,
    RobertaConfig,
    TimmBackboneConfig,
)

from proxyformer_hf.configuration_nanodet import NanoDetConfig
from proxyformer_hf.configuration_proxyformer import ProxyFormerConfig
from proxyformer_hf.configuration_video_swin import VideoSwinConfig


def test_defaults_are_the_paper():
    config = ProxyFormerConfig()
    paper = {
        "hidden_size": 256,
        "num_attention_heads": 8,
        "num_hidden_layers": 4,
        "num_queries": 5,
        "encoded_stride": 32,
        "interaction": "decoupled",
        "proxy_to_video": True,
        "jsc_semantics": "both",
        # the baseline's coefficients
        "class_loss_coefficient": 2,
        "bbox_loss_coefficient": 5,
        "giou_loss_coefficient": 2,
        "dice_loss_coefficient": 5,
        "mask_loss_coefficient": 2,
        # nothing that the paper does not have
        "confusable_weight": 1,
        "absent_weight": 1,
        "choice_loss_coefficient": 0,
        "detector_config": None,
        "early_fusion": False,
        "lexical_words": False,
        "lexical_dropout": 0,
        "text_to_video": False,
        "grounding_map": False,
        "frozen_grounding": False,
        "soft_selection": False,
        "single_region": False,
        "short_clip_scales": None,
        "class_contrast": 0.0,
        "intermediate_size": 0,
        "pre_norm": False,
        "vision_neck_size": 0,
        "temporal_convolution": False,
        "pixel_lateral": False,
        "freeze_text": False,
    }
    assert {name: getattr(config, name) for name in paper} == paper


def test_default_backbones_are_resnet_50_and_roberta_base():
    config = ProxyFormerConfig()
    vision, text = config.vision_config, config.text_config
    assert (vision.model_type, vision.backbone) == ("timm_backbone", "resnet50")
    assert list(vision.out_indices) == [1, 2, 3, 4]
    assert vision.freeze_batch_norm_2d
    assert text.model_type == "roberta"
    roberta_base = {  # config.json of its checkpoint
        "vocab_size": 50265,
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "max_position_embeddings": 514,
        "type_vocab_size": 1,
        "layer_norm_eps": 1e-5,
        "pad_token_id": 1,
        "bos_token_id": 0,
        "eos_token_id": 2,
    }
    assert {name: getattr(text, name) for name in roberta_base} == roberta_base


INVALID = [
    ({"confusable_weight": 0}, "confusable_weight"),
    ({"absent_weight": -1}, "absent_weight"),
    ({"choice_loss_coefficient": 1}, "choice_loss_coefficient"),
    ({"frozen_grounding": True}, "frozen_grounding"),
    ({"score_scale": 0}, "score_scale"),
    ({"short_clip_scales": []}, "short_clip_scales"),
    ({"short_clip_scales": [1, 0]}, "short_clip_scales"),
    ({"class_contrast": -0.1}, "class_contrast"),
    ({"hidden_size": 0}, "hidden_size"),
    ({"num_attention_heads": 0}, "num_attention_heads"),
    ({"num_hidden_layers": 0}, "num_hidden_layers"),
    ({"num_queries": 0}, "num_queries"),
    ({"mask_feature_size": 0}, "mask_feature_size"),
    ({"intermediate_size": -1}, "intermediate_size"),
    ({"vision_neck_size": -1}, "vision_neck_size"),
    ({"dice_loss_coefficient": -1.0}, "dice_loss_coefficient"),
    ({"selection_loss_coefficient": -1}, "selection_loss_coefficient"),
    ({"hidden_size": 250}, r"`hidden_size` \(250\) must be a multiple of `num_attention_heads`"),
    ({"hidden_size": 6, "num_attention_heads": 2}, "and of 4"),
    ({"encoded_stride": 4}, "`encoded_stride` must be 8, 16 or 32, got 4"),
    ({"interaction": "both"}, "interaction"),
    ({"jsc_semantics": "audio"}, "jsc_semantics"),
    ({"interaction": "direct", "proxy_to_video": False}, "proxy_to_video"),
    ({"interaction": "conditional", "proxy_to_video": False}, "proxy_to_video"),
    ({"interaction": "direct", "text_to_video": True}, "text_to_video"),
    ({"interaction": "conditional", "text_to_video": True}, "text_to_video"),
    ({"detector_config": {}}, "`detector_config` needs `freeze_text=True`"),
    ({"detector_config": NanoDetConfig()}, "`detector_config` needs `freeze_text=True`"),
    ({"detector_config": {"stem_size": 3}, "freeze_text": True}, "stem_size"),
    ({"num_queries": 2.5}, "num_queries"),
    ({"pre_norm": "yes"}, "pre_norm"),
]


@pytest.mark.parametrize(("fields", "named"), INVALID)
def test_impossible_values_raise_and_name_the_field(fields, named):
    with pytest.raises((ValueError, StrictDataclassError), match=named):
        ProxyFormerConfig(**fields)


def test_a_field_set_later_is_checked_as_well():
    config = ProxyFormerConfig()
    with pytest.raises(StrictDataclassError, match="num_queries"):
        config.num_queries = "five"


def test_of_another_model_type_is_refused(tmp_path):
    BertConfig().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="model type 'bert', not 'proxyformer'"):
        ProxyFormerConfig.from_pretrained(tmp_path)


VISION_CONFIGS = {
    "default": None,
    "video_swin": VideoSwinConfig.from_preset("small", window_size=(4, 7, 7)),
    "timm": TimmBackboneConfig(backbone="mobilenetv2_100", out_indices=[1, 2, 3]),
    "transformers": ResNetConfig(out_features=["stage1", "stage2", "stage3", "stage4"]),
}


@pytest.mark.parametrize("vision", VISION_CONFIGS.values(), ids=VISION_CONFIGS.keys())
def test_json_round_trip(tmp_path, vision):
    config = ProxyFormerConfig(
        vision_config=vision,
        text_config=BertConfig(hidden_size=384, num_hidden_layers=6),
        num_queries=3,
        interaction="full",
        dice_loss_coefficient=4.5,
    )
    config.save_pretrained(tmp_path)
    for cls in (ProxyFormerConfig, AutoConfig):
        loaded = cls.from_pretrained(tmp_path)
        assert type(loaded) is ProxyFormerConfig
        assert type(loaded.vision_config) is type(config.vision_config)
        assert type(loaded.text_config) is BertConfig
        assert {**loaded.to_dict(), "_name_or_path": ""} == config.to_dict()
    saved = json.loads((tmp_path / "config.json").read_text())
    assert (saved["model_type"], saved["interaction"]) == ("proxyformer", "full")
    assert saved["vision_config"]["model_type"] == config.vision_config.model_type


def test_sub_configs_may_be_dicts():
    text = {"model_type": "roberta", "hidden_size": 32, "num_attention_heads": 2}
    vision = {"model_type": "video_swin", "embed_dim": 48}
    config = ProxyFormerConfig(text_config=text, vision_config=vision)
    assert isinstance(config.text_config, RobertaConfig)
    assert config.text_config.hidden_size == 32
    assert isinstance(config.vision_config, VideoSwinConfig)
    assert config.vision_config.embed_dim == 48
    instances = ProxyFormerConfig(
        text_config=RobertaConfig(hidden_size=32, num_attention_heads=2),
        vision_config=VideoSwinConfig(embed_dim=48),
    )
    assert config.vision_config.to_dict() == instances.vision_config.to_dict()


def test_a_dict_without_a_model_type_fills_the_default_backbone():
    config = ProxyFormerConfig(text_config={"num_hidden_layers": 2}, vision_config={})
    assert config.text_config.model_type == "roberta"
    assert config.text_config.num_hidden_layers == 2
    assert config.vision_config.model_type == "timm_backbone"


DETECTOR = {"stem_size": 8, "id2label": {0: "cat", 1: "teddy bear"}}


def test_a_detector_can_be_added_to_a_stored_configuration(tmp_path):
    ProxyFormerConfig(freeze_text=True).save_pretrained(tmp_path)
    loaded = ProxyFormerConfig.from_pretrained(tmp_path, detector_config=DETECTOR)
    assert type(loaded.detector_config) is NanoDetConfig and loaded.detector_config.stem_size == 8


@pytest.mark.parametrize(
    "detector", [None, DETECTOR, NanoDetConfig(**DETECTOR)], ids=["none", "dict", "config"]
)
def test_a_detector_survives_json_and_none_stays_none(tmp_path, detector):
    config = ProxyFormerConfig(detector_config=detector, freeze_text=True)
    config.save_pretrained(tmp_path)
    loaded = ProxyFormerConfig.from_pretrained(tmp_path)
    assert {**loaded.to_dict(), "_name_or_path": ""} == config.to_dict()
    for each in (config, loaded, ProxyFormerConfig(**config.to_dict())):
        if detector is None:
            assert each.detector_config is None and each.to_dict()["detector_config"] is None
        else:
            assert type(each.detector_config) is NanoDetConfig
            assert each.detector_config.stem_size == 8
            assert each.detector_config.id2label == DETECTOR["id2label"]
            assert each.to_dict()["detector_config"]["model_type"] == "nanodet"
