# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""Masks drawn on frames, and contact sheets of a video's frames."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

# Okabe and Ito's palette without its black and grey: distinct for colour-blind readers too.
PALETTE: tuple[tuple[int, int, int], ...] = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (204, 121, 167),
    (213, 94, 0),
    (0, 114, 178),
)
MASK_OPACITY = 0.45
LEGEND_OPACITY = 178  # of 255
SMALLEST_FONT = 8


def _tint(frame: np.ndarray, mask: np.ndarray, color: tuple[int, int, int]) -> None:
    for channel, value in enumerate(color):
        blended = (1 - MASK_OPACITY) * np.arange(256) + MASK_OPACITY * value  # of each grey
        band = frame[..., channel]
        band[mask] = blended.astype(np.uint8)[band[mask]]


def _dilate(mask: np.ndarray, radius: int) -> np.ndarray:
    """Grows a mask by `radius` pixels in both axes (a square, one axis after the other)."""
    for axis in (0, 1):
        grown = mask.copy()
        source, target = np.moveaxis(mask, axis, 0), np.moveaxis(grown, axis, 0)
        for shift in range(1, radius + 1):
            target[shift:] |= source[:-shift]
            target[:-shift] |= source[shift:]
        mask = grown
    return mask


def _outline(frame: np.ndarray, mask: np.ndarray, color: tuple[int, int, int]) -> None:
    """A coloured border inside the mask and a black one around it: visible on any background."""
    thickness = max(1, round(min(mask.shape) / 240))
    frame[_dilate(mask, thickness) & ~mask] = 0
    frame[_dilate(~mask, thickness) & mask] = color


def _fit(label: str, score: float, font: ImageFont.FreeTypeFont, width: int) -> str:
    """`label  score`, the label shortened until both are at most `width` pixels wide."""
    text, kept = f"{label}  {score:.2f}", len(label)
    while kept > 0 and font.getlength(text) > width:
        kept -= 1
        text = f"{label[:kept].rstrip()}…  {score:.2f}"
    return text


@lru_cache(maxsize=16)  # it stays as it is for a window of frames
def _legend(
    size: tuple[int, int], labels: tuple[str, ...], scores: tuple[float, ...]
) -> tuple[Image.Image, int]:
    """Rows of colour swatch, label and score for the top left of a frame of `size` (width, height):
    RGBA on a darkening box, and the box's distance from the frame's edges."""
    width, height = size
    # About a twenty-second of the frame, but all rows together within two fifths of it.
    font_size = min(min(width, height) / 22, 0.4 * height / (1.4 * max(1, len(labels))))
    font_size = max(SMALLEST_FONT, round(font_size))
    font = ImageFont.load_default(size=font_size)
    pad, row_height = max(2, font_size // 3), round(1.4 * font_size)
    text_x = 2 * pad + font_size
    room = width - text_x - 3 * pad
    rows = [_fit(*row, font, room) for row in zip(labels, scores, strict=True)]
    right = text_x + max((round(font.getlength(row)) for row in rows), default=0) + pad
    legend = Image.new("RGBA", (right, pad + row_height * len(rows)), (0, 0, 0, LEGEND_OPACITY))
    draw = ImageDraw.Draw(legend)
    for index, row in enumerate(rows):
        middle = pad // 2 + (index + 0.5) * row_height
        swatch = (pad, middle - font_size / 2, pad + font_size, middle + font_size / 2)
        draw.rectangle(swatch, fill=PALETTE[index % len(PALETTE)])
        draw.text((text_x, middle), row, font=font, fill="white", anchor="lm")
    return legend, pad


def draw_masks(
    frame: np.ndarray,
    masks: Sequence[np.ndarray],
    labels: Sequence[str],
    scores: Sequence[float],
) -> np.ndarray:
    """Draws one tinted, outlined mask per expression and a legend.

    Args:
        frame: uint8 `(height, width, 3)` RGB; it is not changed.
        masks: one bool `(height, width)` per expression. Where masks overlap, both tints show.
        labels: the expressions. A label wider than the frame is cut and ends with an ellipsis.
        scores: one number in [0, 1] per expression, written behind its label.

    Returns:
        uint8 `(height, width, 3)`. Expression i has the colour `PALETTE[i % len(PALETTE)]`.
    """
    for mask in masks:
        if mask.shape != frame.shape[:2]:
            raise ValueError(
                f"a mask of {mask.shape} does not fit a frame of {frame.shape[:2]} (height, width)"
            )
    if not len(masks) == len(labels) == len(scores):
        raise ValueError(
            f"got {len(masks)} masks, {len(labels)} labels and {len(scores)} scores: "
            "give one of each per expression"
        )
    drawn = frame.copy()
    for index, mask in enumerate(masks):
        _tint(drawn, mask, PALETTE[index % len(PALETTE)])
    # All outlines come after all tints, so that no object hides another one's border.
    for index, mask in enumerate(masks):
        _outline(drawn, mask, PALETTE[index % len(PALETTE)])
    image = Image.fromarray(drawn)
    legend, pad = _legend(image.size, tuple(labels), tuple(scores))
    image.paste(legend, (pad, pad), legend)
    return np.asarray(image)


def contact_sheet(
    frames: Sequence[np.ndarray], columns: int = 4, tile_width: int = 320, margin: int = 4
) -> Image.Image:
    """Lays frames out in rows, first frame at the top left.

    Args:
        frames: uint8 `(height, width, 3)` RGB, all of one size; at least one.
        columns: tiles per row; fewer frames than that make a narrower sheet.
        tile_width: width of a tile in pixels; its height keeps the frames' shape.
        margin: dark pixels around every tile.
    """
    if len(frames) == 0:
        raise ValueError("a contact sheet needs at least one frame")
    height, width = frames[0].shape[:2]
    tile_height = max(1, round(tile_width * height / width))
    columns = min(columns, len(frames))
    rows = -(-len(frames) // columns)
    step_x, step_y = tile_width + margin, tile_height + margin
    sheet = Image.new("RGB", (columns * step_x + margin, rows * step_y + margin), (24, 24, 24))
    for index, frame in enumerate(frames):
        row, column = divmod(index, columns)
        tile = Image.fromarray(frame).resize((tile_width, tile_height), Image.Resampling.LANCZOS)
        sheet.paste(tile, (margin + column * step_x, margin + row * step_y))
    return sheet
