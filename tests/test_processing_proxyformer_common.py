# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
import unittest

import pytest

import proxyformer_hf  # noqa: F401  registers the video processor with AutoVideoProcessor
from proxyformer_hf.processing_proxyformer import ProxyFormerProcessor
from proxyformer_hf.video_processing_proxyformer import ProxyFormerVideoProcessor
from tests.conftest import MIXINS_ABSENT
from tests.test_processing_proxyformer import byte_level_tokenizer

common = pytest.importorskip("tests.test_processing_common", reason=MIXINS_ABSENT)


class ProxyFormerProcessorCommonTest(common.ProcessorTesterMixin, unittest.TestCase):
    processor_class = ProxyFormerProcessor

    @classmethod
    def _setup_tokenizer(cls):
        return byte_level_tokenizer()

    @classmethod
    def _setup_video_processor(cls):
        return ProxyFormerVideoProcessor()

    def prepare_text_inputs(self, batch_size=None, modalities=None):
        """The mixin's texts have blanks at their ends, which the processor removes and the bare
        tokenizer, to which it is compared, keeps."""
        text = super().prepare_text_inputs(batch_size, modalities)
        return text.strip() if batch_size is None else [sample.strip() for sample in text]
