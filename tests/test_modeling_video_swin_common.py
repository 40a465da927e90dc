# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""VideoSwinBackbone under transformers' common model and backbone tests."""

import copy
import inspect
import unittest

import pytest
from transformers.models.auto.modeling_auto import MODEL_FOR_BACKBONE_MAPPING_NAMES

from proxyformer_hf.configuration_video_swin import VideoSwinConfig
from proxyformer_hf.modeling_video_swin import VideoSwinBackbone
from tests.conftest import MIXINS_ABSENT

common = pytest.importorskip("tests.test_modeling_common", reason=MIXINS_ABSENT)
backbone_common = pytest.importorskip("tests.test_backbone_common", reason=MIXINS_ABSENT)

# Marks a class without a loss, which the mixins' training tests leave out, as in transformers.
MODEL_FOR_BACKBONE_MAPPING_NAMES["video_swin"] = "VideoSwinBackbone"


class VideoInputs(dict):
    """BackboneTesterMixin reads the batch size from `pixel_values`, an image model's name."""

    def __missing__(self, key):
        return self[{"pixel_values": "pixel_values_videos"}[key]]


class VideoSwinBackboneTester:
    batch_size = 2
    is_training = True
    num_hidden_layers = 3
    num_attention_heads = 2
    hidden_size = 8
    expected_num_hidden_layers = 3
    # The tokens of a 2x2x2 window and, by choice of the size, the width of the stem's map.
    seq_length = 8

    def __init__(self, parent):
        self.parent = parent

    def get_config(self) -> VideoSwinConfig:
        return VideoSwinConfig(
            embed_dim=self.hidden_size,
            depths=(1, 2),
            num_heads=(self.num_attention_heads, 4),
            window_size=(2, 2, 2),
            drop_path_rate=0.0,
        )

    def prepare_config_and_inputs_for_common(self):
        videos = common.floats_tensor([self.batch_size, 3, 3, 24, 32])
        return self.get_config(), VideoInputs(pixel_values_videos=videos)


class VideoSwinBackboneTest(
    common.ModelTesterMixin, backbone_common.BackboneTesterMixin, unittest.TestCase
):
    all_model_classes = (VideoSwinBackbone,)
    config_class = VideoSwinConfig
    test_resize_embeddings = False

    def setUp(self):
        self.model_tester = VideoSwinBackboneTester(self)

    def test_forward_signature(self):
        """Overridden: the first argument has the name of videos, not of images."""
        names = list(inspect.signature(VideoSwinBackbone.forward).parameters)
        self.assertEqual(names[:2], ["self", "pixel_values_videos"])

    def test_model_get_set_embeddings(self):
        """Overridden: patches are embedded by a convolution, not by an nn.Embedding."""
        model = VideoSwinBackbone(self.model_tester.get_config())
        self.assertIs(model.get_input_embeddings(), model.patch_embed)
        replacement = copy.deepcopy(model.patch_embed)
        model.set_input_embeddings(replacement)
        self.assertIs(model.patch_embed, replacement)

    def test_num_layers_is_small(self):
        """Overridden: patch merging needs two stages, a shifted window a second layer in one."""
        self.assertEqual(sum(self.model_tester.get_config().depths), 3)

    def test_retain_grad_hidden_states_attentions(self):
        """Overridden: a backbone's first output is a tuple of maps, of which the last depends on
        all before; attentions are copies, put together from the kinds of windows of a layer."""
        config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
        outputs = VideoSwinBackbone(config)(**inputs, output_hidden_states=True)
        for hidden_state in outputs.hidden_states[:-1]:
            hidden_state.retain_grad()
        outputs.feature_maps[-1].square().sum().backward()
        for hidden_state in outputs.hidden_states[:-1]:
            self.assertGreater(hidden_state.grad.abs().sum(), 0)
