# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""ProxyFormer: referring video object segmentation with proxy queries between video and words.

The first public implementation of the paper "ProxyFormer"; the authors published no code. Equation
numbers are the paper's. Symbols: B videos, E expressions per video, R = B * E rows, T frames, N
proxies per frame, L words, C channels, H x W the encoded map.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import (
    AutoBackbone,
    AutoConfig,
    AutoModel,
    AutoModelForMaskGeneration,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
    TimmBackbone,
    TimmBackboneConfig,
    TimmWrapperConfig,
    TimmWrapperForImageClassification,
)
from transformers import initialization as init
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, PreTrainedModel
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs
from transformers.utils.generic import can_return_tuple, merge_with_config_defaults
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from . import modeling_nanodet, modeling_video_swin, timm_networks
from .configuration_nanodet import NanoDetConfig
from .configuration_proxyformer import ProxyFormerConfig
from .loss_proxyformer import (
    MASK_STRIDE,
    LossCounts,
    ReferringPrediction,
    prepare_targets,
    proxyformer_loss,
)
from .masks import keep_surest_region

CANVAS = 32  # every frame is padded to a multiple of the coarsest stride
SCORE_EPS = 1e-6  # bounds the logit of a score
MAX_LOGIT_SCALE = math.log(100)  # as CLIP bounds its temperature
RARE = 0.01  # probability of a class anywhere, which detectors start from under a focal loss
MIN_CLASS_PROBABILITY = 1e-4  # bounds its logit
TINY = 1e-20  # bounds a logarithm


@dataclass
class ProxyFormerVideoFeatures(ModelOutput):
    """What depends on the video alone; compute it once and reuse it for every expression.

    Attributes:
        encoded_map (`Tensor` (B, T, C, H, W)): projected map at the encoded stride.
        lateral_maps (`tuple[Tensor]` of (B, T', C, h_i, w_i)):
            Projected finer maps, coarse to fine, of all frames, or of the last T' alone: these get
            masks, those before are looked back on.
        class_map (`Tensor` (B, T, num_labels, H, W), *optional*):
            Probability of each of the detector's classes, at the encoded stride.
        kind_logits (`Tensor` (B, T, num_kinds, ceil(h/32), ceil(w/32)), *optional*):
            The classifier's, less their mean over kinds.
        extents (`Tensor` (B, 3), *optional*):
            Frames, rows and columns of each video, the latter two in units of 32 pixels; `None`
            when all videos fill the batch.
        frame_size (`tuple[int, int]`): height and width in pixels of the input.
        frame_mask (`Tensor` (B, T), *optional*), pixel_mask (`Tensor` (B, h, w), *optional*)
    """

    encoded_map: Tensor | None = None
    lateral_maps: tuple[Tensor, ...] | None = None
    class_map: Tensor | None = None
    kind_logits: Tensor | None = None
    extents: Tensor | None = None
    frame_size: tuple[int, int] | None = None
    frame_mask: Tensor | None = None
    pixel_mask: Tensor | None = None


@dataclass
class ProxyFormerEncoderOutput(ModelOutput):
    """
    Attributes:
        last_hidden_state (`Tensor` (R, T, H*W, C)): encoded video tokens F_v^K.
        proxy_hidden_states (`tuple[Tensor]` of (R, T, N, C)): proxies after each layer, Q^1..Q^K.
        hidden_states (`tuple[Tensor]` of (R, T, H*W, C)): video tokens before and after each layer.
        attentions (`tuple[Tensor]`): V2P attention of every layer, proxies to pixels of a frame,
            (R*T, heads, N, H*W).
        cross_attentions (`tuple[Tensor]`): T2P attention of every layer, proxies to words,
            (R, heads, T*N, L).
    """

    last_hidden_state: Tensor | None = None
    proxy_hidden_states: tuple[Tensor, ...] | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    cross_attentions: tuple[Tensor, ...] | None = None


@dataclass
class ProxyFormerModelOutput(ModelOutput):
    """
    Attributes:
        last_hidden_state (`Tensor` (R, T, C, H, W)): encoded video F_v^K.
        proxy_queries (`Tensor` (R, T, N, C)): proxies Q^K of the last layer.
        proxy_hidden_states (`tuple[Tensor]` of (R, T, N, C)): proxies after each layer.
        mask_features (`Tensor` (R, T', C_m, ceil(h/4), ceil(w/4))):
            F_seg, of the frames whose lateral maps there are.
        text_hidden_state (`Tensor` (R, L, C)): projected words F_t.
        pooled_video (`Tensor` (R, C)): mean of F_v^K over frames and places.
        pooled_text (`Tensor` (R, C)): mean of the words.
        grounding_logits (`Tensor` (R, T, H, W), *optional*): sentence-to-pixel similarity.
        frame_mask, pixel_mask: those of the input, one row per expression.
        hidden_states, attentions, cross_attentions: see `ProxyFormerEncoderOutput`.
    """

    last_hidden_state: Tensor | None = None
    proxy_queries: Tensor | None = None
    proxy_hidden_states: tuple[Tensor, ...] | None = None
    mask_features: Tensor | None = None
    text_hidden_state: Tensor | None = None
    pooled_video: Tensor | None = None
    pooled_text: Tensor | None = None
    grounding_logits: Tensor | None = None
    frame_mask: Tensor | None = None
    pixel_mask: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    cross_attentions: tuple[Tensor, ...] | None = None


@dataclass
class ProxyFormerReferringSegmentationOutput(ModelOutput):
    """
    Attributes:
        loss (`Tensor` ()): weighted sum of `loss_dict`, when `mask_labels` are given.
        loss_dict (`dict[str, Tensor]`): the unweighted terms.
        pred_masks (`Tensor` (R, T, N, ceil(h/4), ceil(w/4))): mask logits of every proxy.
        pred_logits (`Tensor` (R, T, N)): logit that the proxy is the referred object.
        pred_boxes (`Tensor` (R, T, N, 4)): (cx, cy, w, h) in [0, 1] of the unpadded frame.
        proxy_queries (`Tensor` (R, T, N, C)): Q^K.
        referred_masks (`Tensor` (R, T, ceil(h/4), ceil(w/4))): the answer's mask logits.
        referred_boxes (`Tensor` (R, T, 4)): the answer's boxes, (cx, cy, w, h) in [0, 1].
        referred_scores (`Tensor` (R,)): probability in [0, 1] that the clip shows the object.
        frame_mask (`Tensor` (R, T)), pixel_mask (`Tensor` (R, h, w)): those of the input.
        video_hidden_state (`Tensor` (R, T, C, H, W)): encoded video F_v^K.
        hidden_states, attentions, cross_attentions: see `ProxyFormerEncoderOutput`.
    """

    loss: Tensor | None = None
    loss_dict: dict[str, Tensor] | None = None
    pred_masks: Tensor | None = None
    pred_logits: Tensor | None = None
    pred_boxes: Tensor | None = None
    proxy_queries: Tensor | None = None
    referred_masks: Tensor | None = None
    referred_boxes: Tensor | None = None
    referred_scores: Tensor | None = None
    frame_mask: Tensor | None = None
    pixel_mask: Tensor | None = None
    video_hidden_state: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    cross_attentions: tuple[Tensor, ...] | None = None


def sine_position(length: int, extent: Tensor | int, channels: int, like: Tensor) -> Tensor:
    """DETR's 1-D sine encoding of `length` places, scaled to (0, 2 pi) over `extent` of them.

    `extent` is one number or a tensor (B,); the result is (1 or B, length, channels).
    """
    place = torch.arange(length, device=like.device, dtype=torch.float32) + 0.5
    angle = place[None, :] * (2 * math.pi) / torch.as_tensor(extent, device=like.device).view(-1, 1)
    exponent = torch.arange(channels // 2, device=like.device, dtype=torch.float32)
    angle = angle[..., None] / 10000 ** (2 * exponent / channels)
    return torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(-2).to(like.dtype)


def masked_mean(hidden: Tensor, valid: Tensor | None, dim: int) -> Tensor:
    """Mean of `hidden` (..., C) over `dim` where `valid` (...) holds."""
    if valid is None:
        return hidden.mean(dim)
    weight = valid.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weight).sum(dim) / weight.sum(dim).clamp(min=1)


def for_each(tensor: Tensor, num_expressions: int) -> Tensor:
    """The rows (B, ...) for each expression of a video, (B * E, ...); of one, without a copy."""
    return tensor[:, None].expand(-1, num_expressions, *tensor.shape[1:]).flatten(0, 1)


def eager_attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Unpack[TransformersKwargs],
) -> tuple[Tensor, Tensor]:
    weights = (query * scaling) @ key.transpose(2, 3)
    if attention_mask is not None:
        weights = weights + attention_mask
    weights = weights.softmax(dim=-1)
    return (weights @ value).transpose(1, 2).contiguous(), weights


