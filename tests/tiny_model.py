# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""A ProxyFormer with random weights, small enough to run in every test."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import RobertaConfig, RobertaTokenizer, TimmBackboneConfig

from proxyformer_hf.configuration_proxyformer import ProxyFormerConfig
from proxyformer_hf.configuration_video_swin import VideoSwinConfig
from proxyformer_hf.modeling_proxyformer import ProxyFormerForReferringSegmentation
from proxyformer_hf.processing_proxyformer import ProxyFormerProcessor
from proxyformer_hf.video_io import VideoWriter
from proxyformer_hf.video_processing_proxyformer import ProxyFormerVideoProcessor

VOCABULARY = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "Ġ", *"abcdefghijklmnopqrstuvwxyz"]

TINY_TEXT = {
    "vocab_size": len(VOCABULARY),
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
}
TINY_TIMM = TimmBackboneConfig(backbone="test_resnet", out_indices=[1, 2, 3, 4])


def tiny_swin(num_stages: int = 4, **fields) -> VideoSwinConfig:
    """One layer in each stage; the last stage's stride is 2 ** (num_stages + 1)."""
    ones = (1,) * num_stages
    return VideoSwinConfig(
        embed_dim=8, depths=ones, num_heads=ones, window_size=(2, 2, 2), **fields
    )


def tiny_config(**fields) -> ProxyFormerConfig:
    """One layer of RoBERTa, of each stage of Video Swin and of CMIE; `fields` replace any of it."""
    defaults = {
        "text_config": RobertaConfig(**TINY_TEXT),
        "vision_config": tiny_swin(),
        "hidden_size": 16,
        "num_attention_heads": 2,
        "num_hidden_layers": 1,
        "num_queries": 3,
        "mask_feature_size": 8,
    }
    return ProxyFormerConfig(**{**defaults, **fields})


def tiny_model(**fields) -> ProxyFormerForReferringSegmentation:
    """Of `tiny_config(**fields)`, always with the same weights, in evaluation mode."""
    torch.manual_seed(0)
    return ProxyFormerForReferringSegmentation(tiny_config(**fields)).eval()


def perturb(module: nn.Module) -> nn.Module:
    """Noise on all weights, so that no bias or norm is the neutral one of the start."""
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in module.parameters():
            weight.add_(0.2 * torch.randn_like(weight))
    return module


def tiny_processor() -> ProxyFormerProcessor:
    """Its tokens are single letters; frames are resized to at most 32 x 64 pixels."""
    tokenizer = RobertaTokenizer(
        vocab={token: index for index, token in enumerate(VOCABULARY)}, merges=[]
    )
    video_processor = ProxyFormerVideoProcessor(size={"shortest_edge": 32, "longest_edge": 64})
    return ProxyFormerProcessor(video_processor, tokenizer)


def save_tiny_checkpoint(folder: Path, **fields: Any) -> None:
    """Writes a `tiny_model` and its `tiny_processor`."""
    tiny_processor().save_pretrained(folder)
    tiny_model(**fields).save_pretrained(folder)


NUM_FRAMES, HEIGHT, WIDTH = 7, 48, 80  # of the noise clip


def save_noise_clip(path: Path, fps: float) -> None:
    """Writes a video of coarse random blocks, new ones in each frame."""
    rng = np.random.default_rng(0)
    with VideoWriter(path, fps=fps, height=HEIGHT, width=WIDTH) as writer:
        for _ in range(NUM_FRAMES):
            coarse = rng.integers(0, 256, (6, 10, 3), dtype=np.uint8)
            writer.write(np.kron(coarse, np.ones((8, 8, 1), np.uint8)))
