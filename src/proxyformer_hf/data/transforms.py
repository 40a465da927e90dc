# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""Augmentation of training clips: the field's recipe (ReferFormer's), on torchvision.transforms.v2.

Transforms take and give a sample, a dict of
    frames: tv_tensors.Video (T, 3, height, width), uint8
    masks: tv_tensors.Mask (..., T, height, width)
    expressions: strings
and whatever else: further tv_tensors (BoundingBoxes) follow the frames, the rest is passed through.
All frames of a clip get the same geometry. Frames are resized bilinearly with antialiasing, masks
to the nearest pixel. Rescaling, normalisation and padding are the processor's work. The random
numbers are those of torch's default generator, as in all of torchvision.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from ..video_io import fitted_size
from .expressions import swap_left_right


class RandomMirror(nn.Module):
    """Mirrors every second clip, and swaps left and right in its expressions."""

    def __init__(self):
        super().__init__()
        self.mirror = v2.RandomHorizontalFlip(p=1.0)

    def forward(self, sample: dict[str, Any]) -> dict[str, Any]:
        if torch.rand(()) < 0.5:
            return sample
        expressions = [swap_left_right(text) for text in sample["expressions"]]
        return self.mirror(sample) | {"expressions": expressions}


class RandomShortSide(v2.Transform):
    """Resizes the short side to one of `short_sides`, or less where the long side would exceed
    `max_size`; rounded as the processor does."""

    def __init__(self, short_sides: Sequence[int], max_size: float = math.inf):
        super().__init__()
        self.short_sides, self.max_size = short_sides, max_size

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        short_side = self.short_sides[torch.randint(len(self.short_sides), ())]
        return {"size": list(fitted_size(*F.get_size(flat_inputs[0]), short_side, self.max_size))}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        if not isinstance(inpt, tv_tensors.Mask):
            return F.resize(inpt, **params)
        # torchvision resizes masks by NEAREST, which moves them off the frames by half a pixel.
        exact = v2.InterpolationMode.NEAREST_EXACT
        resized = F.resize(inpt.as_subclass(Tensor), **params, interpolation=exact)
        return tv_tensors.wrap(resized, like=inpt)


class RandomSizeCrop(v2.Transform):
    """Crops a rectangle whose sides are drawn from `min_size` to `max_size`, or to the frame's side
    where that is smaller, both included. No side of the frame may be below `min_size`."""

    def __init__(self, min_size: int, max_size: int):
        super().__init__()
        self.min_size, self.max_size = min_size, max_size

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        height, width = F.get_size(flat_inputs[0])
        crop_height = self._draw(self.min_size, min(height, self.max_size))
        crop_width = self._draw(self.min_size, min(width, self.max_size))
        return {
            "top": self._draw(0, height - crop_height),
            "left": self._draw(0, width - crop_width),
            "height": crop_height,
            "width": crop_width,
        }

    @staticmethod
    def _draw(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, ()))

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return F.crop(inpt, **params)


class RandomResizeOrCrop(v2.RandomChoice):
    """Half of the time resizes (`short_sides`, `max_size`), else resizes the short side to 400, 500
    or 600, crops 384 to 600 pixels a side and resizes again (`crop_short_sides`, at most 640)."""

    def __init__(self, short_sides: Sequence[int], max_size: int, crop_short_sides: Sequence[int]):
        crop = [
            RandomShortSide((400, 500, 600)),
            RandomSizeCrop(384, 600),
            RandomShortSide(crop_short_sides, 640),
        ]
        super().__init__([RandomShortSide(short_sides, max_size), v2.Compose(crop)])


