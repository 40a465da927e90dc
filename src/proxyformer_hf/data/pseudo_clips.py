# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""Images as clips: how joint training makes videos of RefCOCO/+/g.

ReferFormer takes an image and views of it that a random perspective, shift and turn give, some of
them blurred, in random order. (It also changes their brightness and hue, which the distortion of
data/transforms.py, drawn for each frame, does here.) No view is mirrored and none is turned by more
than 20 degrees, so that left and right stay true.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

CORNER_DEVIATION = 0.08  # of each corner, standard deviation, in frames
MAX_TURN = 20.0  # degrees
MAX_SHIFT = 0.1  # frames
BLUR_SHARE = 0.25
BLUR_LENGTHS = (9, 11)  # pixels

Corners = list[list[float]]  # x, y: top left, top right, bottom right, bottom left


class ImageMotion(v2.Transform):
    """Moves each frame of a clip that shows one image throughout, but for one, which stays.

    Takes and gives a sample of data/transforms.py. Frames are sampled bilinearly, masks to the
    nearest pixel; what lies outside of the image is black and no object.
    """

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        video = next(inpt for inpt in flat_inputs if isinstance(inpt, tv_tensors.Video))
        height, width = video.shape[-2:]
        still = int(torch.randint(len(video), ()))
        views = [None if t == still else draw_view(height, width) for t in range(len(video))]
        return {"views": views}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        if not isinstance(inpt, tv_tensors.Video | tv_tensors.Mask):
            return inpt
        is_video = isinstance(inpt, tv_tensors.Video)
        mode = v2.InterpolationMode.BILINEAR if is_video else v2.InterpolationMode.NEAREST
        frames = list(inpt.as_subclass(Tensor).unbind(-4 if is_video else -3))
        for t, view in enumerate(params["views"]):
            if view is not None:
                source, target, kernel = view
                frames[t] = F.perspective(frames[t], source, target, interpolation=mode)
                if is_video and kernel is not None:
                    frames[t] = blur(frames[t], kernel)
        return tv_tensors.wrap(torch.stack(frames, -4 if is_video else -3), like=inpt)


def draw_view(height: int, width: int) -> tuple[Corners, Corners, Tensor | None]:
    """Four points of an image, where they are in the view, and the kernel of the view's blur."""
    size = torch.tensor([width, height], dtype=torch.float64)
    corners = torch.tensor([[0, 0], [1, 0], [1, 1], [0, 1]], dtype=torch.float64)
    inward = CORNER_DEVIATION * torch.randn(4, 2, dtype=torch.float64).abs().clamp(max=2)
    source = (corners + inward * (1 - 2 * corners)) * size
    turn = math.radians(torch.empty(()).uniform_(-MAX_TURN, MAX_TURN))
    shift = torch.empty(2).uniform_(-MAX_SHIFT, MAX_SHIFT) * size
    cosine, sine = math.cos(turn), math.sin(turn)
    rotation = torch.tensor([[cosine, -sine], [sine, cosine]], dtype=torch.float64)
    target = ((corners - 0.5) * size) @ rotation.T + 0.5 * size + shift
    kernel = draw_blur() if torch.rand(()) < BLUR_SHARE else None
    return source.tolist(), target.tolist(), kernel


def draw_blur() -> Tensor:
    """A line through the middle of a square `(length, length)`, at a random angle; its sum is 1."""
    length = BLUR_LENGTHS[int(torch.randint(len(BLUR_LENGTHS), ()))]
    angle = math.pi * torch.rand(())
    steps = torch.linspace(-0.5, 0.5, 2 * length) * (length - 1)
    kernel = torch.zeros(length, length)
    rows = (length // 2 + steps * torch.sin(angle)).round().long()
    columns = (length // 2 + steps * torch.cos(angle)).round().long()
    kernel[rows, columns] = 1.0
    return kernel / kernel.sum()


def blur(frame: Tensor, kernel: Tensor) -> Tensor:
    """uint8 `(3, height, width)` after a convolution of each channel; borders are reflected."""
    padding = [len(kernel) // 2] * 4
    pixels = torch.nn.functional.pad(frame[:, None].float(), padding, mode="reflect")
    blurred = torch.nn.functional.conv2d(pixels, kernel[None, None])
    return blurred[:, 0].round().clamp(0, 255).to(torch.uint8)
