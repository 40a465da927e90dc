# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""NanoDetBackbone under transformers' common model and backbone tests."""

import copy
import unittest

import pytest
from transformers.models.auto.modeling_auto import MODEL_FOR_BACKBONE_MAPPING_NAMES

from proxyformer_hf.configuration_nanodet import NanoDetConfig
from proxyformer_hf.modeling_nanodet import NanoDetBackbone
from tests.conftest import MIXINS_ABSENT

common = pytest.importorskip("tests.test_modeling_common", reason=MIXINS_ABSENT)
backbone_common = pytest.importorskip("tests.test_backbone_common", reason=MIXINS_ABSENT)

# Marks a class without a loss, which the mixins' training tests leave out, as in transformers.
MODEL_FOR_BACKBONE_MAPPING_NAMES["nanodet"] = "NanoDetBackbone"


class NanoDetBackboneTester:
    batch_size = 2
    is_training = True

    def __init__(self, parent):
        self.parent = parent

    def get_config(self) -> NanoDetConfig:
        return NanoDetConfig(stem_size=4, depths=(1, 1, 1, 1), neck_size=4, reg_max=2)

    def prepare_config_and_inputs_for_common(self):
        pixels = common.floats_tensor([self.batch_size, 3, 64, 32])
        return self.get_config(), {"pixel_values": pixels}


class NanoDetBackboneTest(
    common.ModelTesterMixin, backbone_common.BackboneTesterMixin, unittest.TestCase
):
    all_model_classes = (NanoDetBackbone,)
    config_class = NanoDetConfig
    has_attentions = False
    test_resize_embeddings = False

    def setUp(self):
        self.model_tester = NanoDetBackboneTester(self)

    @unittest.skip("one convolution after the other: no hidden states besides the feature maps")
    def test_hidden_states_output(self): ...

    def test_backbone_outputs(self):
        """Overridden: asks for hidden states too, of which there are none."""
        config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
        model = NanoDetBackbone(config).eval()
        outputs = model(**inputs)
        self.assertIsInstance(outputs.feature_maps, tuple)
        self.assertEqual([maps.shape[1] for maps in outputs.feature_maps], model.channels)
        self.assertIsNone(outputs.hidden_states)
        self.assertIsNone(outputs.attentions)

    def test_model_get_set_embeddings(self):
        """Overridden: pixels are embedded by a convolution, not by an nn.Embedding."""
        model = NanoDetBackbone(self.model_tester.get_config())
        self.assertIs(model.get_input_embeddings(), model.stem)
        replacement = copy.deepcopy(model.stem)
        model.set_input_embeddings(replacement)
        self.assertIs(model.stem, replacement)

    def test_retain_grad_hidden_states_attentions(self):
        """Overridden: without hidden states, the coarsest map's gradient reaches the pixels."""
        config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
        pixels = inputs["pixel_values"].requires_grad_()
        outputs = NanoDetBackbone(config)(pixels)
        outputs.feature_maps[-1].square().sum().backward()
        self.assertGreater(pixels.grad.abs().sum(), 0)
