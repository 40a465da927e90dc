# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""The interaction layers against a slow and literal reading of the paper's equations.

The reference takes one clip at a time and real tokens only, so it has nothing to mask. It loops
over frames and places, and physically replicates the pooled keys of the temporal attentions. It
reads the weights of the modules and calls none of them.
"""

import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from proxyformer_hf.configuration_proxyformer import ProxyFormerConfig
from proxyformer_hf.modeling_proxyformer import (
    ProxyFormerCMIELayer,
    ProxyFormerEncoder,
    ProxyFormerTokens,
)
from tests.tiny_model import perturb, tiny_config


@dataclass
class Places:
    """Positions of a clip's real tokens: `space` (Q, C), zero for proxies, and `time` (T, C)."""

    space: Tensor
    time: Tensor


def linear(weights: nn.Module, inputs: Tensor) -> Tensor:
    """nn.Linear; pre-norm layers have no such projection."""
    if isinstance(weights, nn.Identity):
        return inputs
    return inputs @ weights.weight.T + weights.bias


def norm(weights: nn.Module, inputs: Tensor) -> Tensor:
    """nn.LayerNorm; post-norm layers have none on what they read."""
    if isinstance(weights, nn.Identity):
        return inputs
    centred = inputs - inputs.mean(-1, keepdim=True)
    deviation = (centred.square().mean(-1, keepdim=True) + weights.eps).sqrt()
    return centred / deviation * weights.weight + weights.bias


