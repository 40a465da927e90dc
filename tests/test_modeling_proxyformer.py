# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel, ResNetConfig, TimmBackboneConfig

import proxyformer_hf.modeling_proxyformer as modeling
from proxyformer_hf.configuration_proxyformer import ProxyFormerConfig
from proxyformer_hf.configuration_video_swin import VideoSwinConfig
from proxyformer_hf.modeling_proxyformer import (
    ProxyFormerCMIELayer,
    ProxyFormerEncoder,
    ProxyFormerForReferringSegmentation,
    ProxyFormerModel,
    ProxyFormerTokens,
    sine_position,
)
from proxyformer_hf.modeling_video_swin import VideoSwinBackbone
from tests.tiny_model import VOCABULARY, tiny_config


# --- The layer from the equations: one clip, real tokens only, plain loops ---


@dataclass
class Places:
    """Positions of a clip's real tokens: `space` (Q, C), zero for proxies, and `time` (T, C)."""

    space: Tensor
    time: Tensor


def linear(weights: nn.Module, inputs: Tensor) -> Tensor:
    return inputs @ weights.weight.T + weights.bias


def norm(weights: nn.LayerNorm, inputs: Tensor) -> Tensor:
    centred = inputs - inputs.mean(-1, keepdim=True)
    deviation = (centred.square().mean(-1, keepdim=True) + weights.eps).sqrt()
    return centred / deviation * weights.weight + weights.bias


