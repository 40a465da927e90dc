# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
import unittest

import pytest
import torch
from PIL import Image

import proxyformer_hf  # noqa: F401  registers the processor with AutoVideoProcessor
from proxyformer_hf.video_processing_proxyformer import ProxyFormerVideoProcessor
from tests.conftest import MIXINS_ABSENT

common = pytest.importorskip("tests.test_video_processing_common", reason=MIXINS_ABSENT)


class VideoProcessorTester:
    """What VideoProcessingTestMixin asks for: inputs, and the shape of what comes out."""

    batch_size = 5
    num_channels = 3

    def __init__(self):
        self.num_frames = 8

    def prepare_video_inputs(self, equal_resolution=False, return_tensors="pil"):
        return common.prepare_video_inputs(
            self.batch_size,
            self.num_frames,
            self.num_channels,
            min_resolution=30,
            max_resolution=80,
            equal_resolution=equal_resolution,
            return_tensors=return_tensors,
        )

    def expected_output_video_shape(self, videos):
        sizes = []
        for video in videos:
            if isinstance(video[0], Image.Image):
                width, height = video[0].size
            elif isinstance(video[0], torch.Tensor):
                height, width = video[0].shape[-2:]
            else:
                height, width = video[0].shape[:2]
            short = min(height, width)
            sizes.append((20 * height // short, 20 * width // short))
        heights, widths = zip(*sizes, strict=True)
        return [self.num_frames, 3, max(heights), max(widths)]


class ProxyFormerVideoProcessorCommonTest(common.VideoProcessingTestMixin, unittest.TestCase):
    fast_video_processing_class = ProxyFormerVideoProcessor
    test_cast_dtype = True

    def setUp(self):
        super().setUp()
        self.video_processor_tester = VideoProcessorTester()

    @property
    def video_processor_dict(self):
        return {
            "size": {"shortest_edge": 20},
            "crop_size": {"height": 18, "width": 18},
            "do_center_crop": False,
            "do_normalize": True,
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5],
        }
