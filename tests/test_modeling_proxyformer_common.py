# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""ProxyFormer under transformers' common model tests."""

import unittest

import pytest
import torch
from transformers import RobertaConfig
from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

from proxyformer_hf.configuration_proxyformer import ProxyFormerConfig
from proxyformer_hf.configuration_video_swin import VideoSwinConfig
from proxyformer_hf.modeling_proxyformer import (
    ProxyFormerForReferringSegmentation,
    ProxyFormerModel,
)
from tests.conftest import MIXINS_ABSENT

common = pytest.importorskip("tests.test_modeling_common", reason=MIXINS_ABSENT)

# Marks a class without a loss, which the mixins' training tests leave out, as in transformers.
MODEL_MAPPING_NAMES["proxyformer"] = "ProxyFormerModel"

VOCABULARY, FRAMES, SIZE = 99, 2, 32


class ProxyFormerModelTester:
    batch_size = 2
    is_training = True
    num_hidden_layers = 2
    num_attention_heads = 2
    hidden_size = 16
    # Proxies and places of a frame, which have one name in the mixins; and words.
    encoder_seq_length = key_length = seq_length = 4

    def __init__(self, parent):
        self.parent = parent

    def get_config(self) -> ProxyFormerConfig:
        return ProxyFormerConfig(
            text_config=RobertaConfig(
                vocab_size=VOCABULARY,
                hidden_size=16,
                num_hidden_layers=1,
                num_attention_heads=2,
                intermediate_size=16,
            ),
            vision_config=VideoSwinConfig(
                embed_dim=8,
                depths=(1, 1, 1),
                num_heads=(1, 1, 2),
                window_size=(2, 2, 2),
                drop_path_rate=0.0,
            ),
            hidden_size=self.hidden_size,
            num_attention_heads=self.num_attention_heads,
            num_hidden_layers=self.num_hidden_layers,
            num_queries=self.encoder_seq_length,
            encoded_stride=16,
            mask_feature_size=8,
        )

    def prepare_config_and_inputs_for_common(self):
        words = [self.batch_size, self.seq_length]
        inputs = {
            "pixel_values_videos": common.floats_tensor([self.batch_size, FRAMES, 3, SIZE, SIZE]),
            "input_ids": common.ids_tensor(words, VOCABULARY),
            "attention_mask": torch.ones(words, dtype=torch.long),
        }
        return self.get_config(), inputs


class ProxyFormerModelTest(common.ModelTesterMixin, unittest.TestCase):
    all_model_classes = (ProxyFormerModel, ProxyFormerForReferringSegmentation)
    config_class = ProxyFormerConfig
    additional_model_inputs = ["input_ids"]
    _is_composite = True

    def setUp(self):
        self.model_tester = ProxyFormerModelTester(self)

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        inputs = super()._prepare_for_class(inputs_dict, model_class, return_labels)
        if return_labels and model_class is ProxyFormerForReferringSegmentation:
            masks = torch.zeros(self.model_tester.batch_size, FRAMES, SIZE, SIZE)
            masks[:, :, 4:20, 8:24] = 1
            inputs["mask_labels"] = masks
        return inputs

    # Left out: the mixin's get_video_features is that of language models, one sequence of states
    # and a pooled vector that take the place of words. Ours returns the maps that forward takes
    # back, as test_modeling_proxyformer.py checks.
    test_get_video_features_output_0 = None
    test_get_video_features_output_1 = None
    test_get_video_features_output_2 = None
    test_get_video_features_hidden_states = None
    test_get_video_features_attentions = None