def attend(weights, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Softmax attention of (q, C) on (k, C), head by head."""
    queries, keys, values = (
        linear(projection, inputs)
        for projection, inputs in (
            (weights.q_proj, queries),
            (weights.k_proj, keys),
            (weights.v_proj, values),
        )
    )
    outputs = []
    for query, key, value in zip(
        *(each.split(weights.head_dim, dim=-1) for each in (queries, keys, values)), strict=True
    ):
        exponentials = (query @ key.T / math.sqrt(weights.head_dim)).exp()
        outputs.append(exponentials / exponentials.sum(-1, keepdim=True) @ value)
    return linear(weights.o_proj, torch.cat(outputs, dim=-1))


def residual(norm_weights: nn.LayerNorm | None, hidden: Tensor, update: Tensor) -> Tensor:
    return hidden + update if norm_weights is None else norm(norm_weights, hidden + update)


def reference_attention_block(
    block, hidden: Tensor, places: Places, context: Tensor | None = None, context_places=None
) -> Tensor:
    """(2), (3) and (5): `hidden` (T, Q, C) reads itself or a context (T, K, C)."""
    pre_norm = "input" in block.norms
    query = norm(block.norms["input"], hidden) if pre_norm else hidden
    num_frames, num_tokens = hidden.shape[:2]
    updates = {}
    if "joint" in block.attentions:
        key = query if context is None else context
        key_places = places if context is None else context_places
        updates["joint"] = attend(
            block.attentions["joint"],
            (query + places.space + places.time[:, None]).flatten(0, 1),
            (key + key_places.space + key_places.time[:, None]).flatten(0, 1),
            key.flatten(0, 1),
        ).view(hidden.shape)
    else:
        key = query if context is None else context
        key_space = places.space if context is None else context_places.space
        frames = [
            attend(
                block.attentions["spatial"],
                query[frame] + places.space,
                key[frame] + key_space,
                key[frame],
            )
            for frame in range(num_frames)
        ]
        updates["spatial"] = torch.stack(frames)
        # the context's frame means, physically replicated for every token of the query
        key = query if context is None else context.mean(1)[:, None].repeat(1, num_tokens, 1)
        tracks = [
            attend(
                block.attentions["temporal"],
                query[:, token] + places.time,
                key[:, token] + places.time,
                key[:, token],
            )
            for token in range(num_tokens)
        ]
        updates["temporal"] = torch.stack(tracks, dim=1)
    if pre_norm:
        return hidden + sum(updates.values())
    return sum(norm(block.norms[name], hidden + update) for name, update in updates.items())


def reference_words_block(block, hidden: Tensor, places: Places, words: Tensor) -> Tensor:
    """(4): every token of (T, Q, C) reads the words (L, C)."""
    query = norm(block.norm, hidden) if block.pre_norm else hidden
    update = [attend(block.attention, frame + places.space, words, words) for frame in query]
    return residual(None if block.pre_norm else block.norm, hidden, torch.stack(update))


def reference_feed_forward(block, hidden: Tensor) -> Tensor:
    if isinstance(block, nn.Identity):
        return hidden
    inputs = linear(block.up_proj, norm(block.norm, hidden) if block.pre_norm else hidden)
    update = linear(block.down_proj, inputs * (1 + torch.erf(inputs / math.sqrt(2))) / 2)
    return residual(None if block.pre_norm else block.norm, hidden, update)


def reference_layer(
    layer: ProxyFormerCMIELayer,
    video: Tensor,
    proxies: Tensor,
    words: Tensor,
    video_places: Places,
    proxy_places: Places,
) -> tuple[Tensor, Tensor]:
    """F^k and Q^k of one clip: video (T, H*W, C), proxies (T, N, C), words (L, C)."""

    def project(projection: nn.Module, inputs: Tensor) -> Tensor:  # absent from pre-norm layers
        return inputs if isinstance(projection, nn.Identity) else linear(projection, inputs)

    def normed(weights: nn.Module, inputs: Tensor) -> Tensor:  # absent from post-norm layers
        return inputs if isinstance(weights, nn.Identity) else norm(weights, inputs)

    encoded = reference_attention_block(
        layer.video_encoding, project(layer.video_projection, video), video_places
    )
    if layer.text_to_video is not None:
        encoded = reference_words_block(layer.text_to_video, encoded, video_places, words)
    if layer.proxy_to_video is not None:
        context = normed(layer.proxy_norm, proxies)
        encoded = reference_attention_block(
            layer.proxy_to_video, encoded, video_places, context, proxy_places
        )

    conditioned = reference_words_block(
        layer.text_to_proxy,
        project(layer.proxy_projection, proxies),
        proxy_places,
        project(layer.word_projection, words),
    )
    conditioned = reference_attention_block(
        layer.video_to_proxy,
        conditioned,
        proxy_places,
        normed(layer.video_norm, video),
        video_places,
    )
    return (
        reference_feed_forward(layer.video_feed_forward, encoded),
        reference_feed_forward(layer.proxy_feed_forward, conditioned),
    )


BATCH, FRAMES, PLACES, PROXIES, WORDS, CHANNELS = 2, 3, 6, 2, 4, 8


@dataclass
class Clips:
    """Random states of a batch. Padding: the second clip lacks a frame, two places and a word."""

    padded: bool

    def __post_init__(self):
        generator = torch.Generator().manual_seed(0)

        def random(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator)

        self.video = random(BATCH, FRAMES, PLACES, CHANNELS).requires_grad_()
        self.proxies = random(BATCH, FRAMES, PROXIES, CHANNELS).requires_grad_()
        self.words = random(BATCH, WORDS, CHANNELS).requires_grad_()
        self.space = random(BATCH, 1, PLACES, CHANNELS)
        self.time = random(BATCH, FRAMES, 1, CHANNELS)
        self.frames = torch.ones(BATCH, FRAMES, dtype=torch.bool)
        self.places = torch.ones(BATCH, PLACES, dtype=torch.bool)
        self.valid_words = torch.ones(BATCH, WORDS, dtype=torch.long)
        if self.padded:
            self.frames[1, -1] = False
            self.places[1, [2, 5]] = False
            self.valid_words[1, -1] = 0

    def tokens(self) -> tuple[ProxyFormerTokens, ProxyFormerTokens, Tensor | None]:
        """What the layer gets: places of the video, of the proxies, and the words' mask."""
        frames, places, words = (
            (self.frames, self.places, self.valid_words) if self.padded else (None, None, None)
        )
        return (
            ProxyFormerTokens(self.space, self.time, places, frames),
            ProxyFormerTokens(None, self.time, None, frames),
            words,
        )

    def clip(self, row: int) -> tuple[Tensor, Tensor, Tensor, Places, Places]:
        """What the reference gets: one clip with its padding cut off."""
        frames, places = self.frames[row], self.places[row]
        time = self.time[row, frames, 0]
        return (
            self.video[row, frames][:, places],
            self.proxies[row, frames],
            self.words[row, self.valid_words[row].bool()],
            Places(self.space[row, 0, places], time),
            Places(torch.zeros(CHANNELS), time),
        )

    def cut(self, video: Tensor, proxies: Tensor) -> list[Tensor]:
        """The real part of a layer's outputs, one clip after the other."""
        rows = range(BATCH)
        return [
            *(video[row, self.frames[row]][:, self.places[row]] for row in rows),
            *(proxies[row, self.frames[row]] for row in rows),
        ]


def perturb(module: nn.Module) -> nn.Module:
    """Noise on all weights, so that biases and norms are not the neutral ones of the start."""
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in module.parameters():
            weight.add_(0.2 * torch.randn_like(weight))
    return module


def layer_config(**fields) -> ProxyFormerConfig:
    return tiny_config(hidden_size=CHANNELS, num_queries=PROXIES, num_hidden_layers=2, **fields)


def assert_same_gradients(
    ours: list[Tensor], expected: list[Tensor], leaves: dict[str, Tensor], tolerance: float = 1e-5
):
    """Outputs agree, and so do the gradients of all leaves when random numbers flow back."""
    flows = [torch.randn_like(output) / output.numel() ** 0.5 for output in expected]
    torch.testing.assert_close(ours, expected, atol=tolerance, rtol=tolerance)
    gradients = torch.autograd.grad(ours, list(leaves.values()), flows)
    reference = torch.autograd.grad(expected, list(leaves.values()), flows)
    for name, gradient, wanted in zip(leaves, gradients, reference, strict=True):
        torch.testing.assert_close(
            gradient, wanted, atol=tolerance, rtol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
        )


LAYER_VARIANTS = {
    "paper": {},
    "no_proxy_to_video": {"proxy_to_video": False},
    "text_to_video": {"text_to_video": True},
    "feed_forward": {"intermediate_size": 12},
    "pre_norm": {"pre_norm": True},
    "recipe": {"pre_norm": True, "intermediate_size": 12, "text_to_video": True},
}


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("padded", [False, True], ids=["whole", "padded"])
@pytest.mark.parametrize("interaction", ["decoupled", "full"])
@pytest.mark.parametrize("fields", LAYER_VARIANTS.values(), ids=LAYER_VARIANTS.keys())
def test_layer_equals_the_equations(fields, interaction, padded, attention):
    config = layer_config(interaction=interaction, **fields)
    config._attn_implementation = attention
    layer = perturb(ProxyFormerCMIELayer(config))
    clips = Clips(padded)
    video, proxies, words = layer(clips.video, clips.proxies, clips.words, *clips.tokens())
    assert words is clips.words

    expected = [reference_layer(layer, *clips.clip(row)) for row in range(BATCH)]
    leaves = {"video": clips.video, "proxies": clips.proxies, "words": clips.words}
    assert_same_gradients(
        clips.cut(video, proxies),
        [*(row[0] for row in expected), *(row[1] for row in expected)],
        {**leaves, **dict(layer.named_parameters())},
    )


@pytest.mark.parametrize("interaction", ["decoupled", "full"])
@pytest.mark.parametrize("pre_norm", [False, True], ids=["post_norm", "pre_norm"])
def test_encoder_stacks_layers_on_the_same_words_and_repeated_queries(interaction, pre_norm):
    encoder = perturb(
        ProxyFormerEncoder(layer_config(interaction=interaction, pre_norm=pre_norm))
    )
    clips = Clips(padded=True)
    video_tokens, _, valid_words = clips.tokens()
    outputs = encoder(clips.video, clips.words, video_tokens, valid_words)

    videos, states = [], []
    for row in range(BATCH):
        video, _, words, video_places, proxy_places = clips.clip(row)
        proxies = encoder.proxy_queries.repeat(len(video), 1, 1)
        for layer in encoder.layers:
            video, proxies = reference_layer(
                layer, video, proxies, words, video_places, proxy_places
            )
            states.append(norm(encoder.proxy_norm, proxies) if pre_norm else proxies)
        videos.append(norm(encoder.video_norm, video) if pre_norm else video)
    assert len(outputs.proxy_hidden_states) == 2
    torch.testing.assert_close(
        clips.cut(outputs.last_hidden_state, outputs.proxy_hidden_states[0])[2:], states[0::2]
    )
    assert_same_gradients(
        clips.cut(outputs.last_hidden_state, outputs.proxy_hidden_states[1]),
        [*videos, *states[1::2]],
        {"video": clips.video, "words": clips.words, **dict(encoder.named_parameters())},
    )