class ProxyFormerAttention(nn.Module):
    """Multi-head attention of `query` (b, q, C) on `key` and `value` (b, k, C); valid (b, k)."""

    def __init__(self, config: ProxyFormerConfig):
        super().__init__()
        self.config = config
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.scaling = self.head_dim**-0.5
        self.is_causal = False
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.o_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        valid: Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple[Tensor, Tensor | None]:
        mask = None
        if valid is not None:
            mask = create_bidirectional_mask(
                config=self.config,
                inputs_embeds=query,
                attention_mask=valid,
                encoder_hidden_states=key,
            )
        heads = (*query.shape[:2], -1, self.head_dim)
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        output, weights = attend(
            self,
            self.q_proj(query).view(heads).transpose(1, 2),
            self.k_proj(key).view(*key.shape[:2], -1, self.head_dim).transpose(1, 2),
            self.v_proj(value).view(*value.shape[:2], -1, self.head_dim).transpose(1, 2),
            mask,
            dropout=0.0,
            scaling=self.scaling,
            **kwargs,
        )
        return self.o_proj(output.reshape(query.shape)), weights


@dataclass
class ProxyFormerTokens:
    """Where the tokens of a clip are, and which of them are real.

    Attributes:
        space (`Tensor` (1 or R, 1, Q, C), *optional*): 2-D positions; proxies have none.
        time (`Tensor` (1 or R, T, 1, C)): 1-D positions.
        valid_tokens (`Tensor` (R, Q), *optional*): tokens of a frame that are not padding.
        valid_frames (`Tensor` (R, T), *optional*): frames that are not padding.
    """

    space: Tensor | None
    time: Tensor
    valid_tokens: Tensor | None
    valid_frames: Tensor | None

    def at_space(self, hidden: Tensor) -> Tensor:
        return hidden if self.space is None else hidden + self.space

    def at_time(self, hidden: Tensor) -> Tensor:
        return hidden + self.time

    def over_frames(self, num_frames: int) -> Tensor | None:
        """Valid tokens of each frame, (R*T, Q)."""
        if self.valid_tokens is None:
            return None
        return self.valid_tokens.repeat_interleave(num_frames, dim=0)

    def over_clip(self, num_frames: int, num_tokens: int) -> Tensor | None:
        """Valid tokens of the whole clip, (R, T*Q)."""
        if self.valid_frames is None:
            return None
        valid = self.valid_frames[:, :, None].expand(-1, -1, num_tokens)
        if self.valid_tokens is not None:
            valid = valid & self.valid_tokens[:, None, :]
        return valid.flatten(1)


