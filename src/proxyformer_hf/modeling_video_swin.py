# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""Video Swin Transformer backbone (Liu et al., *Video Swin Transformer*, CVPR 2022).

Shapes: B videos, T frames, a map of H x W patches with C channels, windows of N = t*h*w tokens.
The arithmetic is that of the official code and of torchvision's `swin3d_{t,s,b}`, whose weights
[`video_swin_from_original`] loads; nothing is masked, so a window sees the zeros that pad it.
"""

import itertools
import math
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from transformers import AutoBackbone, PreTrainedModel
from transformers import initialization as init
from transformers.backbone_utils import BackboneMixin
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BackboneOutput
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .configuration_video_swin import VideoSwinConfig

# Added to the logit of a pair that a cyclic shift brought together (the official code's value).
SEAM_PENALTY = -100.0


class VideoSwinDropPath(nn.Module):
    """Stochastic depth: drops a residual branch of a whole video with probability `rate`."""

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        if self.rate == 0.0 or not self.training:
            return hidden_states
        keep = hidden_states.new_full((hidden_states.shape[0], 1, 1, 1, 1), 1 - self.rate)
        return hidden_states * torch.bernoulli(keep) / (1 - self.rate)


class VideoSwinPatchEmbedding(nn.Module):
    """Pixels (B,T,3,height,width) to patches (B,T,H,W,C), zero-padded to whole patches."""

    def __init__(self, config: VideoSwinConfig):
        super().__init__()
        self.patch_size = tuple(config.patch_size[1:])
        self.projection = nn.Conv2d(
            config.num_channels, config.embed_dim, self.patch_size, stride=self.patch_size
        )
        self.norm = nn.LayerNorm(config.embed_dim, eps=config.layer_norm_eps)

    def forward(self, pixel_values_videos: torch.Tensor) -> torch.Tensor:
        height, width = pixel_values_videos.shape[-2:]
        rows, columns = self.patch_size
        frames = pixel_values_videos.flatten(0, 1).to(self.projection.weight.dtype)
        frames = nn.functional.pad(frames, (0, -width % columns, 0, -height % rows))
        patches = self.projection(frames).permute(0, 2, 3, 1)
        return self.norm(patches).unflatten(0, pixel_values_videos.shape[:2])


class VideoSwinPatchMerging(nn.Module):
    """Each 2 x 2 patches to one with twice the channels: (B,T,H,W,C) to (B,T,H/2,W/2,2C)."""

    def __init__(self, channels: int, eps: float):
        super().__init__()
        self.norm = nn.LayerNorm(4 * channels, eps=eps)
        self.reduction = nn.Linear(4 * channels, 2 * channels, bias=False)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        height, width = hidden_states.shape[2:4]
        hidden_states = nn.functional.pad(hidden_states, (0, 0, 0, width % 2, 0, height % 2))
        # The pretrained weights expect the patches column by column.
        corners = [hidden_states[:, :, y::2, x::2] for x in (0, 1) for y in (0, 1)]
        return self.reduction(self.norm(torch.cat(corners, dim=-1)))


def window_partition(hidden_states: torch.Tensor, window: tuple[int, ...]) -> torch.Tensor:
    """(B,T,H,W,C) to the grid of its windows (B,T/t,H/h,W/w,N,C)."""
    for axis, length in zip((1, 3, 5), window, strict=True):
        hidden_states = hidden_states.unflatten(axis, (-1, length))
    return hidden_states.permute(0, 1, 3, 5, 2, 4, 6, 7).flatten(4, 6)


def window_reverse(windows: torch.Tensor, window: tuple[int, ...]) -> torch.Tensor:
    """The inverse of [`window_partition`]."""
    windows = windows.unflatten(4, window).permute(0, 1, 4, 2, 5, 3, 6, 7)
    return windows.flatten(5, 6).flatten(3, 4).flatten(1, 2)


def split_seams(windows: torch.Tensor, shift: tuple[int, ...]) -> list[torch.Tensor]:
    """Splits a grid of windows into those with and without a seam of the cyclic shift, per axis.

    A shift wraps one end of the map around to the other, so that the last windows of its axis hold
    both. The parts of (B,T/t,H/h,W/w,...) come without seams first and with all of them last.
    """
    parts = [windows]
    for axis, step in enumerate(shift, start=1):
        if step:
            parts = [part for whole in parts for part in whole.tensor_split((-1,), dim=axis)]
    return parts


def join_seams(parts: list[torch.Tensor], shift: tuple[int, ...]) -> torch.Tensor:
    """The inverse of [`split_seams`]."""
    for axis, step in reversed(list(enumerate(shift, start=1))):
        if step:
            pairs = zip(parts[::2], parts[1::2], strict=True)
            parts = [torch.cat(pair, dim=axis) for pair in pairs]
    return parts[0]


class VideoSwinWindowGeometry(nn.Module):
    """What all layers and all video sizes share: the geometry of the full attention window.

    Buffers, so computed once and moved with the model:
      relative_position_index (N,N): the row of a bias table that a pair of tokens reads.
      seam_mask (2,2,2,t,h,w,t,h,w): True where two tokens of a window lie on different sides of a
        shift's seam; the first three axes say on which axes the window holds one.
    """

    def __init__(self, config: VideoSwinConfig):
        super().__init__()
        self.window_size = tuple(config.window_size)
        self.relative_position_index = nn.Buffer(self.make_index(), persistent=False)
        self.seam_mask = nn.Buffer(self.make_seam_mask(), persistent=False)

    def make_index(self) -> torch.Tensor:
        axes = [torch.arange(length) for length in self.window_size]
        positions = torch.stack(torch.meshgrid(*axes, indexing="ij")).flatten(1)
        index = 0
        for position, length in zip(positions, self.window_size, strict=True):
            offset = position[:, None] - position[None, :] + length - 1
            index = index * (2 * length - 1) + offset
        return index

    def make_seam_mask(self) -> torch.Tensor:
        mask = torch.zeros(2, 2, 2, *self.window_size, *self.window_size, dtype=torch.bool)
        for axis, length in enumerate(self.window_size):
            wrapped = torch.arange(length) >= length - length // 2
            apart = wrapped[:, None] != wrapped[None, :]
            shape = [length if i in (3 + axis, 6 + axis) else 1 for i in range(9)]
            mask.movedim(axis, 0)[1] |= apart.view(shape).squeeze(axis)
        return mask


def eager_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor,
    scaling: float,
    **kwargs,
) -> tuple[torch.Tensor, torch.Tensor]:
    logits = query @ key.transpose(-2, -1) * scaling + attention_mask
    weights = logits.softmax(dim=-1, dtype=torch.float32).to(query.dtype)
    return (weights @ value).transpose(1, 2), weights


class VideoSwinAttention(nn.Module):
    """Self-attention within 3-D windows, shifted by half a window in every second layer.

    As in the official code, an axis no longer than the window has one shrunk window and no shift,
    and a shrunk window reads the first rows and columns of the full window's index.
    """

    def __init__(self, config: VideoSwinConfig, channels: int, num_heads: int, shifted: bool):
        super().__init__()
        self.config = config
        self.num_heads = num_heads
        self.shifted = shifted
        self.scaling = (channels // num_heads) ** -0.5
        self.is_causal = False
        table_size = math.prod(2 * length - 1 for length in config.window_size)
        self.relative_position_bias_table = nn.Parameter(torch.zeros(table_size, num_heads))
        self.qkv = nn.Linear(channels, 3 * channels, bias=config.qkv_bias)
        self.proj = nn.Linear(channels, channels)

    def forward(
        self,
        hidden_states: torch.Tensor,
        relative_position_index: torch.Tensor,
        seam_mask: torch.Tensor,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(B,T,H,W,C) to the same shape, and the weights (B,windows,heads,N,N) if eager."""
        size = hidden_states.shape[1:4]
        lengths = list(zip(size, self.config.window_size, strict=True))
        window = tuple(min(extent, length) for extent, length in lengths)
        shift = tuple(n // 2 if self.shifted and extent > n else 0 for extent, n in lengths)

        padding = [(0, -extent % length) for extent, length in zip(size, window, strict=True)]
        padding = itertools.chain((0, 0), *reversed(padding))
        padded = nn.functional.pad(hidden_states, tuple(padding))
        rolled = torch.roll(padded, tuple(-step for step in shift), dims=(1, 2, 3))
        windows = window_partition(rolled, window)

        num_tokens = math.prod(window)
        index = relative_position_index[:num_tokens, :num_tokens]
        bias = self.relative_position_bias_table[index].permute(2, 0, 1)
        frames, rows, columns = (slice(length) for length in window)
        seam_mask = seam_mask[..., frames, rows, columns, frames, rows, columns]

        seams = itertools.product(*((0, 1) if step else (0,) for step in shift))
        attended = []
        for part, seam in zip(split_seams(windows, shift), seams, strict=True):
            apart = seam_mask[seam].reshape(num_tokens, num_tokens)
            mask = torch.where(apart, bias + SEAM_PENALTY, bias)
            attended.append(self.attend(part, mask, **kwargs))
        outputs, weights = zip(*attended, strict=True)

        rolled = window_reverse(join_seams(outputs, shift), window)
        padded = torch.roll(rolled, shift, dims=(1, 2, 3))
        outputs = padded[:, : size[0], : size[1], : size[2]]
        return outputs, None if weights[0] is None else join_seams(weights, shift).flatten(1, 3)

    def attend(
        self, windows: torch.Tensor, mask: torch.Tensor, **kwargs: Unpack[TransformersKwargs]
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Attention in each window of a grid (B,T/t,H/h,W/w,N,C); `mask` (heads,N,N) is added."""
        grid = windows.shape[:4]
        qkv = self.qkv(windows.flatten(0, 3)).unflatten(-1, (3, self.num_heads, -1))
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        attention_interface: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        outputs, weights = attention_interface(
            self, query, key, value, mask[None].to(query.dtype), scaling=self.scaling, **kwargs
        )
        outputs = self.proj(outputs.flatten(2)).unflatten(0, grid)
        return outputs, None if weights is None else weights.unflatten(0, grid)


class VideoSwinMLP(nn.Module):
    def __init__(self, channels: int, ratio: float):
        super().__init__()
        self.fc1 = nn.Linear(channels, int(ratio * channels))
        self.fc2 = nn.Linear(int(ratio * channels), channels)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.fc2(nn.functional.gelu(self.fc1(hidden_states)))


class VideoSwinLayer(GradientCheckpointingLayer):
    """Window attention and a feed-forward network, each pre-normed with a residual."""

    def __init__(
        self,
        config: VideoSwinConfig,
        channels: int,
        num_heads: int,
        shifted: bool,
        drop_path: float,
    ):
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, eps=config.layer_norm_eps)
        self.attention = VideoSwinAttention(config, channels, num_heads, shifted)
        self.drop_path = VideoSwinDropPath(drop_path)
        self.norm2 = nn.LayerNorm(channels, eps=config.layer_norm_eps)
        self.mlp = VideoSwinMLP(channels, config.mlp_ratio)

    def forward(
        self,
        hidden_states: torch.Tensor,
        relative_position_index: torch.Tensor,
        seam_mask: torch.Tensor,
        **kwargs: Unpack[TransformersKwargs],
    ) -> torch.Tensor:
        attended, _ = self.attention(
            self.norm1(hidden_states), relative_position_index, seam_mask, **kwargs
        )
        hidden_states = hidden_states + self.drop_path(attended)
        return hidden_states + self.drop_path(self.mlp(self.norm2(hidden_states)))


class VideoSwinStage(nn.Module):
    """The layers of one resolution, after merging the patches of the stage before."""

    def __init__(self, config: VideoSwinConfig, index: int, drop_paths: list[float]):
        super().__init__()
        channels = config.embed_dim * 2**index
        self.merging = (
            VideoSwinPatchMerging(channels // 2, config.layer_norm_eps) if index else nn.Identity()
        )
        self.layers = nn.ModuleList(
            VideoSwinLayer(config, channels, config.num_heads[index], bool(i % 2), drop_path)
            for i, drop_path in enumerate(drop_paths)
        )

    def forward(
        self,
        hidden_states: torch.Tensor,
        relative_position_index: torch.Tensor,
        seam_mask: torch.Tensor,
        **kwargs: Unpack[TransformersKwargs],
    ) -> torch.Tensor:
        hidden_states = self.merging(hidden_states)
        for layer in self.layers:
            hidden_states = layer(hidden_states, relative_position_index, seam_mask, **kwargs)
        return hidden_states


class VideoSwinBackbone(BackboneMixin, PreTrainedModel):
    """Video Swin Transformer without its classifier: every frame keeps its own feature maps."""

    config: VideoSwinConfig
    base_model_prefix = "video_swin"
    main_input_name = "pixel_values_videos"
    input_modalities = ("video",)
    supports_gradient_checkpointing = True
    _no_split_modules = ["VideoSwinLayer"]
    # Flash and flex attention take no learned additive mask.
    _supports_sdpa = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs = {"hidden_states": VideoSwinStage, "attentions": VideoSwinAttention}
    _input_embed_layer = "patch_embed"

    def __init__(self, config: VideoSwinConfig):
        super().__init__(config)
        drop_paths = torch.linspace(0, config.drop_path_rate, sum(config.depths), device="cpu")
        drop_paths = iter(drop_paths.tolist())
        self.num_features = [config.embed_dim] + [
            config.embed_dim * 2**index for index in range(len(config.depths))
        ]
        self.patch_embed = VideoSwinPatchEmbedding(config)
        self.geometry = VideoSwinWindowGeometry(config)
        self.stages = nn.ModuleList(
            VideoSwinStage(config, index, list(itertools.islice(drop_paths, depth)))
            for index, depth in enumerate(config.depths)
        )
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        super()._init_weights(module)
        if isinstance(module, VideoSwinAttention):
            init.trunc_normal_(
                module.relative_position_bias_table, std=self.config.initializer_range
            )
        elif isinstance(module, VideoSwinWindowGeometry):
            init.copy_(module.relative_position_index, module.make_index())
            init.copy_(module.seam_mask, module.make_seam_mask())

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(
        self, pixel_values_videos: torch.Tensor, **kwargs: Unpack[TransformersKwargs]
    ) -> BackboneOutput:
        """
        Args:
            pixel_values_videos (`torch.Tensor` of shape `(B, T, num_channels, height, width)`):
                Normalised frames of any number and size.

        Returns:
            `BackboneOutput` with
            `feature_maps`: one per stage of `config.out_features`, its raw output (no final norm):
            (B, T, C, ceil(height / stride), ceil(width / stride)), stride 4, 8, 16, 32 and
            C = embed_dim times 1, 2, 4, 8;
            `hidden_states`: the stem and all stages, channels last (B,T,H,W,C), when asked;
            `attentions`: (B, windows, heads, N, N) per layer, when asked and attention is eager.

        Raises:
            ValueError: if the video is not five-dimensional, is empty or has other channels.
        """
        shape = tuple(pixel_values_videos.shape)
        if len(shape) != 5 or shape[2] != self.config.num_channels or 0 in shape:
            raise ValueError(
                "`pixel_values_videos` must be a non-empty (batch, frames, "
                f"{self.config.num_channels}, height, width), got {shape}."
            )
        hidden_states = self.patch_embed(pixel_values_videos)
        outputs = {"stem": hidden_states}
        for name, stage in zip(self.stage_names[1:], self.stages, strict=True):
            hidden_states = stage(
                hidden_states,
                self.geometry.relative_position_index,
                self.geometry.seam_mask,
                **kwargs,
            )
            outputs[name] = hidden_states
        return BackboneOutput(
            feature_maps=tuple(outputs[name].permute(0, 1, 4, 2, 3) for name in self.out_features)
        )


# torchvision's names become the official ones, and those become ours; None drops the weight.
_KEY_CONVERSIONS: list[tuple[str, str | Callable[[re.Match], str] | None]] = [
    (r"^backbone\.", ""),
    (r"^(norm|head|cls_head)\.", None),
    (r"\.relative_position_index$", None),
    (r"^features\.(\d+)\.(?=\d)", lambda match: f"layers.{int(match[1]) // 2}.blocks."),
    (r"^features\.(\d+)\.", lambda match: f"layers.{int(match[1]) // 2}.downsample."),
    (r"\.mlp\.0\.", ".mlp.fc1."),
    (r"\.mlp\.3\.", ".mlp.fc2."),
    (r"^patch_embed\.proj\.", "patch_embed.projection."),
    (r"^layers\.(\d+)\.blocks\.", r"stages.\1.layers."),
    (r"^layers\.(\d+)\.downsample\.", lambda match: f"stages.{int(match[1]) + 1}.merging."),
    (r"\.attn\.", ".attention."),
]


_LAYER_KEY = r"stages\.(\d+)\.layers\.(\d+)\."


def _convert_key(key: str) -> str | None:
    for pattern, replacement in _KEY_CONVERSIONS:
        if replacement is None and re.search(pattern, key):
            return None
        if replacement is not None:
            key = re.sub(pattern, replacement, key)
    return key


def convert_video_swin_state_dict(
    state_dict: dict[str, torch.Tensor],
) -> dict[str, torch.Tensor]:
    """Renames official Video-Swin or torchvision `swin3d_*` weights to [`VideoSwinBackbone`]'s.

    The classifier and final norm are dropped, and the patch embedding (C,3,2,4,4), which merges
    pairs of frames, is summed over time to (C,3,4,4): its response to a frame shown twice.
    """
    converted = {_convert_key(key): weight for key, weight in state_dict.items()}
    converted.pop(None, None)
    projection = converted.get("patch_embed.projection.weight")
    if projection is not None and projection.ndim == 5:
        converted["patch_embed.projection.weight"] = projection.sum(dim=2)
    return converted


def infer_video_swin_config(weights: dict[str, torch.Tensor], **kwargs) -> VideoSwinConfig:
    """The configuration of converted weights, read from their shapes; `kwargs` add to it."""
    layers = {match.groups() for key in weights if (match := re.match(_LAYER_KEY, key))}
    depths = Counter(int(stage) for stage, _ in layers)
    tables = [
        f"stages.{stage}.layers.0.attention.relative_position_bias_table"
        for stage in range(max(depths, default=0) + 1)
    ]
    missing = {"patch_embed.projection.weight", *tables} - weights.keys()
    if missing:
        raise ValueError(
            "These are not Video Swin weights by the official or torchvision's names: missing "
            f"{sorted(missing)}."
        )
    return VideoSwinConfig(
        num_channels=weights["patch_embed.projection.weight"].shape[1],
        embed_dim=weights["patch_embed.projection.weight"].shape[0],
        depths=[depths[stage] for stage in range(len(tables))],
        num_heads=[weights[table].shape[1] for table in tables],
        **kwargs,
    )


def video_swin_from_original(state_dict: dict[str, torch.Tensor], **kwargs) -> VideoSwinBackbone:
    """Builds a [`VideoSwinBackbone`] from official Video-Swin or torchvision `swin3d_*` weights.

    Args:
        state_dict: the original weights (see [`read_original_video_swin`]).
        kwargs: fields of [`VideoSwinConfig`] that shapes do not tell, such as `window_size`.

    Raises:
        ValueError: listing every weight that is missing, unexpected or of another shape.
    """
    weights = convert_video_swin_state_dict(state_dict)
    model = VideoSwinBackbone(infer_video_swin_config(weights, **kwargs))
    expected = model.state_dict()
    problems = [f"missing {key}" for key in expected if key not in weights]
    problems += [f"unexpected {key}" for key in weights if key not in expected]
    problems += [
        f"{key} of shape {tuple(weights[key].shape)} instead of {tuple(weight.shape)}"
        for key, weight in expected.items()
        if key in weights and weights[key].shape != weight.shape
    ]
    if problems:
        raise ValueError("The weights do not fit Video Swin: " + "; ".join(problems) + ".")
    model.load_state_dict(weights)
    return model


def read_original_video_swin(source: str | Path) -> dict[str, torch.Tensor]:
    """Reads original weights from a local .pth file, or by torchvision's name for them.

    Args:
        source: a path (the official file or a torchvision state dict), or a name such as
            `"Swin3D_T_Weights.KINETICS400_V1"`, which torchvision downloads.

    Raises:
        ValueError: if it is neither, or the file is not a checkpoint of plain tensors.
    """
    if re.fullmatch(r"Swin3D_[TSB]_Weights\.\w+", str(source)):
        from torchvision.models import get_weight

        return get_weight(str(source)).get_state_dict(check_hash=True)
    if not Path(source).is_file():
        raise ValueError(
            f"{source} is neither a file nor the name of torchvision weights, such as "
            "Swin3D_T_Weights.KINETICS400_V1."
        )
    try:
        checkpoint = torch.load(source, map_location="cpu", weights_only=True)
    except Exception as error:  # reading arbitrary bytes as a pickle raises almost anything
        raise ValueError(f"{source} is not a PyTorch checkpoint of plain tensors.") from error
    return checkpoint.get("state_dict", checkpoint)


AutoBackbone.register(VideoSwinConfig, VideoSwinBackbone, exist_ok=True)


__all__ = [
    "VideoSwinBackbone",
    "convert_video_swin_state_dict",
    "read_original_video_swin",
    "video_swin_from_original",
]
