# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""NanoDet-g as a backbone: a small detector's features, and the classes that it sees at each place.

The network of the NanoDet project (Apache 2.0) with batch norms folded into its convolutions: a
cross-stage-partial network, a path aggregation without convolutions, and one head per stride that
tells classes and boxes. Nothing here decodes boxes: the maps are what is of use.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoBackbone, PreTrainedModel
from transformers.backbone_utils import BackboneMixin
from transformers.modeling_outputs import BackboneOutput
from transformers.utils.generic import can_return_tuple

from .configuration_nanodet import NanoDetConfig

SLOPE = 0.1  # of the leaky ReLU below zero


@dataclass
class NanoDetBackboneOutput(BackboneOutput):
    """
    Attributes:
        feature_maps (`tuple[Tensor]` of (b, C, h_i, w_i)): of `config.out_features`.
        class_maps (`tuple[Tensor]` of (b, num_labels, h_i, w_i)): probabilities in [0, 1] of the
            detector's classes at strides 8, 16 and, with four stages, 32, which are for objects of
            different sizes.
    """

    class_maps: tuple[Tensor, ...] | None = None


class NanoDetConv(nn.Conv2d):
    """Convolution that keeps the size, divided by `stride`, and leaky ReLU."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1):
        super().__init__(in_channels, out_channels, 3, stride, padding=1)

    def forward(self, hidden: Tensor) -> Tensor:
        return F.leaky_relu(super().forward(hidden), SLOPE)


class NanoDetBlock(nn.Module):
    """Halves the channels and sets their convolution beside them."""

    def __init__(self, channels: int):
        super().__init__()
        self.in_conv = NanoDetConv(channels, channels // 2)
        self.mid_conv = NanoDetConv(channels // 2, channels // 2)

    def forward(self, hidden: Tensor) -> Tensor:
        hidden = self.in_conv(hidden)
        return torch.cat((self.mid_conv(hidden), hidden), dim=1)


class NanoDetStage(nn.Module):
    """Downsampling, then blocks whose result is set beside their input: twice the channels."""

    def __init__(self, channels: int, depth: int, stride: int):
        super().__init__()
        self.in_conv = NanoDetConv(channels, channels, stride)
        self.blocks = nn.Sequential(*(NanoDetBlock(channels) for _ in range(depth)))
        self.out_conv = NanoDetConv(channels, channels)

    def forward(self, hidden: Tensor) -> Tensor:
        hidden = self.in_conv(hidden)
        return torch.cat((self.out_conv(self.blocks(hidden)), hidden), dim=1)


class NanoDetHead(nn.Module):
    """Class logits and, per side of the box, logits of its distance in strides."""

    def __init__(self, config: NanoDetConfig):
        super().__init__()
        self.num_labels = config.num_labels
        self.conv = NanoDetConv(config.neck_size, config.neck_size)
        self.output = nn.Conv2d(
            config.neck_size, config.num_labels + 4 * (config.reg_max + 1), kernel_size=1
        )

    def forward(self, hidden: Tensor) -> Tensor:
        """Class probabilities (b, num_labels, h, w); the boxes are left out."""
        return self.output(self.conv(hidden))[:, : self.num_labels].sigmoid()


class NanoDetBackbone(BackboneMixin, PreTrainedModel):
    """NanoDet-g for normalised frames (b, 3, height, width), without the decoding of boxes.

    From stride 8 on, the path aggregation's channels come after a map's own. Sizes that are no
    multiples of the largest stride are rounded up at every stride.
    """

    config: NanoDetConfig
    base_model_prefix = "nanodet"
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    _input_embed_layer = "stem"
    _no_split_modules = ["NanoDetStage"]
    _can_compile_fullgraph = True
    has_attentions = False

    def __init__(self, config: NanoDetConfig):
        super().__init__(config)
        sizes = [config.stem_size * 2**stage for stage in range(len(config.depths) + 1)]
        self.num_features = [*sizes[:2], *(size + config.neck_size for size in sizes[2:])]
        self.stem = NanoDetConv(config.num_channels, sizes[0], stride=2)
        self.stages = nn.ModuleList(
            NanoDetStage(size, depth, stride=1 if stage == 0 else 2)
            for stage, (size, depth) in enumerate(zip(sizes[:-1], config.depths, strict=True))
        )
        self.laterals = nn.ModuleList(
            nn.Conv2d(size, config.neck_size, kernel_size=1) for size in sizes[2:]
        )
        self.heads = nn.ModuleList(NanoDetHead(config) for _ in self.laterals)
        self.post_init()

    @can_return_tuple
    def forward(self, pixel_values: Tensor, **kwargs) -> NanoDetBackboneOutput:
        """
        Args:
            pixel_values (`Tensor` (b, num_channels, height, width)): RGB, normalised.

        Raises:
            ValueError: if the frames are not four-dimensional, are none or have other channels.
        """
        shape = tuple(pixel_values.shape)
        if len(shape) != 4 or shape[1] != self.config.num_channels or 0 in shape:
            raise ValueError(
                f"`pixel_values` must be a non-empty (batch, {self.config.num_channels}, height, "
                f"width), got {shape}."
            )
        hidden = F.max_pool2d(self.stem(pixel_values), 3, stride=2, padding=1)
        maps = [hidden]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        necks = self.aggregate(
            [lateral(m) for lateral, m in zip(self.laterals, maps[2:], strict=True)]
        )
        class_maps = tuple(head(neck) for head, neck in zip(self.heads, necks, strict=True))
        maps[2:] = [torch.cat(pair, dim=1) for pair in zip(maps[2:], necks, strict=True)]
        named = dict(zip(self.stage_names, maps, strict=True))
        return NanoDetBackboneOutput(
            feature_maps=tuple(named[name] for name in self.out_features), class_maps=class_maps
        )

    @staticmethod
    def aggregate(maps: list[Tensor]) -> list[Tensor]:
        """Adds each map to the next finer one, then each to the next coarser one."""
        maps = list(maps)
        upwards = [(i, i + 1) for i in range(len(maps) - 1)]
        for source, target in [*((j, i) for i, j in reversed(upwards)), *upwards]:
            resized = F.interpolate(maps[source], maps[target].shape[-2:], mode="bilinear")
            maps[target] = maps[target] + resized
        return maps


AutoBackbone.register(NanoDetConfig, NanoDetBackbone, exist_ok=True)


__all__ = ["NanoDetBackbone", "NanoDetBackboneOutput"]
