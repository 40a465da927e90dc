# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""A ProxyFormer with random weights, small enough to run in every test."""

from pathlib import Path

import torch
from transformers import RobertaConfig, RobertaTokenizer

from proxyformer_hf.configuration_proxyformer import ProxyFormerConfig
from proxyformer_hf.configuration_video_swin import VideoSwinConfig
from proxyformer_hf.modeling_proxyformer import ProxyFormerForReferringSegmentation
from proxyformer_hf.processing_proxyformer import ProxyFormerProcessor
from proxyformer_hf.video_processing_proxyformer import ProxyFormerVideoProcessor

VOCABULARY = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "Ġ", *"abcdefghijklmnopqrstuvwxyz"]


def tiny_config(**fields) -> ProxyFormerConfig:
    """One layer of RoBERTa, of each stage of Video Swin and of CMIE; `fields` replace any of it."""
    defaults = {
        "text_config": RobertaConfig(
            vocab_size=len(VOCABULARY),
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
        ),
        "vision_config": VideoSwinConfig(
            embed_dim=8, depths=(1, 1, 1, 1), num_heads=(1, 1, 1, 1), window_size=(2, 2, 2)
        ),
        "hidden_size": 16,
        "num_attention_heads": 2,
        "num_hidden_layers": 1,
        "num_queries": 3,
        "mask_feature_size": 8,
    }
    return ProxyFormerConfig(**{**defaults, **fields})


def save_tiny_checkpoint(folder: Path) -> None:
    """Writes model and processor; frames are resized to at most 32 x 64 pixels."""
    tokenizer = RobertaTokenizer(
        vocab={token: index for index, token in enumerate(VOCABULARY)}, merges=[]
    )
    video_processor = ProxyFormerVideoProcessor(size={"shortest_edge": 32, "longest_edge": 64})
    ProxyFormerProcessor(video_processor, tokenizer).save_pretrained(folder)
    torch.manual_seed(0)
    ProxyFormerForReferringSegmentation(tiny_config()).eval().save_pretrained(folder)
