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
    dtypes = {}
    for file in DEFAULT_CHECKPOINT.glob("*.safetensors"):
        with safe_open(file, "pt") as weights:
            dtypes |= {name: weights.get_slice(name).get_dtype() for name in weights.keys()}
    assert dtypes.pop("model.text_encoder.embeddings.word_embeddings.weight") == "F8_E4M3"
    assert set(dtypes.values()) == {"F16"}


def test_default_pipeline_computes_in_single_precision(pipe):
    assert pipe.model.name_or_path == str(DEFAULT_CHECKPOINT)
    assert {parameter.dtype for parameter in pipe.model.parameters()} == {torch.float32}


def test_words_choose_the_object_in_the_demo_clip(pipe):
    """In the clip's second half the woman fills the left quarter and the cup is right of her."""
    woman, cup = pipe(str(DEMO_CLIP), ["the woman in the orange suit", "the cup"], stride=12)
    left, right = np.s_[4:, :, :100], np.s_[4:, :, 225:]
    assert woman["masks"][left].mean() > 0.4
    assert woman["masks"][right].mean() < 0.1
    assert cup["masks"][right].mean() > 0.3
    assert cup["masks"][left].mean() < 0.1


@torch.no_grad()
def test_bfloat16_autocast_agrees_within_2_percent(pipe):
    inputs = pipe.processor(videos=DEMO_CLIP, text="the cup", num_frames=3, return_tensors="pt")
    expected = pipe.model(**inputs)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = pipe.model(**inputs)
    for name in ("pred_logits", "pred_boxes", "pred_masks"):
        difference = (outputs[name].float() - expected[name]).norm()
        assert difference <= 2e-2 * expected[name].norm(), name


@pytest.mark.parametrize("expression", ["the woman in the orange suit", "the cup"])
def test_masks_in_bfloat16_are_nearly_the_same(pipe, expression):
    rounded = pipeline(TASK, dtype=torch.bfloat16, device="cpu")
    expected, result = (each(str(DEMO_CLIP), expression, stride=12) for each in (pipe, rounded))
    shared, joined = expected["masks"] & result["masks"], expected["masks"] | result["masks"]
    assert shared.sum() > 0.98 * joined.sum()
    assert result["score"] == pytest.approx(expected["score"], abs=0.02)