class ProxyFormerSpatioTemporalAttention(nn.Module):
    """Attention over space and over time in parallel, summed (eq. 2, 3 and 5); or joint over both.

    The queries (R, T, Q, C) attend to themselves, or to a `context` (R, T, K, C). Over space a
    token sees the tokens of its frame. Over time it sees its own place in all frames, or the mean
    of the context in each frame: every token of a clip reads the same T keys, which are therefore
    never replicated. Each branch ends in its own residual and norm (`pre_norm`: one norm before).
    """

    def __init__(self, config: ProxyFormerConfig):
        super().__init__()
        self.pre_norm = config.pre_norm
        self.joint = config.interaction == "full"
        branches = ("joint",) if self.joint else ("spatial", "temporal")
        self.attentions = nn.ModuleDict({name: ProxyFormerAttention(config) for name in branches})
        norms = ("input",) if self.pre_norm else branches
        self.norms = nn.ModuleDict({name: nn.LayerNorm(config.hidden_size) for name in norms})

    def forward(
        self,
        hidden: Tensor,
        tokens: ProxyFormerTokens,
        context: Tensor | None = None,
        context_tokens: ProxyFormerTokens | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> Tensor:
        query = self.norms["input"](hidden) if self.pre_norm else hidden
        if self.joint:
            branches = {"joint": self.attend_jointly}
        else:
            over_time = self.attend_over_time if context is None else self.attend_over_frame_means
            branches = {"spatial": self.attend_over_space, "temporal": over_time}
        if context is None:
            context, context_tokens = query, tokens
        updates = {
            name: attend(self.attentions[name], query, tokens, context, context_tokens, **kwargs)
            for name, attend in branches.items()
        }
        if self.pre_norm:
            return sum(updates.values(), start=hidden)
        return sum(self.norms[name](hidden + update) for name, update in updates.items())

    @staticmethod
    def attend_over_space(attention, query, tokens, context, context_tokens, **kwargs) -> Tensor:
        update, _ = attention(
            tokens.at_space(query).flatten(0, 1),
            context_tokens.at_space(context).flatten(0, 1),
            context.flatten(0, 1),
            context_tokens.over_frames(query.shape[1]),
            **kwargs,
        )
        return update.view(query.shape)

    @staticmethod
    def attend_over_time(attention, query, tokens, context, context_tokens, **kwargs) -> Tensor:
        by_place = context.transpose(1, 2)
        located = tokens.at_time(context).transpose(1, 2).flatten(0, 1)
        valid = tokens.valid_frames
        if valid is not None:
            valid = valid.repeat_interleave(query.shape[2], dim=0)
        update, _ = attention(located, located, by_place.flatten(0, 1), valid, **kwargs)
        return update.view(by_place.shape).transpose(1, 2)

    @staticmethod
    def attend_over_frame_means(
        attention, query, tokens, context, context_tokens, **kwargs
    ) -> Tensor:
        valid = context_tokens.valid_tokens
        if valid is not None:
            valid = valid[:, None, :].expand(context.shape[:3])
        means = masked_mean(context, valid, dim=2)
        update, _ = attention(
            tokens.at_time(query).flatten(1, 2),
            context_tokens.at_time(means[:, :, None])[:, :, 0],
            means,
            context_tokens.valid_frames,
            **kwargs,
        )
        return update.view(query.shape)

    @staticmethod
    def attend_jointly(attention, query, tokens, context, context_tokens, **kwargs) -> Tensor:
        update, _ = attention(
            tokens.at_time(tokens.at_space(query)).flatten(1, 2),
            context_tokens.at_time(context_tokens.at_space(context)).flatten(1, 2),
            context.flatten(1, 2),
            context_tokens.over_clip(*context.shape[1:3]),
            **kwargs,
        )
        return update.view(query.shape)


class ProxyFormerCrossAttention(nn.Module):
    """Residual attention of all tokens of a clip (R, T, Q, C) to one sequence (R, L, C)."""

    def __init__(self, config: ProxyFormerConfig):
        super().__init__()
        self.pre_norm = config.pre_norm
        self.attention = ProxyFormerAttention(config)
        self.norm = nn.LayerNorm(config.hidden_size)

    def forward(
        self,
        hidden: Tensor,
        tokens: ProxyFormerTokens,
        sequence: Tensor,
        valid: Tensor | None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> Tensor:
        query = self.norm(hidden) if self.pre_norm else hidden
        located = tokens.at_space(query).flatten(1, 2)
        update, _ = self.attention(located, sequence, sequence, valid, **kwargs)
        hidden = hidden + update.view(hidden.shape)
        return hidden if self.pre_norm else self.norm(hidden)


class ProxyFormerFeedForward(nn.Module):
    """Residual two-layer perceptron on (..., C)."""

    def __init__(self, config: ProxyFormerConfig):
        super().__init__()
        self.pre_norm = config.pre_norm
        self.norm = nn.LayerNorm(config.hidden_size)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden: Tensor) -> Tensor:
        inputs = self.norm(hidden) if self.pre_norm else hidden
        hidden = hidden + self.down_proj(F.gelu(self.up_proj(inputs)))
        return hidden if self.pre_norm else self.norm(hidden)


def norm_before(config: ProxyFormerConfig) -> nn.Module:
    """The norm of what a pre-norm layer reads; post-norm layers hand on normed states."""
    return nn.LayerNorm(config.hidden_size) if config.pre_norm else nn.Identity()


def input_projection(config: ProxyFormerConfig) -> nn.Module:
    """The paper's Linear in front of a block (eq. 2, 4); it would cut a pre-norm residual path."""
    return nn.Identity() if config.pre_norm else nn.Linear(config.hidden_size, config.hidden_size)


def feed_forward(config: ProxyFormerConfig) -> nn.Module:
    return ProxyFormerFeedForward(config) if config.intermediate_size else nn.Identity()


class ProxyFormerCMIELayer(GradientCheckpointingLayer):
    """One Cross-Modality Interaction Encoding layer (eq. 1-5, figures 2 and 3).

    Both blocks read only the previous layer's video F^{k-1} and proxies Q^{k-1}.
    """

    def __init__(self, config: ProxyFormerConfig):
        super().__init__()
        self.video_norm = norm_before(config)
        self.proxy_norm = norm_before(config)
        self.video_projection = input_projection(config)
        self.video_encoding = ProxyFormerSpatioTemporalAttention(config)
        self.text_to_video = ProxyFormerCrossAttention(config) if config.text_to_video else None
        self.proxy_to_video = (
            ProxyFormerSpatioTemporalAttention(config) if config.proxy_to_video else None
        )
        self.video_feed_forward = feed_forward(config)
        self.proxy_projection = input_projection(config)
        self.word_projection = input_projection(config)
        self.text_to_proxy = ProxyFormerCrossAttention(config)
        self.video_to_proxy = ProxyFormerSpatioTemporalAttention(config)
        self.proxy_feed_forward = feed_forward(config)

    def forward(
        self,
        video: Tensor,
        proxies: Tensor,
        words: Tensor,
        video_tokens: ProxyFormerTokens,
        proxy_tokens: ProxyFormerTokens,
        valid_words: Tensor | None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple[Tensor, Tensor, Tensor]:
        video_context, proxy_context = self.video_norm(video), self.proxy_norm(proxies)

        encoded = self.video_encoding(self.video_projection(video), video_tokens, **kwargs)
        if self.text_to_video is not None:
            encoded = self.text_to_video(encoded, video_tokens, words, valid_words, **kwargs)
        if self.proxy_to_video is not None:
            encoded = self.proxy_to_video(
                encoded, video_tokens, proxy_context, proxy_tokens, **kwargs
            )

        conditioned = self.text_to_proxy(
            self.proxy_projection(proxies),
            proxy_tokens,
            self.word_projection(words),
            valid_words,
            **kwargs,
        )
        conditioned = self.video_to_proxy(
            conditioned, proxy_tokens, video_context, video_tokens, **kwargs
        )
        return self.video_feed_forward(encoded), self.proxy_feed_forward(conditioned), words


class ProxyFormerDirectLayer(GradientCheckpointingLayer):
    """Video and words attend to each other, without proxies (table VIII (b))."""

    def __init__(self, config: ProxyFormerConfig):
        super().__init__()
        self.video_norm = norm_before(config)
        self.video_projection = input_projection(config)
        self.video_encoding = ProxyFormerSpatioTemporalAttention(config)
        self.text_to_video = ProxyFormerCrossAttention(config)
        self.video_feed_forward = feed_forward(config)
        self.word_norm = norm_before(config)
        self.word_projection = input_projection(config)
        self.video_to_text = ProxyFormerCrossAttention(config)
        self.word_feed_forward = feed_forward(config)

    def forward(
        self,
        video: Tensor,
        proxies: Tensor,
        words: Tensor,
        video_tokens: ProxyFormerTokens,
        proxy_tokens: ProxyFormerTokens,
        valid_words: Tensor | None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple[Tensor, Tensor, Tensor]:
        context, word_context = self.video_norm(video), self.word_norm(words)
        encoded = self.video_encoding(self.video_projection(video), video_tokens, **kwargs)
        encoded = self.text_to_video(encoded, video_tokens, word_context, valid_words, **kwargs)
        no_position = ProxyFormerTokens(None, proxy_tokens.time, None, None)
        updated = self.video_to_text(
            self.word_projection(words)[:, None],
            no_position,
            context.flatten(1, 2),
            video_tokens.over_clip(*context.shape[1:3]),
            **kwargs,
        )
        words = self.word_feed_forward(updated[:, 0])
        return self.video_feed_forward(encoded), proxies, words


class ProxyFormerQueryDecoderLayer(GradientCheckpointingLayer):
    """Queries of a frame read each other, the frame's video tokens, and pass a perceptron.

    It decodes the queries of the variants without proxies in their interaction.
    """

    def __init__(self, config: ProxyFormerConfig):
        super().__init__()
        self.query_encoding = ProxyFormerSpatioTemporalAttention(config)
        self.video_norm = norm_before(config)
        self.video_to_query = ProxyFormerSpatioTemporalAttention(config)
        self.query_feed_forward = feed_forward(config)

    def forward(
        self,
        queries: Tensor,
        video: Tensor,
        query_tokens: ProxyFormerTokens,
        video_tokens: ProxyFormerTokens,
        **kwargs: Unpack[TransformersKwargs],
    ) -> Tensor:
        queries = self.query_encoding(queries, query_tokens, **kwargs)
        context = self.video_norm(video)
        queries = self.video_to_query(queries, query_tokens, context, video_tokens, **kwargs)
        return self.query_feed_forward(queries)


class ProxyFormerPreTrainedModel(PreTrainedModel):
    """Weights, attention back ends and what every ProxyFormer module shares."""

    config: ProxyFormerConfig
    base_model_prefix = "model"
    main_input_name = "pixel_values_videos"
    input_modalities = ("video", "text")
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = False
    _no_split_modules = [
        "ProxyFormerCMIELayer",
        "ProxyFormerDirectLayer",
        "ProxyFormerQueryDecoderLayer",
    ]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    def post_init(self):
        super().post_init()
        # FSDP wraps the layers named here: of all parts, and only those that this model has.
        parts = [part for part in self.modules() if isinstance(part, PreTrainedModel)]
        declared = {name for part in parts for name in part._no_split_modules or ()}
        self._no_split_modules = declared & {type(module).__name__ for module in self.modules()}

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        super()._init_weights(module)
        if isinstance(module, ProxyFormerAddition | ProxyFormerTemporalConvolution):
            init.zeros_(module.weight)
        elif isinstance(module, nn.Linear | nn.Conv2d):
            init.xavier_uniform_(module.weight)
        elif isinstance(module, ProxyFormerEncoder):
            init.normal_(module.proxy_queries, std=self.config.initializer_range)
        elif isinstance(module, ProxyFormerTextFusion) and self.config.grounding_map:
            init.zeros_(module.grounding_bias)
            if module.meaning_projection is not None:
                init.zeros_(module.meaning_projection.weight)
                if self.config.detector_config is not None:
                    init.constant_(module.class_scale, math.log(20))
                    init.constant_(module.class_gain, 0.5)
        elif isinstance(module, ProxyFormerKinds):
            init.constant_(module.scale, math.log(25))
            init.constant_(module.gain, 0.15)
            init.zeros_(module.meanings)
        elif isinstance(module, ProxyFormerModel):
            for words in (module.class_hidden, module.class_embeddings):
                if words is not None:
                    init.zeros_(words)
        elif isinstance(module, ProxyFormerForReferringSegmentation):
            # the focal loss wants rare positives at the start, as in the baseline
            init.constant_(module.class_head.bias, -math.log((1 - 0.01) / 0.01))
            if self.config.jsc_semantics != "none":
                init.constant_(module.logit_scale, math.log(1 / 0.07))


class ProxyFormerEncoder(ProxyFormerPreTrainedModel):
    """K interaction layers on video tokens and N learned proxies repeated over the frames (eq. 1).

    Variants without proxies in the interaction decode sentence-conditioned queries afterwards.
    """

    _can_record_outputs = {
        "hidden_states": [
            OutputRecorder(ProxyFormerCMIELayer),
            OutputRecorder(ProxyFormerDirectLayer),
        ],
        "attentions": [
            OutputRecorder(ProxyFormerAttention, index=1, layer_name=f"{block}.attentions.{branch}")
            for block in ("video_to_proxy", "video_to_query")
            for branch in ("spatial", "joint")
        ],
        "cross_attentions": OutputRecorder(
            ProxyFormerAttention, index=1, layer_name="text_to_proxy"
        ),
    }

    def __init__(self, config: ProxyFormerConfig):
        super().__init__(config)
        self.proxy_queries = nn.Parameter(torch.empty(config.num_queries, config.hidden_size))
        layer = ProxyFormerDirectLayer if config.interaction == "direct" else ProxyFormerCMIELayer
        num_layers = 0 if config.interaction == "conditional" else config.num_hidden_layers
        self.layers = nn.ModuleList(layer(config) for _ in range(num_layers))
        decodes_queries = config.interaction in ("direct", "conditional")
        self.decoder_layers = nn.ModuleList(
            ProxyFormerQueryDecoderLayer(config)
            for _ in range(config.num_hidden_layers if decodes_queries else 0)
        )
        self.video_norm = norm_before(config)
        self.proxy_norm = norm_before(config)
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(
        self,
        video: Tensor,
        words: Tensor,
        video_tokens: ProxyFormerTokens,
        valid_words: Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> ProxyFormerEncoderOutput:
        """`video` (R, T, H*W, C), `words` (R, L, C), `valid_words` (R, L)."""
        proxies = self.proxy_queries.expand(*video.shape[:2], -1, -1)
        proxy_tokens = ProxyFormerTokens(None, video_tokens.time, None, video_tokens.valid_frames)
        states = []
        for layer in self.layers:
            video, proxies, words = layer(
                video, proxies, words, video_tokens, proxy_tokens, valid_words, **kwargs
            )
            states.append(proxies)
        if self.decoder_layers:
            sentence = masked_mean(words, valid_words, dim=1)
            proxies, states = proxies + sentence[:, None, None], []
        for layer in self.decoder_layers:
            proxies = layer(proxies, video, proxy_tokens, video_tokens, **kwargs)
            states.append(proxies)
        return ProxyFormerEncoderOutput(
            last_hidden_state=self.video_norm(video),
            proxy_hidden_states=tuple(self.proxy_norm(state) for state in states),
        )


class ProxyFormerChannelLayerNorm(nn.LayerNorm):
    """Layer norm over the channels of (b, C, h, w): unlike group norm, blind to padding."""

    def forward(self, hidden: Tensor) -> Tensor:
        return super().forward(hidden.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ProxyFormerContextNeck(nn.Module):
    """DeepLabV3's head without its dilated branches: 1x1 and image pooling, joined by a 1x1."""

    def __init__(self, in_channels: int, width: int):
        super().__init__()
        self.pixel_conv = nn.Conv2d(in_channels, width, 1)
        self.image_conv = nn.Conv2d(in_channels, width, 1)
        self.join_conv = nn.Conv2d(2 * width, width, 1)

    def forward(self, features: Tensor) -> Tensor:
        image = F.relu(self.image_conv(features.mean((2, 3), keepdim=True)))
        pixel = F.relu(self.pixel_conv(features))
        return F.relu(self.join_conv(torch.cat((image.expand_as(pixel), pixel), dim=1)))


class ProxyFormerAddition(nn.Conv2d):
    """Convolution whose result is added to a map that others rely on: it starts at zero."""


class ProxyFormerTemporalConvolution(nn.Conv3d):
    """Residual 3x3x3 convolution of the encoded map (B, T, C, H, W). It starts at zero, where
    training on single frames leaves the weights of other frames."""

    def __init__(self, config: ProxyFormerConfig):
        super().__init__(config.hidden_size, config.hidden_size, 3, padding=1)
        self.encoded_stride = config.encoded_stride

    def forward(self, video: Tensor, extents: Tensor | None) -> Tensor:
        inputs = video
        if extents is not None:  # what lies beyond a clip must be the zeros of its own border
            places = valid_places(extents, *video.shape[-2:], self.encoded_stride)
            frames = torch.arange(video.shape[1], device=video.device) < extents[:, :1]
            inputs = video * (places[:, None] & frames[:, :, None, None])[:, :, None]
        return video + super().forward(inputs.transpose(1, 2)).transpose(1, 2)


class ProxyFormerVideoEncoder(nn.Module):
    """Backbone, and its maps projected to C channels (C_m at stride 4)."""

    def __init__(self, config: ProxyFormerConfig):
        super().__init__()
        self.backbone = AutoBackbone.from_config(config.vision_config)
        if config.folded_batch_norm:
            timm_networks.fold_batch_norms(self.backbone)
        self.levels = backbone_levels(self.backbone, config.encoded_stride)
        timm_network = getattr(self.backbone, "_backbone", None)
        self.channels_last = getattr(timm_network, "output_fmt", "NCHW") == "NHWC"
        channels = [self.backbone.channels[level] for level in self.levels]
        self.neck = None
        if config.vision_neck_size:
            self.neck = ProxyFormerContextNeck(channels[0], config.vision_neck_size)
            channels[0] = config.vision_neck_size
        widths = [config.hidden_size] * (len(channels) - 1) + [config.mask_feature_size]
        self.projections = nn.ModuleList(
            nn.Sequential(nn.Conv2d(size, width, 1), ProxyFormerChannelLayerNorm(width))
            for size, width in zip(channels, widths, strict=True)
        )
        self.pixel_lateral = None
        if config.pixel_lateral:
            width = config.mask_feature_size
            self.pixel_lateral = nn.Sequential(
                nn.Conv2d(3, width, 4, stride=4), nn.ReLU(), nn.Conv2d(width, width, 1)
            )
        self.temporal_convolution = None
        if config.temporal_convolution:
            self.temporal_convolution = ProxyFormerTemporalConvolution(config)
        self.detector = None
        if config.detector_config is not None:
            self.detector = modeling_nanodet.NanoDetBackbone(config.detector_config)
            levels = backbone_levels(self.detector, config.encoded_stride, "detector_config")
            self.detector_level = levels[0]
            size = self.detector.channels[self.detector_level]
            self.detector_projection = nn.Conv2d(size, config.hidden_size, 1)
        self.classifier = None
        if config.classifier_config is not None:
            self.classifier = timm_networks.ProxyFormerClassifier(config.classifier_config)
            size = self.classifier.num_features
            self.classifier_projection = ProxyFormerAddition(size, config.hidden_size, 1)

    def forward(
        self,
        pixel_values_videos: Tensor,
        frame_mask: Tensor | None,
        pixel_mask: Tensor | None,
        glance_every: int,
    ) -> ProxyFormerVideoFeatures:
        num_frames, _, height, width = pixel_values_videos.shape[1:]
        pixels = pixel_values_videos
        if pixel_mask is not None:  # a video's own padding up to the canvas is zeros
            pixels = pixels.masked_fill(~pixel_mask.bool()[:, None, None], 0)
        pixels = F.pad(pixels, (0, -width % CANVAS, 0, -height % CANVAS))
        extents = video_extents(frame_mask, pixel_mask, pixels)
        if extents is None:
            maps = self.encode(pixels, glance_every)
        else:
            maps = self.encode_each(pixels, extents, glance_every)
        maps, seen = maps[: len(self.levels)], maps[len(self.levels) :]
        maps = [
            projection(features.flatten(0, 1)).unflatten(0, (-1, num_frames))
            for projection, features in zip(self.projections, maps, strict=True)
        ]
        if self.pixel_lateral is not None:
            cells = self.pixel_lateral(pixels.flatten(0, 1))
            maps[-1] = maps[-1] + cells.unflatten(0, (-1, num_frames))
        class_map = kind_logits = None
        if self.detector is not None:
            features, class_map, *seen = seen
            projected = self.detector_projection(features.flatten(0, 1))
            maps[0] = maps[0] + projected.unflatten(0, (-1, num_frames))
        if self.classifier is not None:
            features, kind_logits = seen
            projected = self.classifier_projection(features.flatten(0, 1))
            projected = repeat_places(projected, maps[0].shape[-1] // projected.shape[-1])
            maps[0] = maps[0] + projected.unflatten(0, (-1, num_frames))
        if self.temporal_convolution is not None:
            maps[0] = self.temporal_convolution(maps[0], extents)
        return ProxyFormerVideoFeatures(
            encoded_map=maps[0],
            lateral_maps=tuple(maps[1:]),
            class_map=class_map,
            kind_logits=kind_logits,
            extents=extents,
            frame_size=(height, width),
            frame_mask=frame_mask,
            pixel_mask=pixel_mask,
        )

    def encode(self, pixels: Tensor, glance_every: int) -> list[Tensor]:
        """Maps (b, T, C_i, h_i, w_i) of the levels in use, coarse to fine, of the detector and of
        the classifier."""
        num_frames = pixels.shape[1]
        frames = pixels.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        if self.backbone.main_input_name == "pixel_values_videos":
            maps = [features.flatten(0, 1) for features in self.backbone(pixels).feature_maps]
        else:
            maps = self.encode_frames(frames, lambda part: self.backbone(part).feature_maps)
            if self.channels_last:
                maps = [features.permute(0, 3, 1, 2) for features in maps]
        maps = [maps[level] for level in self.levels]
        if self.neck is not None:
            maps[0] = self.neck(maps[0])
        maps = [features.unflatten(0, (-1, num_frames)) for features in maps]
        if self.detector is not None:
            maps += self.glance(frames, num_frames, self.detect, glance_every)
        if self.classifier is not None:
            maps += self.glance(frames, num_frames, self.classifier, glance_every)
        return maps

    @staticmethod
    def encode_frames(
        frames: Tensor, network: Callable[[Tensor], tuple[Tensor, ...]]
    ) -> list[Tensor]:
        """Maps that a per-frame network makes of frames (n, 3, h, w)."""
        # bfloat16 ruins networks with folded batch norm, such as the packaged one's
        with torch.autocast("cpu", enabled=False):
            parts = [network(part) for part in frames.split(part_size(frames))]
        return [torch.cat(level) for level in zip(*parts, strict=True)]

    def glance(
        self,
        frames: Tensor,
        num_frames: int,
        network: Callable[[Tensor], tuple[Tensor, ...]],
        every: int,
    ) -> list[Tensor]:
        """Maps (b, T, C, h, w) of a network that sees the middle one of each `every` frames (b * T,
        3, h, w), whose neighbours take over what was seen in it."""
        if every == 1:
            maps = self.encode_frames(frames, network)
            return [features.unflatten(0, (-1, num_frames)) for features in maps]
        place = torch.arange(num_frames, device=frames.device)
        middle = place[::every].add(every // 2).clamp(max=num_frames - 1)
        seen = frames.unflatten(0, (-1, num_frames))[:, middle].flatten(0, 1)
        maps = self.encode_frames(seen.contiguous(memory_format=torch.channels_last), network)
        return [f.unflatten(0, (-1, len(middle)))[:, place // every] for f in maps]

    def detect(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """The detector's features and class probabilities at the encoded stride."""
        outputs = self.detector(frames)
        features = outputs.feature_maps[self.detector_level]
        return features, join_class_maps(outputs.class_maps, features.shape[-2:])

    def encode_each(self, pixels: Tensor, extents: Tensor, glance_every: int) -> list[Tensor]:
        """Encodes every video at its own size, so that padding cannot leak into it."""
        maps = None
        for extent in extents.unique(dim=0).tolist():
            rows = (extents == extents.new_tensor(extent)).all(1).nonzero()[:, 0]
            frames, height, width = extent[0], extent[1] * CANVAS, extent[2] * CANVAS
            own = self.encode(pixels[rows, :frames, :, :height, :width], glance_every)
            if maps is None:
                scales = [features.shape[-1] / width for features in own]
                maps = [
                    features.new_zeros(
                        *pixels.shape[:2],
                        features.shape[2],
                        *(int(size * scale) for size in pixels.shape[-2:]),
                    )
                    for features, scale in zip(own, scales, strict=True)
                ]
            for canvas, features in zip(maps, own, strict=True):
                canvas[rows, :frames, :, : features.shape[-2], : features.shape[-1]] = features
        return maps


def repeat_places(maps: Tensor, times: int) -> Tensor:
    """Maps (..., h, w) in which each place covers `times` x `times`: no place mixes with those
    beyond a video's border."""
    return maps.repeat_interleave(times, -2).repeat_interleave(times, -1)


def part_size(frames: Tensor) -> int:
    """How many of the frames (n, 3, h, w) a per-frame network is given at once.

    All of them, but eight on a CPU that does not train: as fast, and one map of a clip of 36
    frames of 256x448 can take 400 MB.
    """
    at_once = not frames.is_cpu or torch.is_grad_enabled() or torch.compiler.is_compiling()
    return len(frames) if at_once else 8


def join_class_maps(class_maps: tuple[Tensor, ...], size: torch.Size) -> Tensor:
    """The largest probability of each class among maps of several strides: one map of `size`."""
    joined = [
        F.adaptive_max_pool2d(probabilities, size)
        if probabilities.shape[-1] > size[-1]
        else F.interpolate(probabilities, size)
        for probabilities in class_maps
    ]
    return torch.stack(joined).amax(0)


def backbone_levels(
    backbone: PreTrainedModel, encoded_stride: int, field: str = "vision_config"
) -> list[int]:
    """Indices of the backbone's maps at the encoded stride and all finer ones down to 4."""
    if hasattr(backbone, "_backbone"):
        strides = backbone._backbone.feature_info.reduction()
    else:  # transformers counts the stem as stage 0; it has the stride of stage 1, the patches'
        patch_size = getattr(backbone.config, "patch_size", 4)
        finest = patch_size if isinstance(patch_size, int) else patch_size[-1]
        strides = [finest * 2 ** max(index - 1, 0) for index in backbone.out_indices]
    last_at = {stride: level for level, stride in enumerate(strides)}
    wanted = [stride for stride in (32, 16, 8, 4) if stride <= encoded_stride]
    missing = [stride for stride in wanted if stride not in last_at]
    if missing:
        raise ValueError(
            f"`{field}` gives maps at strides {strides}, but `encoded_stride="
            f"{encoded_stride}` also needs {missing}. Choose other `out_indices` or another stride."
        )
    return [last_at[stride] for stride in wanted]


def video_extents(
    frame_mask: Tensor | None, pixel_mask: Tensor | None, pixels: Tensor
) -> Tensor | None:
    """Frames, rows and columns (in units of 32 pixels) of each video (B, 3); None: all are full."""
    if frame_mask is None and pixel_mask is None:
        return None
    batch, num_frames, _, height, width = pixels.shape
    full = torch.tensor(
        [num_frames, height // CANVAS, width // CANVAS], device=pixels.device
    ).repeat(batch, 1)
    extents = full.clone()
    if frame_mask is not None:
        extents[:, 0] = frame_mask.sum(1)
        if not bool((frame_mask[:, 1:] <= frame_mask[:, :-1]).all()) or bool(extents.eq(0).any()):
            raise ValueError(
                "`frame_mask` must mark at least one frame of each video, real frames first."
            )
    if pixel_mask is not None:
        rows, columns = pixel_mask.any(2).sum(1), pixel_mask.any(1).sum(1)
        row, column = (torch.arange(size, device=pixels.device) for size in pixel_mask.shape[1:])
        rectangle = (row < rows[:, None])[:, :, None] & (column < columns[:, None])[:, None]
        if not torch.equal(pixel_mask.bool(), rectangle) or bool(rows.eq(0).any()):
            raise ValueError("`pixel_mask` must mark a top left rectangle of each video's frames.")
        extents[:, 1], extents[:, 2] = -(-rows // CANVAS), -(-columns // CANVAS)
    return None if torch.equal(extents, full) else extents


class ProxyFormerTextFusion(nn.Module):
    """What the words may do to the video before the layers: `early_fusion`, `grounding_map`.

    With `frozen_grounding` the map also compares places with the sentence as the frozen text
    encoder reads it. Only the side of the pixels is learned: a word that no training expression has
    lies where the encoder puts it, near its kin.
    """

    def __init__(self, config: ProxyFormerConfig):
        super().__init__()
        self.attention = ProxyFormerAttention(config) if config.early_fusion else None
        self.grounding = config.grounding_map
        if self.grounding:
            self.pixel_projection = nn.Linear(config.hidden_size, config.hidden_size)
            self.position_projection = nn.Linear(config.hidden_size, config.hidden_size)
            self.word_projection = nn.Linear(config.hidden_size, config.hidden_size)
            self.map_projection = nn.Linear(1, config.hidden_size)
            self.grounding_bias = nn.Parameter(torch.empty(1))  # FSDP takes no scalar
        self.meaning_projection = None
        if config.frozen_grounding:
            self.meaning_projection = nn.Linear(config.hidden_size, config.text_config.hidden_size)
            if config.detector_config is not None:
                self.class_scale = nn.Parameter(torch.empty(1))  # log of the inverse temperature
                self.class_gain = nn.Parameter(torch.empty(1))

    def forward(
        self,
        video: Tensor,
        tokens: ProxyFormerTokens,
        words: Tensor,
        valid_words: Tensor | None,
        meaning: Tensor | None = None,
        class_map: Tensor | None = None,
        class_meanings: Tensor | None = None,
        kinds: Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple[Tensor, Tensor | None]:
        """
        Args:
            video: (R, T, H*W, C).
            words, valid_words: (R, L, C) and (R, L).
            meaning: (R, D) of norm 1, the sentence as the text encoder reads it.
            class_map: (R, T, num_labels, H, W), probabilities of the detector's classes.
            class_meanings: (num_labels, D) of norm 1.
            kinds: (R, T, H*W), what `ProxyFormerKinds` says of each place.

        Returns:
            Video (R, T, H*W, C) after the fusion, and grounding logits (R, T, H*W).
        """
        if self.attention is not None:
            query = tokens.at_space(video).flatten(1, 2)
            update, _ = self.attention(query, words, words, valid_words, **kwargs)
            video = video * update.view(video.shape)
        if not self.grounding:
            return video, None
        # Plain dot products with each word: a cosine with their mean hides "left" among the rest.
        place = self.pixel_projection(video) + self.position_projection(tokens.space)
        word = self.word_projection(F.gelu(words))
        weight = words.new_ones(words.shape[:2]) if valid_words is None else valid_words.to(word)
        # the sum of L words has about sqrt(L) times the spread of one
        phrase = (word * weight[..., None]).sum(1) / weight.sum(1, keepdim=True).sqrt()
        similarity = torch.einsum("rtpc,rc->rtp", place, phrase)
        logits = similarity * place.shape[-1] ** -0.5 + self.grounding_bias
        if self.meaning_projection is not None:
            meant = self.meaning_projection(video)
            logits = logits + torch.einsum("rtpd,rd->rtp", meant, meaning.to(meant))
        if class_map is not None and self.meaning_projection is not None:
            agreement = self.agree(meaning, class_map, class_meanings)
            logits = logits + self.class_gain * agreement.flatten(2)
        if kinds is not None:
            logits = logits + kinds
        # The map is learned from the masks alone; the layers read it as they read the pixels.
        seen = logits.detach().sigmoid().to(video)  # classes are compared in float32
        return video + self.map_projection(seen[..., None]), logits

    def agree(self, meaning: Tensor, class_map: Tensor, class_meanings: Tensor) -> Tensor:
        """How much more than usual a place looks like the classes that the sentence is about:
        (R, T, H, W), a mean of log odds."""
        alike = (self.class_scale.exp() * meaning @ class_meanings.T).softmax(-1)
        # half precision would round a probability near 1 to it, and its log odds to infinity
        exact = class_map.to(torch.promote_types(class_map.dtype, torch.float32))
        odds = exact.logit(MIN_CLASS_PROBABILITY) - math.log(RARE / (1 - RARE))
        return torch.einsum("rk,rtkhw->rthw", alike.to(odds), odds)


class ProxyFormerKinds(nn.Module):
    """How much more a place looks like the kinds of things that the sentence is about than like
    others, as an image classifier sees it. Kinds are alike by the meaning of their names."""

    def __init__(self, config: ProxyFormerConfig):
        super().__init__()
        self.scale = nn.Parameter(torch.empty(1))  # log of the inverse temperature
        self.gain = nn.Parameter(torch.empty(1))
        size = (config.classifier_config.num_labels, config.text_config.hidden_size)
        self.register_buffer("meanings", torch.zeros(size))  # of norm 1

    def forward(self, meaning: Tensor, logits: Tensor) -> Tensor:
        """
        Args:
            meaning: (R, D) of norm 1, the sentence as the text encoder reads it.
            logits: (B, T, num_kinds, h, w) of the classifier, less their mean over kinds.

        Returns:
            (R, T, h, w), the gain times a mean of class logits; about 0 where no kind is seen.
        """
        alike = (self.scale.exp() * meaning @ self.meanings.T).softmax(-1)
        dtype = logits.dtype
        logits = logits.movedim(2, -1).to(torch.promote_types(dtype, torch.float32))
        # log of the mean, by likeness, of odds: one kind that is seen for certain is enough
        peak = logits.amax(-1, keepdim=True)
        odds = (logits - peak).exp().flatten(1, 3)
        weight = alike.to(odds).unflatten(0, (len(logits), -1))
        mean = (odds @ weight.transpose(1, 2)).clamp(min=TINY).log() + peak.flatten(1, 3)
        mean = mean.transpose(1, 2).flatten(0, 1).unflatten(1, logits.shape[1:4])
        return (self.gain * mean).to(dtype)


def valid_places(extents: Tensor, height: int, width: int, stride: int) -> Tensor:
    """Places of an h x w map at `stride` that belong to each video, (B, h, w) bool."""
    rows = torch.arange(height, device=extents.device) * stride < extents[:, 1:2] * CANVAS
    columns = torch.arange(width, device=extents.device) * stride < extents[:, 2:3] * CANVAS
    return rows[:, :, None] & columns[:, None, :]


class ProxyFormerMaskDecoder(nn.Module):
    """Top-down fusion of the encoded video with the finer maps, up to stride 4 (F_seg, eq. 9)."""

    def __init__(self, config: ProxyFormerConfig):
        super().__init__()
        num_levels = int(math.log2(config.encoded_stride // 4))
        self.encoded_stride = config.encoded_stride
        widths = [config.hidden_size] * (num_levels - 1) + [config.mask_feature_size]
        self.input = nn.Conv2d(config.hidden_size, widths[0], 1)
        self.fusions = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(width, next_width, 3, padding=1),
                ProxyFormerChannelLayerNorm(next_width),
                nn.ReLU(),
            )
            for width, next_width in zip(widths, [*widths[1:], widths[-1]], strict=True)
        )
        self.output = nn.Conv2d(config.mask_feature_size, config.mask_feature_size, 1)

    def forward(
        self, video: Tensor, lateral_maps: tuple[Tensor, ...], extents: Tensor | None
    ) -> Tensor:
        """`video` (R, T, C, H, W), lateral maps (B, T', C_i, h_i, w_i), extents (R, 3) -> F_seg of
        the last T' frames."""
        if lateral_maps:
            video = video[:, -lateral_maps[0].shape[1] :]
        rows, num_frames = video.shape[:2]
        stride = self.encoded_stride
        hidden = self.input(video.flatten(0, 1))
        for lateral, fusion in zip(lateral_maps, self.fusions, strict=True):
            stride //= 2
            hidden = F.interpolate(hidden, scale_factor=2.0, mode="nearest")
            # the map of a video meets the states of each of its expressions
            hidden = hidden.unflatten(0, (lateral.shape[0], -1, num_frames)) + lateral[:, None]
            hidden = hidden.flatten(0, 1)
            if extents is not None:  # what lies beyond a frame must be the zeros of its own border
                hidden = hidden * valid_places(extents, *hidden.shape[-2:], stride)[:, None, None]
            hidden = fusion(hidden.flatten(0, 1))
        return self.output(hidden).unflatten(0, (rows, num_frames))


class ProxyFormerPerceptron(nn.Module):
    """`num_layers` linear layers of the hidden size with ReLU between, the last to `out_size`."""

    def __init__(self, config: ProxyFormerConfig, out_size: int, num_layers: int):
        super().__init__()
        sizes = [config.hidden_size] * num_layers + [out_size]
        self.layers = nn.ModuleList(
            nn.Linear(*pair) for pair in zip(sizes[:-1], sizes[1:], strict=True)
        )

    def forward(self, hidden: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            hidden = F.relu(layer(hidden))
        return self.layers[-1](hidden)


class ProxyFormerModel(ProxyFormerPreTrainedModel):
    """Backbones, CMIE encoder and mask decoder: from a video and words to proxies and F_seg."""

    def __init__(self, config: ProxyFormerConfig):
        super().__init__(config)
        self.text_encoder = AutoModel.from_config(config.text_config)
        if getattr(self.text_encoder, "pooler", None) is not None:
            self.text_encoder.pooler = None  # a pooler would be random and never trained
        self.text_projection = nn.Sequential(
            nn.Linear(config.text_config.hidden_size, config.hidden_size),
            nn.LayerNorm(config.hidden_size),
        )
        self.lexical_projection = None
        if config.lexical_words:
            embedding_size = self.get_input_embeddings().embedding_dim
            self.lexical_projection = nn.Sequential(
                nn.LayerNorm(embedding_size), nn.Linear(embedding_size, config.hidden_size)
            )
        class_hidden = class_embeddings = None
        if config.detector_config is not None:
            num_labels = config.detector_config.num_labels
            class_hidden = torch.zeros(num_labels, config.text_config.hidden_size)
            if config.lexical_words:
                class_embeddings = torch.zeros(num_labels, embedding_size)
        elif config.class_contrast:
            raise ValueError("`class_contrast` needs `detector_config`, whose classes it names.")
        self.register_buffer("class_hidden", class_hidden)
        self.register_buffer("class_embeddings", class_embeddings)
        self.video_encoder = ProxyFormerVideoEncoder(config)
        self.kinds = None
        if config.classifier_config is not None:
            self.kinds = ProxyFormerKinds(config)
        self.text_fusion = None
        if config.early_fusion or config.grounding_map:
            self.text_fusion = ProxyFormerTextFusion(config)
        self.encoder = ProxyFormerEncoder(config)
        self.mask_decoder = ProxyFormerMaskDecoder(config)
        self.post_init()
        self.train(self.training)

    def get_input_embeddings(self) -> nn.Module:
        return self.text_encoder.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module):
        self.text_encoder.set_input_embeddings(value)

    def train(self, mode: bool = True):
        super().train(mode)
        if self.config.freeze_text:  # also after from_pretrained, whose new parameters are free
            self.text_encoder.eval().requires_grad_(False)
        for frozen in (self.video_encoder.detector, self.video_encoder.classifier):
            if frozen is not None:
                frozen.eval().requires_grad_(False)
        return self

    def get_video_features(
        self,
        pixel_values_videos: Tensor,
        frame_mask: Tensor | None = None,
        pixel_mask: Tensor | None = None,
        glance_every: int = 1,
    ) -> ProxyFormerVideoFeatures:
        """Everything that depends on the videos alone; hand it to `forward` as `video_features`.

        Args:
            pixel_values_videos (`Tensor` (B, T, 3, h, w)): normalised frames of any size.
            frame_mask (`Tensor` (B, T), *optional*): true for real frames, which come first.
            pixel_mask (`Tensor` (B, h, w), *optional*): true for real pixels, a top left rectangle.
            glance_every (`int`, defaults to 1):
                Detector and classifier see one of so many frames, the others take it over: as good
                where hardly anything moves in that time, and faster.
        """
        if glance_every < 1:
            raise ValueError(f"`glance_every` must be at least 1, got {glance_every}.")
        if pixel_values_videos.ndim != 5 or pixel_values_videos.shape[2] != 3:
            raise ValueError(
                "`pixel_values_videos` must be (batch, frames, 3, height, width), got "
                f"{tuple(pixel_values_videos.shape)}."
            )
        if 0 in pixel_values_videos.shape:
            raise ValueError(
                f"`pixel_values_videos` of shape {tuple(pixel_values_videos.shape)} is empty; a "
                "video needs at least one frame."
            )
        batch, num_frames, _, height, width = pixel_values_videos.shape
        for name, mask, shape in (
            ("frame_mask", frame_mask, (batch, num_frames)),
            ("pixel_mask", pixel_mask, (batch, height, width)),
        ):
            if mask is not None and mask.shape != shape:
                raise ValueError(f"`{name}` must be {shape}, got {tuple(mask.shape)}.")
        features = self.video_encoder(pixel_values_videos, frame_mask, pixel_mask, glance_every)
        if features.class_map is not None:
            words = self.text_projection(self.class_hidden)
            if self.lexical_projection is not None:
                words = words + self.lexical_projection(self.class_embeddings)
            seen = torch.einsum("btkhw,kc->btchw", features.class_map, words)
            features.encoded_map = features.encoded_map + seen
        return features

    @torch.no_grad()
    def read_class_names(self, tokenizer: PreTrainedTokenizerBase):
        """Encodes the names of the detector's and the classifier's classes, their `id2label`;
        needed once. Of several names of a class, as in "tiger cat, tabby", the first counts."""
        if self.class_hidden is not None:
            hidden, embeddings = self._read_names(self.config.detector_config, tokenizer)
            self.class_hidden.copy_(hidden)
            if self.lexical_projection is not None:
                self.class_embeddings.copy_(embeddings)
        if self.kinds is not None:
            hidden, _ = self._read_names(self.config.classifier_config, tokenizer)
            self.kinds.meanings.copy_(F.normalize(hidden, dim=-1))

    def _read_names(
        self, config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase
    ) -> tuple[Tensor, Tensor]:
        """Means over a name's tokens of the encoder's output (num_labels, D) and its input."""
        names = [name.split(", ")[0] for name in config.id2label.values()]
        inputs = tokenizer(
            names, padding=True, return_special_tokens_mask=True, return_tensors="pt"
        ).to(self.device)
        named = inputs.pop("special_tokens_mask") == 0
        hidden = self.text_encoder(**inputs)[0]
        embeddings = self.get_input_embeddings()(inputs["input_ids"])
        return masked_mean(hidden, named, dim=1), masked_mean(embeddings, named, dim=1)

    def encode_text(
        self, input_ids: Tensor, attention_mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Words F_t (R, L, C), their mean, the sentence (R, C), and its meaning (R, D): the mean of
        what the text encoder reads, of norm 1."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.config.freeze_text):
            hidden = self.text_encoder(input_ids=input_ids, attention_mask=attention_mask)[0]
        words = self.text_projection(hidden)
        if self.lexical_projection is not None:
            lexical = self.lexical_projection(self.get_input_embeddings()(input_ids))
            kept = lexical.new_ones(*lexical.shape[:2], 1)
            words = words + lexical * F.dropout(kept, self.config.lexical_dropout, self.training)
        meaning = F.normalize(masked_mean(hidden, attention_mask, dim=1), dim=-1)
        return words, masked_mean(words, attention_mask, dim=1), meaning

    @torch.no_grad()
    def nearest_classes(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """For each expression (R, L) the detector's class whose name is nearest to it in meaning,
        int64 (R,)."""
        *_, meaning = self.encode_text(input_ids, attention_mask)
        return (meaning @ F.normalize(self.class_hidden, dim=-1).T).argmax(-1)

    @can_return_tuple
    def forward(
        self,
        pixel_values_videos: Tensor | None = None,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        frame_mask: Tensor | None = None,
        pixel_mask: Tensor | None = None,
        video_features: ProxyFormerVideoFeatures | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> ProxyFormerModelOutput:
        """
        Args:
            pixel_values_videos, frame_mask, pixel_mask: see `get_video_features`.
            input_ids, attention_mask (`Tensor` (B * E, L)):
                Rows b * E to (b + 1) * E - 1 are the expressions of video b.
            video_features (*optional*): result of `get_video_features`, instead of the pixels.
        """
        if video_features is None:
            if pixel_values_videos is None:
                raise ValueError("Give `pixel_values_videos` or `video_features`.")
            video_features = self.get_video_features(pixel_values_videos, frame_mask, pixel_mask)
        if input_ids is None:
            raise ValueError("`input_ids` are missing: the words say which object is meant.")
        num_videos = video_features.encoded_map.shape[0]
        if input_ids.shape[0] % num_videos:
            raise ValueError(
                f"{input_ids.shape[0]} expressions do not divide evenly among {num_videos} videos."
            )
        num_expressions = input_ids.shape[0] // num_videos
        encoded_map, class_map, extents, frame_mask, pixel_mask = (
            None if tensor is None else for_each(tensor, num_expressions)
            for tensor in (
                video_features.encoded_map,
                video_features.class_map,
                video_features.extents,
                video_features.frame_mask,
                video_features.pixel_mask,
            )
        )

        words, sentence, meaning = self.encode_text(input_ids, attention_mask)
        video = encoded_map.flatten(3).transpose(2, 3).contiguous()
        tokens = self.locate_tokens(encoded_map, extents)
        grounding_logits = None
        if self.text_fusion is not None:
            class_meanings = None
            if self.class_hidden is not None:
                class_meanings = F.normalize(self.class_hidden, dim=-1)
            kinds = None
            if self.kinds is not None:
                kinds = self.kinds(meaning, video_features.kind_logits)
                kinds = repeat_places(kinds, encoded_map.shape[-1] // kinds.shape[-1]).flatten(2)
            video, grounding_logits = self.text_fusion(
                video,
                tokens,
                words,
                attention_mask,
                meaning,
                class_map,
                class_meanings,
                kinds,
                **kwargs,
            )
        encoder_outputs = self.encoder(video, words, tokens, attention_mask, **kwargs)
        video = encoder_outputs.last_hidden_state
        pooled_video = masked_mean(video.flatten(1, 2), tokens.over_clip(*video.shape[1:3]), dim=1)
        video = video.unflatten(2, encoded_map.shape[-2:]).permute(0, 1, 4, 2, 3)  # channels last
        mask_features = self.mask_decoder(video, video_features.lateral_maps, extents)

        height, width = (-(-size // 4) for size in video_features.frame_size)
        if grounding_logits is not None:
            grounding_logits = grounding_logits.unflatten(2, encoded_map.shape[-2:])
        return ProxyFormerModelOutput(
            last_hidden_state=video,
            proxy_queries=encoder_outputs.proxy_hidden_states[-1],
            proxy_hidden_states=encoder_outputs.proxy_hidden_states,
            mask_features=mask_features[..., :height, :width],
            text_hidden_state=words,
            pooled_video=pooled_video,
            pooled_text=sentence,
            grounding_logits=grounding_logits,
            frame_mask=frame_mask,
            pixel_mask=pixel_mask,
            hidden_states=encoder_outputs.hidden_states,
            attentions=encoder_outputs.attentions,
            cross_attentions=encoder_outputs.cross_attentions,
        )

    def locate_tokens(self, encoded_map: Tensor, extents: Tensor | None) -> ProxyFormerTokens:
        """Positions and validity of the tokens of an encoded map (R, T, C, H, W)."""
        num_frames, channels, height, width = encoded_map.shape[1:]
        stride = self.config.encoded_stride
        sizes = (num_frames, height, width)
        valid_tokens = valid_frames = None
        if extents is not None:
            sizes = (extents[:, 0], *(extents[:, 1:] * (CANVAS // stride)).unbind(1))
            valid_tokens = valid_places(extents, height, width, stride).flatten(1)
            frames = torch.arange(num_frames, device=extents.device)
            valid_frames = frames < extents[:, :1]
        rows = sine_position(height, sizes[1], channels // 2, encoded_map)
        columns = sine_position(width, sizes[2], channels // 2, encoded_map)
        space = torch.cat(
            (
                rows[:, :, None].expand(-1, -1, width, -1),
                columns[:, None].expand(-1, height, -1, -1),
            ),
            dim=-1,
        )
        time = sine_position(num_frames, sizes[0], channels, encoded_map)
        return ProxyFormerTokens(
            space.flatten(1, 2)[:, None], time[:, :, None], valid_tokens, valid_frames
        )


class ProxyFormerForReferringSegmentation(ProxyFormerPreTrainedModel):
    """ProxyFormer with mask, class and box heads: the masks of the object that the words mean."""

    def __init__(self, config: ProxyFormerConfig):
        super().__init__(config)
        self.model = ProxyFormerModel(config)
        self.kernel_head = ProxyFormerPerceptron(config, config.mask_feature_size, num_layers=2)
        self.class_head = nn.Linear(config.hidden_size, 1)
        self.box_head = ProxyFormerPerceptron(config, 4, num_layers=3)
        self.joint_projection = None
        if config.jsc_semantics != "none":
            num_semantics = 2 if config.jsc_semantics == "both" else 1
            self.joint_projection = nn.Linear(
                num_semantics * config.hidden_size, config.hidden_size
            )
            self.logit_scale = nn.Parameter(torch.empty(1))  # FSDP takes no scalar
        self.loss_function = proxyformer_loss
        self.post_init()

    @classmethod
    def from_backbones(
        cls,
        vision: str | PreTrainedConfig,
        text: str | PreTrainedConfig,
        detector: str | None = None,
        classifier: str | None = None,
        **config_fields,
    ) -> "ProxyFormerForReferringSegmentation":
        """Builds a model around pretrained backbones; everything else is freshly initialised.

        Args:
            vision (`str | PreTrainedConfig`):
                A local folder or Hub name of a `VideoSwinBackbone` or another backbone of
                transformers; torchvision's "swin3d_t", "swin3d_s" or "swin3d_b"; or the name of a
                timm network. A config gives an untrained backbone.
            text (`str | PreTrainedConfig`):
                A local folder or Hub name of a text encoder; a config gives an untrained one.
            detector (`str`, *optional*):
                A local folder or Hub name of a `NanoDetBackbone`. Its class names are to be read
                with the text encoder's tokenizer (`model.read_class_names`).
            classifier (`str`, *optional*):
                The same of a `TimmWrapperForImageClassification`; its class names, too.
            config_fields: fields of `ProxyFormerConfig`.
        """
        vision_backbone = load_vision_backbone(vision, config_fields.get("encoded_stride", 32))
        text_encoder = None
        if isinstance(text, str):
            text_encoder = AutoModel.from_pretrained(text, dtype=torch.float32)
        detector_config = None if detector is None else AutoConfig.from_pretrained(detector)
        if not isinstance(detector_config, NanoDetConfig | None):
            raise ValueError(
                f"`detector='{detector}'` is a checkpoint of model type "
                f"'{detector_config.model_type}', not 'nanodet'."
            )
        image_classifier = None if classifier is None else load_classifier(classifier)
        config = ProxyFormerConfig(
            detector_config=detector_config,
            classifier_config=None if image_classifier is None else image_classifier.config,
            vision_config=vision if vision_backbone is None else vision_backbone.config,
            text_config=text if text_encoder is None else text_encoder.config,
            **config_fields,
        )
        for part in filter(None, (config.vision_config, config.text_config, detector_config)):
            forget_folder(part)
        model = cls(config)
        if vision_backbone is not None:
            model.model.video_encoder.backbone.load_state_dict(vision_backbone.state_dict())
        if detector is not None:
            weights = modeling_nanodet.NanoDetBackbone.from_pretrained(detector).state_dict()
            model.model.video_encoder.detector.load_state_dict(weights)
        if image_classifier is not None:
            model.model.video_encoder.classifier.load(image_classifier)
        if text_encoder is not None:
            text_encoder.pooler = None
            model.model.text_encoder.load_state_dict(text_encoder.state_dict())
        return model

    def get_input_embeddings(self) -> nn.Module:
        return self.model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module):
        self.model.set_input_embeddings(value)

    def get_video_features(
        self,
        pixel_values_videos: Tensor,
        frame_mask: Tensor | None = None,
        pixel_mask: Tensor | None = None,
        glance_every: int = 1,
    ) -> ProxyFormerVideoFeatures:
        """See `ProxyFormerModel.get_video_features`."""
        return self.model.get_video_features(
            pixel_values_videos, frame_mask, pixel_mask, glance_every
        )

    @can_return_tuple
    def forward(
        self,
        pixel_values_videos: Tensor | None = None,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        frame_mask: Tensor | None = None,
        pixel_mask: Tensor | None = None,
        mask_labels: Tensor | None = None,
        video_features: ProxyFormerVideoFeatures | None = None,
        loss_counts: LossCounts | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> ProxyFormerReferringSegmentationOutput:
        """
        Args:
            pixel_values_videos (`Tensor` (B, T, 3, h, w)): normalised frames of any size.
            input_ids, attention_mask (`Tensor` (B * E, L)):
                Rows b * E to (b + 1) * E - 1 are the expressions of video b.
            frame_mask (`Tensor` (B, T), *optional*): true for real frames, which come first.
            pixel_mask (`Tensor` (B, h, w), *optional*): true for real pixels, a top left rectangle.
            mask_labels (`Tensor` (B * E, T, h, w), *optional*):
                1 where the object is, 0 elsewhere; a frame filled with -1 is not annotated.
            video_features (*optional*): result of `get_video_features`, instead of the pixels.
            loss_counts (`LossCounts`, *optional*):
                Mean of `count_targets` over the processes and accumulation steps of one update.
        """
        outputs = self.model(
            pixel_values_videos=pixel_values_videos,
            input_ids=input_ids,
            attention_mask=attention_mask,
            frame_mask=frame_mask,
            pixel_mask=pixel_mask,
            video_features=video_features,
            **kwargs,
        )
        prediction = self.predict(outputs.proxy_queries, outputs.mask_features)
        selection = self.select(prediction.logits, outputs.frame_mask)
        referred_masks = torch.einsum("rn,rtnhw->rthw", selection, prediction.masks)

        loss = loss_dict = None
        if mask_labels is not None:
            videos = pixel_values_videos if video_features is None else video_features.encoded_map
            earlier = outputs.proxy_hidden_states[:-1] if self.config.auxiliary_loss else ()
            loss, loss_dict = self.loss_function(
                [*(self.predict(p, outputs.mask_features) for p in earlier), prediction],
                prepare_targets(mask_labels, outputs.frame_mask, outputs.pixel_mask),
                self.config,
                proxy_queries=outputs.proxy_queries,
                **self.embed_semantics(outputs),
                selected_masks=referred_masks if self.config.soft_selection else None,
                grounding_logits=outputs.grounding_logits,
                frame_mask=outputs.frame_mask,
                num_expressions=len(mask_labels) // len(videos),
                counts=loss_counts,
            )
        if self.config.single_region and not self.training:
            real = referred_masks
            if outputs.pixel_mask is not None:  # a region of the padding is none
                cells = F.max_pool2d(
                    outputs.pixel_mask[:, None].to(real), MASK_STRIDE, ceil_mode=True
                )
                real = torch.where(cells > 0, real, -real.abs())
            referred_masks = keep_surest_region(real)
        return ProxyFormerReferringSegmentationOutput(
            loss=loss,
            loss_dict=loss_dict,
            pred_masks=prediction.masks,
            pred_logits=prediction.logits,
            pred_boxes=prediction.boxes,
            proxy_queries=outputs.proxy_queries,
            referred_masks=referred_masks,
            referred_boxes=torch.einsum("rn,rtnc->rtc", selection, prediction.boxes),
            referred_scores=self.score(prediction.logits, outputs.frame_mask),
            frame_mask=outputs.frame_mask,
            pixel_mask=outputs.pixel_mask,
            video_hidden_state=outputs.last_hidden_state,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            cross_attentions=outputs.cross_attentions,
        )

    def predict(self, proxies: Tensor, mask_features: Tensor) -> ReferringPrediction:
        """Heads on proxies (R, T, N, C); masks by dynamic convolution of F_seg (eq. 9), of the last
        frames where F_seg has only these."""
        kernels = self.kernel_head(proxies[:, -mask_features.shape[1] :])
        # the score is one product: bfloat16 would round it by more than all layers before it do
        with torch.autocast("cpu", enabled=False):
            logits = self.class_head(proxies.to(self.dtype))[..., 0]
        return ReferringPrediction(
            logits=logits,
            boxes=self.box_head(proxies).sigmoid(),
            masks=torch.einsum("rtnc,rtchw->rtnhw", kernels, mask_features),
        )

    def select(self, logits: Tensor, frame_mask: Tensor | None) -> Tensor:
        """Share (R, N) of each proxy's trajectory in the answer; 0 or 1 without soft selection."""
        if self.config.soft_selection:
            return masked_mean(logits, frame_mask, dim=1).softmax(-1)
        best = self.trajectory_scores(logits, frame_mask).argmax(-1)
        return F.one_hot(best, logits.shape[-1]).to(logits.dtype)

    def score(self, logits: Tensor, frame_mask: Tensor | None) -> Tensor:
        """Probability (R,) that the object is shown: the best trajectory's, calibrated."""
        best = self.trajectory_scores(logits, frame_mask).amax(-1).logit(eps=SCORE_EPS)
        return (self.config.score_scale * best + self.config.score_offset).sigmoid()

    @staticmethod
    def trajectory_scores(logits: Tensor, frame_mask: Tensor | None) -> Tensor:
        """Class probability (R, N) of each trajectory, averaged over its real frames."""
        return masked_mean(logits.sigmoid(), frame_mask, dim=1)

    def embed_semantics(self, outputs: ProxyFormerModelOutput) -> dict[str, Tensor]:
        """JSC's joint video-text semantics e (R, C) (eq. 7; table V) and its temperature."""
        if self.joint_projection is None:
            return {}
        semantics = {
            "video": (outputs.pooled_video,),
            "text": (outputs.pooled_text,),
            "both": (outputs.pooled_video, outputs.pooled_text),
        }[self.config.jsc_semantics]
        return {
            "joint_embedding": self.joint_projection(torch.cat(semantics, dim=-1)),
            "logit_scale": self.logit_scale.clamp(max=MAX_LOGIT_SCALE),
        }


def load_vision_backbone(
    vision: str | PreTrainedConfig, encoded_stride: int
) -> PreTrainedModel | None:
    """Pretrained backbone by local folder, Hub, torchvision or timm name; None for a config."""
    if isinstance(vision, PreTrainedConfig):
        return None
    if vision in ("swin3d_t", "swin3d_s", "swin3d_b"):
        from torchvision.models import get_model_weights

        weights = get_model_weights(vision).DEFAULT.get_state_dict()
        return modeling_video_swin.video_swin_from_original(weights)
    if not Path(vision).exists() and "/" not in vision:
        return load_timm_backbone(vision, encoded_stride)
    config = AutoConfig.from_pretrained(vision)
    if type(config) not in AutoBackbone._model_mapping:
        raise ValueError(
            f"`vision='{vision}'` is a checkpoint of model type '{config.model_type}', which is no "
            "vision backbone."
        )
    backbone = AutoBackbone._model_mapping[type(config)]
    # TimmBackbone's own from_pretrained takes a folder for the name of a timm network
    return PreTrainedModel.from_pretrained.__func__(backbone, vision, dtype=torch.float32)


def load_classifier(name: str) -> TimmWrapperForImageClassification:
    """A pretrained image classifier by local folder or Hub name."""
    config = AutoConfig.from_pretrained(name)
    if not isinstance(config, TimmWrapperConfig):
        raise ValueError(
            f"`classifier='{name}'` is a checkpoint of model type '{config.model_type}', not "
            "'timm_wrapper'."
        )
    model = TimmWrapperForImageClassification.from_pretrained(name, dtype=torch.float32)
    forget_folder(model.config)
    return model


def forget_folder(config: PreTrainedConfig) -> None:
    """Of a folder of this machine, which the config was read from, its name will do."""
    if Path(config._name_or_path).exists():
        config._name_or_path = Path(config._name_or_path).name


def load_timm_backbone(name: str, encoded_stride: int) -> PreTrainedModel:
    """Pretrained timm network with frozen batch norm: its maps at strides 4 to the encoded one."""
    import timm  # slow to import, and only this branch needs it

    if not timm.is_model(name):
        raise ValueError(
            f"`vision='{name}'` is neither an existing folder, a Hub name (owner/name), a "
            "torchvision Video Swin (swin3d_t, swin3d_s, swin3d_b) nor a timm network."
        )
    strides = timm.create_model(name, features_only=True).feature_info.reduction()
    levels = [level for level, stride in enumerate(strides) if 4 <= stride <= encoded_stride]
    config = TimmBackboneConfig(backbone=name, out_indices=levels, freeze_batch_norm_2d=True)
    return TimmBackbone._from_config(config, pretrained=True)


AutoModel.register(ProxyFormerConfig, ProxyFormerModel, exist_ok=True)
AutoModelForMaskGeneration.register(
    ProxyFormerConfig, ProxyFormerForReferringSegmentation, exist_ok=True
)
