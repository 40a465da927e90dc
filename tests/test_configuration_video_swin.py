# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
import pytest
from huggingface_hub.errors import (
    StrictDataclassClassValidationError,
    StrictDataclassFieldValidationError,
)

from proxyformer_hf.configuration_video_swin import VideoSwinConfig


@pytest.mark.parametrize(
    "fields",
    [
        {"embed_dim": 0},
        {"depths": ()},
        {"depths": (2, 0, 6, 2)},
        {"num_heads": (3, 6, 12)},
        {"num_heads": (5, 6, 12, 24)},
        {"patch_size": (2, 4, 4)},
        {"window_size": (7, 7)},
        {"window_size": (8, 7, 0)},
        {"mlp_ratio": -1.0},
        {"drop_path_rate": 1.0},
        {"drop_path_rate": "0.1"},
        {"out_features": ["stage5"]},
    ],
)
def test_an_invalid_field_is_named(fields):
    # transformers wraps what a validator raises in the first of these, a wrong type in the second.
    wrapped = (StrictDataclassClassValidationError, StrictDataclassFieldValidationError)
    with pytest.raises((ValueError, *wrapped), match=next(iter(fields))):
        VideoSwinConfig(**fields)


def test_an_unknown_preset_is_named():
    with pytest.raises(ValueError, match="'huge'.*tiny.*small.*base"):
        VideoSwinConfig.from_preset("huge")


def test_presets_take_further_fields():
    config = VideoSwinConfig.from_preset("base", drop_path_rate=0.3, out_features=["stage4"])
    assert (config.embed_dim, config.drop_path_rate) == (128, 0.3)
    assert config.out_features == ["stage4"]
    assert config.hidden_size == 1024
