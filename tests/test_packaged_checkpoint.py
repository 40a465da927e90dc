# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""The checkpoint that ships: small, complete, and it understands the demo clip."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from transformers import pipeline

import proxyformer_hf
from proxyformer_hf.pipeline_referring_video_segmentation import DEFAULT_CHECKPOINT, TASK

DEMO_CLIP = Path(proxyformer_hf.__file__).parent / "assets" / "demo.mp4"


@pytest.fixture(scope="module")
def pipe():
    return pipeline(TASK, device="cpu")


def test_folder_is_at_most_60_mb_and_holds_half_precision():
    assert sum(file.stat().st_size for file in DEFAULT_CHECKPOINT.iterdir()) <= 60e6
    for file in DEFAULT_CHECKPOINT.glob("*.safetensors"):
        with safe_open(file, "pt") as weights:
            assert {weights.get_slice(name).get_dtype() for name in weights.keys()} == {"F16"}


def test_default_pipeline_computes_in_single_precision(pipe):
    assert pipe.model.name_or_path == str(DEFAULT_CHECKPOINT)
    assert {parameter.dtype for parameter in pipe.model.parameters()} == {torch.float32}


def test_words_choose_the_object_in_the_demo_clip(pipe):
    """In the clip's second half the woman is in the left third and the cat right of her."""
    woman, cat, car = pipe(
        str(DEMO_CLIP), ["the woman on the left", "the cat on the right", "a car"], stride=12
    )
    for result, own, other in (
        (woman, np.s_[..., :150], np.s_[..., 225:]),
        (cat, np.s_[..., 225:], np.s_[..., :150]),
    ):
        masks = result["masks"][4:]
        assert masks[own].mean() > 0.3
        assert masks[other].mean() < 0.1
    assert car["masks"][4:].mean() < 0.1
