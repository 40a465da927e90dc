# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""Masks: their boxes, their connected regions and their PNG files."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from scipy import ndimage

from .video_io import atomic_path

# neighbours share a side, in one frame
IN_FRAME = np.stack(
    [np.zeros((3, 3), bool), ndimage.generate_binary_structure(2, 1), np.zeros((3, 3), bool)]
)


def boxes_from_masks(
    masks: torch.Tensor, *, normalized: bool = True
) -> tuple[torch.Tensor, torch.Tensor]:
    """Tight boxes around masks.

    Args:
        masks: `(..., height, width)` of any dtype; a pixel belongs to the object where it is above
            zero, so that a frame filled with -1 (unannotated) counts as empty.
        normalized: return centre and size as fractions of the frame instead of corners in pixels.

    Returns:
        `boxes`: float32 `(..., 4)`, `cxcywh` in [0, 1] or, with `normalized=False`, `x1y1x2y2` in
            pixels. A box covers whole pixels: x1 is the first column of the object and x2 the last
            column + 1. (torchvision's `masks_to_boxes` gives the last column itself.) Empty masks
            get zeros.
        `visible`: bool `(...)`, whether the mask has any pixel.
    """
    if masks.ndim < 2:
        raise ValueError(f"masks must be (..., height, width), got shape {tuple(masks.shape)}")
    height, width = masks.shape[-2:]
    present = masks > 0
    x1, x2 = _extent(present.any(-2))
    y1, y2 = _extent(present.any(-1))
    visible = present.flatten(-2).any(-1)
    if normalized:
        boxes = torch.stack(
            [
                (x1 + x2) / (2 * width),
                (y1 + y2) / (2 * height),
                (x2 - x1) / width,
                (y2 - y1) / height,
            ],
            -1,
        )
    else:
        boxes = torch.stack([x1, y1, x2, y2], -1)
    return boxes.float() * visible[..., None], visible


def _extent(occupied: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """First occupied position and last occupied position + 1 along the last dimension."""
    positions = torch.arange(occupied.shape[-1], device=occupied.device)
    first = torch.where(occupied, positions, occupied.shape[-1]).amin(-1)
    last = torch.where(occupied, positions + 1, 0).amax(-1)
    return first, last


def keep_surest_region(logits: torch.Tensor) -> torch.Tensor:
    """Mask logits whose positive places are one connected region, the one with the largest logit.

    The logits of the other regions change their sign, which leaves the outline of the one where it
    is when they are upsampled. Neighbours share a side. `torch.compile` and `torch.export` take it:
    there a region ends height + width steps from its peak, which only winding ones notice.

    Args:
        logits: (..., height, width).
    """
    frames = logits.reshape(-1, *logits.shape[-2:])
    peaks = frames == frames.amax((1, 2), keepdim=True)
    region = (_grow if torch.compiler.is_compiling() else _label)(frames > 0, peaks)
    return torch.where((frames > 0) & ~region, -frames, frames).view(logits.shape)


def _label(inside: torch.Tensor, peaks: torch.Tensor) -> torch.Tensor:
    """Places of the connected regions (n, height, width) that hold a peak."""
    labels, count = ndimage.label(inside.numpy(force=True), structure=IN_FRAME)
    kept = np.zeros(count + 1, bool)
    kept[labels[peaks.numpy(force=True)]] = True
    kept[0] = False  # what is outside of all regions
    return torch.from_numpy(kept[labels]).to(inside.device)


def _grow(inside: torch.Tensor, peaks: torch.Tensor) -> torch.Tensor:
    """The same, as far as height + width steps lead."""
    within = inside.float()[:, None]
    region = within * peaks[:, None]
    for _ in range(sum(inside.shape[-2:])):
        region = within * F.max_pool2d(region, (1, 3), stride=1, padding=(0, 1))
        region = within * F.max_pool2d(region, (3, 1), stride=1, padding=(1, 0))
    return region[:, 0] > 0


def save_mask(path: str | Path, mask: np.ndarray) -> None:
    """Write one mask as a PNG, which replaces what is at `path` only when it is complete.

    Args:
        path: the .png file.
        mask: `(height, width)`; bool becomes a grey image of 0 and 255, uint8 object ids (0 is the
            background) a palette image in the colours of DAVIS.
    """
    if mask.ndim != 2 or mask.dtype not in (np.bool_, np.uint8):
        raise ValueError(f"a mask is bool or uint8 (height, width), got {mask.dtype} {mask.shape}")
    if mask.dtype == np.bool_:
        image = Image.fromarray(mask.astype(np.uint8) * 255)
    else:
        image = Image.fromarray(mask)
        image.putpalette(davis_palette())  # turns the mode from L to P and keeps the values
    with atomic_path(path) as partial:
        image.save(partial, format="PNG")


def load_mask(path: str | Path) -> np.ndarray:
    """Read a mask PNG: uint8 object ids `(height, width)` of a palette image, bool of a grey one
    (white is the object)."""
    with Image.open(path) as image:
        if image.mode == "P":
            return np.array(image)
        return np.array(image.convert("L")) > 127


def davis_palette() -> list[int]:
    """256 RGB triples, flat: the colour map of PASCAL VOC that the DAVIS annotations use. The bits
    of an id, three at a time, give the bits of red, green and blue from the highest down."""
    ids = np.arange(256)[:, None]
    colours = np.zeros((256, 3), int)
    for level in range(8):
        bits = ids >> (3 * level + np.arange(3)) & 1
        colours |= bits << (7 - level)
    return colours.flatten().tolist()