class PhotometricDistortion(v2.Transform):
    """The colour distortion of SSD, drawn anew for every frame: brightness +-32, contrast and
    saturation 0.5 to 1.5, hue +-18 degrees, each with probability 0.5.

    The published code permutes the channels too, after which colour words are false, and lets uint8
    wrap around; we do neither.
    """

    RANGES = {
        "brightness": (-32.0, 32.0),
        "contrast": (0.5, 1.5),
        "saturation": (0.5, 1.5),
        "hue": (-18.0, 18.0),
    }

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        video = next(inpt for inpt in flat_inputs if isinstance(inpt, tv_tensors.Video))
        return {"amounts": [self._draw() for _ in video]}

    def _draw(self) -> dict[str, float]:
        return {
            name: torch.empty(()).uniform_(*limits).item()
            for name, limits in self.RANGES.items()
            if torch.rand(()) < 0.5
        }

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        if not isinstance(inpt, tv_tensors.Video):
            return inpt
        frames = zip(inpt.as_subclass(Tensor), params["amounts"], strict=True)
        distorted = torch.stack([distort(frame, **amounts) for frame, amounts in frames])
        return tv_tensors.wrap(distorted, like=inpt)


def distort(
    frame: Tensor,
    brightness: float = 0.0,
    contrast: float = 1.0,
    saturation: float = 1.0,
    hue: float = 0.0,
) -> Tensor:
    """Adds `brightness`, scales the saturation of HSV and turns its hue by degrees, and multiplies
    by `contrast`; rounded and clamped once, at the end.

    Contrast scales value alone, so that it may stand before or after saturation and hue: SSD draws
    its place, to the same effect.

    Args:
        frame: uint8 `(3, height, width)`.

    Returns:
        uint8 `(3, height, width)`.
    """
    pixels = frame.float() + brightness
    if saturation != 1.0 or hue != 0.0:
        pixels = _turn_colors(pixels, saturation, hue)
    return (contrast * pixels).round().clamp(0, 255).to(torch.uint8)


def _turn_colors(rgb: Tensor, saturation: float, hue: float) -> Tensor:
    value, chroma = rgb.amax(0), rgb.amax(0) - rgb.amin(0)
    red, green, blue = rgb / chroma.clamp(min=1e-6)
    # The hue in units of 60 degrees. Where there is no chroma it is arbitrary and has no effect.
    sector = torch.where(rgb[1] == value, 2 + blue - red, 4 + red - green)
    sector = torch.where(rgb[0] == value, green - blue, sector) + hue / 60
    distance = (sector + rgb.new_tensor([5, 3, 1])[:, None, None]) % 6
    return value - saturation * chroma * torch.minimum(distance, 4 - distance).clamp(0, 1)


VIDEO_SHORT_SIDES = (288, 320, 352, 392, 416, 448, 480, 512)


def training_transform() -> v2.Compose:
    """The augmentation of all video sets."""
    # Distortion changes single pixels, and so goes where they are fewest; the published code has it
    # before the resizing.
    return v2.Compose(
        [
            RandomMirror(),
            RandomResizeOrCrop(VIDEO_SHORT_SIDES, 640, VIDEO_SHORT_SIDES),
            PhotometricDistortion(),
        ]
    )


def image_pretraining_transform() -> v2.Compose:
    """The augmentation of RefCOCO/+/g pretraining, whose clips are single images."""
    crop_short_sides = (296, 328, 360, 392, 416, 448, 480, 512)
    return v2.Compose(
        [RandomMirror(), RandomResizeOrCrop(range(480, 769, 32), 800, crop_short_sides)]
    )


def paper_transform(short_sides: Sequence[int], max_size: int) -> v2.Compose:
    """The paper's augmentation (IV-B): resized and mirrored, neither cropped nor distorted."""
    return v2.Compose([RandomMirror(), RandomShortSide(short_sides, max_size)])


def largest_sides(transform: nn.Module) -> tuple[int, int]:
    """Short and long side in pixels of the largest frames that a training transform gives."""
    return max(_sides(transform), key=math.prod)


def _sides(transform: nn.Module) -> Iterator[tuple[int, int]]:
    if isinstance(transform, RandomShortSide) and transform.max_size < math.inf:
        yield max(transform.short_sides), transform.max_size
    for part in getattr(transform, "transforms", ()):
        yield from _sides(part)


def validation_transform() -> RandomShortSide:
    """The size of evaluation: short side 360, long side at most 640."""
    return RandomShortSide((360,), 640)
