# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
import pytest
from huggingface_hub.errors import StrictDataclassError

from proxyformer_hf.configuration_nanodet import NanoDetConfig


@pytest.mark.parametrize(
    "fields",
    [
        {"num_channels": 0},
        {"stem_size": 0},
        {"stem_size": 31},
        {"stem_size": "32"},
        {"neck_size": -1},
        {"reg_max": 0},
        {"depths": [1, 2]},
        {"depths": [1, 2, 2, 3, 1]},
        {"depths": [1, 0, 2, 3]},
        {"out_features": ["stage5"]},
        {"out_indices": [5]},
    ],
)
def test_an_invalid_field_is_named(fields):
    # transformers wraps what a validator raises
    with pytest.raises((ValueError, StrictDataclassError), match=next(iter(fields))):
        NanoDetConfig(**fields)


@pytest.mark.parametrize("depths", [(1, 2, 2), (1, 2, 2, 3)])
def test_all_stages_are_given_unless_some_are_chosen(depths):
    stages = [f"stage{number}" for number in range(1, len(depths) + 1)]
    assert NanoDetConfig(depths=depths).out_features == stages
    chosen = NanoDetConfig(depths=depths, out_features=["stage2", "stage3"])
    assert chosen.out_features == ["stage2", "stage3"] and list(chosen.out_indices) == [2, 3]


def test_json_round_trip_keeps_the_names_of_classes(tmp_path):
    config = NanoDetConfig(depths=(1, 2, 2), id2label={0: "cat", 1: "red car"})
    config.save_pretrained(tmp_path)
    loaded = NanoDetConfig.from_pretrained(tmp_path)
    assert loaded.id2label == config.id2label and loaded.num_labels == 2
    assert list(loaded.depths) == [1, 2, 2] and loaded.out_features == config.out_features