def attend(weights: nn.Module, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Softmax attention of (q, C) on (k, C), head by head."""
    projected = (
        linear(weights.q_proj, queries),
        linear(weights.k_proj, keys),
        linear(weights.v_proj, values),
    )
    heads = (tensor.split(weights.head_dim, dim=-1) for tensor in projected)
    outputs = []
    for query, key, value in zip(*heads, strict=True):
        exponentials = (query @ key.T / math.sqrt(weights.head_dim)).exp()
        outputs.append(exponentials / exponentials.sum(-1, keepdim=True) @ value)
    return linear(weights.o_proj, torch.cat(outputs, dim=-1))


def spatio_temporal(
    block: nn.Module,
    hidden: Tensor,
    places: Places,
    context: Tensor | None = None,
    context_places: Places | None = None,
) -> Tensor:
    """Equations 2, 3 and 5: `hidden` (T, Q, C) reads itself, or a context (T, K, C)."""
    pre_norm = "input" in block.norms
    query = norm(block.norms["input"], hidden) if pre_norm else hidden
    pooled = context is not None
    if not pooled:
        context, context_places = query, places

    updates = {}
    if "joint" in block.attentions:
        update = attend(
            block.attentions["joint"],
            (query + places.space + places.time[:, None]).flatten(0, 1),
            (context + context_places.space + context_places.time[:, None]).flatten(0, 1),
            context.flatten(0, 1),
        )
        updates["joint"] = update.view(hidden.shape)
    else:
        frames = [
            attend(
                block.attentions["spatial"],
                query[frame] + places.space,
                context[frame] + context_places.space,
                context[frame],
            )
            for frame in range(query.shape[0])
        ]
        if pooled:
            context = context.mean(1)[:, None].repeat(1, query.shape[1], 1)
        tracks = [
            attend(
                block.attentions["temporal"],
                query[:, place] + places.time,
                context[:, place] + places.time,
                context[:, place],
            )
            for place in range(query.shape[1])
        ]
        updates = {"spatial": torch.stack(frames), "temporal": torch.stack(tracks, dim=1)}
    if pre_norm:
        return hidden + sum(updates.values())
    return sum(norm(block.norms[name], hidden + update) for name, update in updates.items())


def cross_attention(block: nn.Module, hidden: Tensor, places: Places, sequence: Tensor) -> Tensor:
    """Equation 4: every token of (T, Q, C) reads the same sequence (L, C)."""
    query = norm(block.norm, hidden) if block.pre_norm else hidden
    update = [attend(block.attention, frame + places.space, sequence, sequence) for frame in query]
    hidden = hidden + torch.stack(update)
    return hidden if block.pre_norm else norm(block.norm, hidden)


def feed_forward(block: nn.Module, hidden: Tensor) -> Tensor:
    if isinstance(block, nn.Identity):
        return hidden
    inputs = linear(block.up_proj, norm(block.norm, hidden) if block.pre_norm else hidden)
    update = linear(block.down_proj, inputs * (1 + torch.erf(inputs / math.sqrt(2))) / 2)
    return hidden + update if block.pre_norm else norm(block.norm, hidden + update)


def reference_cmie_layer(
    layer: nn.Module,
    video: Tensor,
    proxies: Tensor,
    words: Tensor,
    video_places: Places,
    proxy_places: Places,
) -> tuple[Tensor, Tensor, Tensor]:
    """Equation 1: video (T, H*W, C), proxies (T, N, C) and words (L, C) of the next layer."""
    encoded = spatio_temporal(
        layer.video_encoding, linear(layer.video_projection, video), video_places
    )
    if layer.text_to_video is not None:
        encoded = cross_attention(layer.text_to_video, encoded, video_places, words)
    if layer.proxy_to_video is not None:
        context = norm(layer.proxy_norm, proxies)
        encoded = spatio_temporal(
            layer.proxy_to_video, encoded, video_places, context, proxy_places
        )

    conditioned = cross_attention(
        layer.text_to_proxy,
        linear(layer.proxy_projection, proxies),
        proxy_places,
        linear(layer.word_projection, words),
    )
    context = norm(layer.video_norm, video)
    conditioned = spatio_temporal(
        layer.video_to_proxy, conditioned, proxy_places, context, video_places
    )
    return (
        feed_forward(layer.video_feed_forward, encoded),
        feed_forward(layer.proxy_feed_forward, conditioned),
        words,
    )


def reference_direct_layer(
    layer: nn.Module,
    video: Tensor,
    proxies: Tensor,
    words: Tensor,
    video_places: Places,
    proxy_places: Places,
) -> tuple[Tensor, Tensor, Tensor]:
    """Table VIII (b): video and words read each other; proxies pass."""
    encoded = spatio_temporal(
        layer.video_encoding, linear(layer.video_projection, video), video_places
    )
    encoded = cross_attention(
        layer.text_to_video, encoded, video_places, norm(layer.word_norm, words)
    )
    context = norm(layer.video_norm, video).flatten(0, 1)
    sentence = linear(layer.word_projection, words)[None]
    updated = cross_attention(layer.video_to_text, sentence, proxy_places, context)[0]
    return (
        feed_forward(layer.video_feed_forward, encoded),
        proxies,
        feed_forward(layer.word_feed_forward, updated),
    )


def reference_decoder_layer(
    layer: nn.Module, queries: Tensor, video: Tensor, query_places: Places, video_places: Places
) -> Tensor:
    """Queries (T, N, C) of a variant without proxies in the interaction read the video."""
    queries = spatio_temporal(layer.query_encoding, queries, query_places)
    context = norm(layer.video_norm, video)
    queries = spatio_temporal(layer.video_to_query, queries, query_places, context, video_places)
    return feed_forward(layer.query_feed_forward, queries)


def reference_encoder(
    module: nn.Module, video: Tensor, words: Tensor, video_places: Places, proxy_places: Places
) -> tuple[Tensor, list[Tensor]]:
    """Encoded video (T, H*W, C), and the queries (T, N, C) after each layer that updates them."""
    queries = module.proxy_queries.repeat(len(video), 1, 1)
    states = []
    is_direct = module.config.interaction == "direct"
    layer_reference = reference_direct_layer if is_direct else reference_cmie_layer
    for layer in module.layers:
        video, queries, words = layer_reference(
            layer, video, queries, words, video_places, proxy_places
        )
        states.append(queries)
    if module.decoder_layers:
        queries, states = queries + words.mean(0), []
    for layer in module.decoder_layers:
        queries = reference_decoder_layer(layer, queries, video, proxy_places, video_places)
        states.append(queries)
    return norm(module.video_norm, video), [norm(module.proxy_norm, state) for state in states]


BATCH, FRAMES, PLACES, PROXIES, WORDS, CHANNELS = 2, 3, 6, 2, 4, 8


class Clips:
    """Random states of a batch. Padding: the second clip lacks a frame, two places and a word."""

    def __init__(self, padded: bool):
        torch.manual_seed(0)
        self.video = torch.randn(BATCH, FRAMES, PLACES, CHANNELS, requires_grad=True)
        self.proxies = torch.randn(BATCH, FRAMES, PROXIES, CHANNELS, requires_grad=True)
        self.words = torch.randn(BATCH, WORDS, CHANNELS, requires_grad=True)
        self.space = torch.randn(BATCH, 1, PLACES, CHANNELS)
        self.time = torch.randn(BATCH, FRAMES, 1, CHANNELS)
        self.frames = torch.ones(BATCH, FRAMES, dtype=torch.bool)
        self.places = torch.ones(BATCH, PLACES, dtype=torch.bool)
        self.valid_words = torch.ones(BATCH, WORDS, dtype=torch.bool)
        self.padded = padded
        if padded:
            self.frames[1, -1] = self.valid_words[1, -1] = False
            self.places[1, [2, 5]] = False

    def tokens(self) -> tuple[ProxyFormerTokens, ProxyFormerTokens, Tensor | None]:
        """What a layer gets: tokens of the video and of the proxies, and the mask of the words."""
        masks = (self.frames, self.places, self.valid_words) if self.padded else (None, None, None)
        frames, places, words = masks
        return (
            ProxyFormerTokens(self.space, self.time, places, frames),
            ProxyFormerTokens(None, self.time, None, frames),
            words,
        )

    def clip(self, row: int):
        """What the reference gets: video, proxies, words and places of one clip, cut to size."""
        frames, places = self.frames[row], self.places[row]
        time = self.time[row, frames, 0]
        return (
            self.video[row, frames][:, places],
            self.proxies[row, frames],
            self.words[row, self.valid_words[row]],
            Places(self.space[row, 0, places], time),
            Places(torch.zeros(CHANNELS), time),
        )

    def cut(self, video: Tensor, *proxies: Tensor) -> list[Tensor]:
        """The real part of a batch of outputs, clip by clip."""
        outputs = []
        for row in range(BATCH):
            outputs.append(video[row, self.frames[row]][:, self.places[row]])
            outputs += [state[row, self.frames[row]] for state in proxies]
        return outputs


def assert_same_with_gradients(ours: list[Tensor], expected: list[Tensor], leaves: dict):
    """Outputs agree, and the gradients of all leaves when random numbers flow back."""
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)
    flows = [torch.randn_like(output) / output.numel() ** 0.5 for output in expected]
    gradients, wanted = (
        torch.autograd.grad(outputs, list(leaves.values()), flows) for outputs in (ours, expected)
    )
    torch.testing.assert_close(
        dict(zip(leaves, gradients, strict=True)),
        dict(zip(leaves, wanted, strict=True)),
        atol=1e-5,
        rtol=1e-5,
    )


def layer_config(**fields) -> ProxyFormerConfig:
    return tiny_config(hidden_size=CHANNELS, num_queries=PROXIES, num_hidden_layers=2, **fields)


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

    expected = []
    for row in range(BATCH):
        expected += reference_cmie_layer(layer, *clips.clip(row))[:2]
    leaves = {"video": clips.video, "proxies": clips.proxies, "words": clips.words}
    leaves.update(layer.named_parameters())
    assert_same_with_gradients(clips.cut(video, proxies), expected, leaves)


@pytest.mark.parametrize("fields", [{}, {"pre_norm": True, "intermediate_size": 12}])
@pytest.mark.parametrize("interaction", ["decoupled", "full", "direct", "conditional"])
def test_encoder_stacks_the_layers(interaction, fields):
    encoder = perturb(ProxyFormerEncoder(layer_config(interaction=interaction, **fields)))
    clips = Clips(padded=True)
    video_tokens, _, valid_words = clips.tokens()
    outputs = encoder(clips.video, clips.words, video_tokens, valid_words)
    assert len(outputs.proxy_hidden_states) == 2

    expected = []
    for row in range(BATCH):
        video, _, words, *places = clips.clip(row)
        video, states = reference_encoder(encoder, video, words, *places)
        expected += [video, *states]
    leaves = {"video": clips.video, "words": clips.words, **dict(encoder.named_parameters())}
    ours = clips.cut(outputs.last_hidden_state, *outputs.proxy_hidden_states)
    assert_same_with_gradients(ours, expected, leaves)
