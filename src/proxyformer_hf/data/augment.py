# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""Moves, crops, colours and pastes: what changes the pixels and masks of a training clip.

Clips are uint8 (num_frames, height, width, 3) and masks bool (num_frames, height, width) numpy
arrays; points are x, y in pixels.
"""

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import Tensor

from .sources import Instance, LabelledImage, LabelledVideo, rasterize

MIN_VISIBLE = 0.4  # of an object's area: less is no target


class Camera:
    """A smooth path of affine views of an image: target = matrix @ source + offset, in pixels.

    matrices (T, 2, 2), offsets (T, 2), size (height, width) of the views, flip: they are mirrored.
    """

    def __init__(
        self, matrices: np.ndarray, offsets: np.ndarray, size: tuple[int, int], flip: bool
    ):
        self.matrices, self.offsets, self.size, self.flip = matrices, offsets, size, flip

    @classmethod
    def still(cls, image: LabelledImage) -> "Camera":
        """One frame that shows the image as it is."""
        size = (image.height, image.width)
        return cls(np.eye(2)[None], np.zeros((1, 2)), size, flip=False)

    @classmethod
    def random(
        cls,
        rng: np.random.Generator,
        source: tuple[int, int],
        size: tuple[int, int],
        num_frames: int,
        still: bool,
    ) -> "Camera":
        """View `source` (height, width): zoom 1 to 1.6 of a fit, pan, roll, shake, mirror."""
        (source_height, source_width), (height, width) = source, size
        fit = np.sqrt(height / source_height * width / source_width)
        zoom = fit * np.exp(rng.uniform(0, np.log(1.6)))
        stretch = np.exp(rng.uniform(-0.08, 0.08))
        flip = bool(rng.random() < 0.5)
        # The view's centre stays where little of the frame lies outside the image.
        slack = np.maximum(1 - np.array([width / source_width, height / source_height]) / zoom, 0)
        center = (0.5 + rng.uniform(-0.5, 0.5, 2) * slack) * (source_width, source_height)

        motion = 0.0 if still else 1.0
        time = np.linspace(-0.5, 0.5, num_frames) * motion
        shake = rng.normal(size=(4, num_frames)) * motion
        roll = np.radians(rng.uniform(-5, 5) + rng.uniform(-5, 5) * time + 0.4 * shake[0])
        scales = zoom * np.exp(rng.uniform(-0.15, 0.15) * time + 0.008 * shake[1])
        drift = rng.uniform(-0.12, 0.12, 2)[:, None] * time + 0.004 * shake[2:]
        matrices = np.empty((num_frames, 2, 2))
        for k in range(num_frames):
            c, s = np.cos(roll[k]), np.sin(roll[k])
            mirror = np.diag([-stretch if flip else stretch, 1 / stretch])
            matrices[k] = scales[k] * np.array([[c, -s], [s, c]]) @ mirror
        targets = (0.5 + drift.T) * (width, height)
        offsets = targets - np.einsum("kij,j->ki", matrices, center)
        return cls(matrices, offsets, size, flip)

    def frames(self, pixels: np.ndarray) -> np.ndarray:
        """The views of uint8 (height, width, 3) pixels, bilinear; black outside. (T, h, w, 3)."""
        image = Image.fromarray(pixels)
        shrink = min(1.0, float(np.sqrt(np.abs(np.linalg.det(self.matrices)).max())))
        if shrink < 0.85:  # resize is anti-aliased, transform is not
            small = (round(image.width * shrink), round(image.height * shrink))
            scale = np.array(small) / image.size
            image = image.resize(small, Image.Resampling.BILINEAR)
        else:
            scale = np.ones(2)
        height, width = self.size
        views = []
        for matrix, offset in zip(self.matrices, self.offsets, strict=True):
            inverse = np.diag(scale) @ np.linalg.inv(matrix)
            shift = -inverse @ offset
            coefficients = (*inverse[0], shift[0], *inverse[1], shift[1])
            views.append(
                image.transform(
                    (width, height),
                    Image.Transform.AFFINE,
                    coefficients,
                    resample=Image.Resampling.BILINEAR,
                )
            )
        return np.stack(views)

    def masks(self, polygons: list[np.ndarray]) -> np.ndarray:
        """The views of polygons as bool (T, height, width)."""
        height, width = self.size
        masks = np.zeros((len(self.matrices), height, width), bool)
        for k, (matrix, offset) in enumerate(zip(self.matrices, self.offsets, strict=True)):
            moved = [polygon @ matrix.T + offset for polygon in polygons]
            low = np.min([p.min(0) for p in moved], axis=0)
            high = np.max([p.max(0) for p in moved], axis=0)
            if (low < (width, height)).all() and (high > 0).all():
                masks[k] = rasterize(moved, height, width)
        return masks

    def shift(self, polygons: list[np.ndarray], source: tuple[int, int]) -> float:
        """How far the object's middle moved in the frame, in fractions of it (largest of all)."""
        points = np.concatenate(polygons)
        middle = (points.min(0) + points.max(0)) / 2
        before = middle / (source[1], source[0])
        if self.flip:
            before[0] = 1 - before[0]
        after = (self.matrices @ middle + self.offsets) / (self.size[1], self.size[0])
        return float(np.abs(after - before).max())


def jitter_colors(frames: np.ndarray, rng: np.random.Generator) -> Tensor:
    """Brightness, contrast, saturation and white balance, slightly different in each frame.

    Mild enough that colour words stay true. uint8 (T, h, w, 3) -> uint8 (T, 3, h, w).
    """
    count = len(frames)

    def around(low: float, high: float) -> np.ndarray:
        return rng.uniform(low, high) + rng.normal(size=count) * (high - low) * 0.03

    saturation, contrast, brightness = around(0.7, 1.3), around(0.75, 1.25), around(-22, 22)
    balance = rng.uniform(0.94, 1.06, 3)
    jittered = []
    for k, frame in enumerate(frames):
        matrix = saturation[k] * np.eye(3) + (1 - saturation[k]) / 3
        matrix = contrast[k] * balance[:, None] * matrix
        offset = balance * (
            110 * (1 - contrast[k]) + brightness[k]
        )  # contrast turns about level 110
        image = Image.fromarray(frame)
        image = image.convert("RGB", tuple(np.column_stack([matrix, offset]).ravel()))
        jittered.append(np.asarray(image).transpose(2, 0, 1))
    return torch.from_numpy(np.stack(jittered))


def crop_video(
    video: LabelledVideo, indices: list[int], size: tuple[int, int], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Frames and masks of one random crop, the same in all frames, that keeps the object."""
    height, width = size
    read = [video.frame(index) for index in indices]
    source_height, source_width = read[0][1].shape
    zoom = np.exp(rng.uniform(0, np.log(1.6)))
    aspect = width / height * np.exp(rng.uniform(-0.1, 0.1))
    crop_height = min(source_height, source_width / aspect) / zoom
    crop = np.array([crop_height * aspect, crop_height])
    limit = np.array([source_width, source_height]) - crop
    low, high = np.zeros(2), limit
    shown = np.logical_or.reduce([mask for _, mask in read])
    if shown.any():
        xs, ys = np.flatnonzero(shown.any(0)), np.flatnonzero(shown.any(1))
        first, last = np.array([xs[0], ys[0]]), np.array([xs[-1] + 1, ys[-1] + 1])
        # Hold the object's box where it fits, else a crop inside of the box.
        edges = np.sort(np.stack([last - crop, first.astype(float)]), axis=0)
        low, high = np.clip(edges[0], 0, limit), np.clip(edges[1], 0, limit)
    corner = rng.uniform(low, np.maximum(high, low))
    box = (*corner, *(corner + crop))
    frames, masks = [], []
    for pixels, mask in read:
        image = Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR, box)
        soft = Image.fromarray(mask.astype(np.uint8) * 255)
        soft = soft.resize((width, height), Image.Resampling.BILINEAR, box)
        frames.append(np.asarray(image))
        masks.append(np.asarray(soft) > 127)
    return np.stack(frames), np.stack(masks)


def cut_out(
    image: LabelledImage, instance: Instance, height: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (1, h, w, 3), alpha (1, h, w) of an instance scaled to a height, perhaps mirrored."""
    points = np.concatenate(instance.polygons)
    box = (*np.floor(points.min(0)).astype(int), *np.ceil(points.max(0)).astype(int))
    mask = rasterize(instance.polygons, image.height, image.width)
    return _cut([(image.pixels, mask)], box, height, mirror=bool(rng.random() < 0.5))


def cut_out_moving(
    video: LabelledVideo, indices: list[int], height: int
) -> tuple[np.ndarray, np.ndarray] | None:
    """Pixels (T, h, w, 3) and alpha (T, h, w) of a video's object with the motion it has there.

    `height` is that of the box of all of it. None where it is not shown or touches the border.
    """
    views = [video.frame(index) for index in indices]
    for _, mask in views:
        if not mask.any() or mask[[0, -1]].any() or mask[:, [0, -1]].any():
            return None
    shown = np.logical_or.reduce([mask for _, mask in views])
    xs, ys = np.flatnonzero(shown.any(0)), np.flatnonzero(shown.any(1))
    return _cut(views, (xs[0], ys[0], xs[-1] + 1, ys[-1] + 1), height, mirror=False)


def _cut(
    views: list[tuple[np.ndarray, np.ndarray]],
    box: tuple[int, int, int, int],
    height: int,
    mirror: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (T, h, w, 3) and soft masks (T, h, w) of a box (left, top, right, bottom) of views."""
    size = (max(1, round((box[2] - box[0]) * height / (box[3] - box[1]))), height)
    step = -1 if mirror else 1
    pixels, alpha = [], []
    for colors, mask in views:
        soft = Image.fromarray(mask.astype(np.uint8) * 255).crop(box)
        soft = soft.filter(ImageFilter.GaussianBlur(1)).resize(size, Image.Resampling.BILINEAR)
        colors = Image.fromarray(colors).crop(box).resize(size, Image.Resampling.BILINEAR)
        pixels.append(np.asarray(colors)[:, ::step])
        alpha.append(np.asarray(soft)[:, ::step] / np.float32(255))
    return np.stack(pixels), np.stack(alpha)


def paste(
    frames: np.ndarray,
    masks: np.ndarray,
    pixels: np.ndarray,
    alpha: np.ndarray,
    rng: np.random.Generator,
    passing: bool = False,
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Move a cut-out through a clip, in front of the object of `masks` or behind it.

    Pixels (T, h, w, 3) and alpha (T, h, w) are those of each frame, or T is 1: the same in all.
    With `passing` it comes in at the left or right after the first frame, or is gone by the last.
    Returns the clip, the object's visible masks and the cut-out's, or None when the random path
    leaves too little of one of them in view.
    """
    count, height, width = masks.shape
    cut_height, cut_width = alpha.shape[1:]
    pixels = np.broadcast_to(pixels, (count, *pixels.shape[1:]))
    alpha = np.broadcast_to(alpha, (count, *alpha.shape[1:]))
    behind = bool(rng.random() < 0.5)
    start = rng.uniform((0, 0), (max(height - cut_height, 1), max(width - cut_width, 1)))
    speed = rng.uniform(-0.05, 0.05, 2) * (height, width)
    path = start + speed * np.arange(count)[:, None]
    if passing:
        outside = (start[0], rng.choice([-cut_width, width]))
        path = np.linspace(outside, start, count)[:: rng.choice([-1, 1])]
    frames, pasted = frames.copy(), np.zeros_like(masks)
    in_view = np.ones(count, bool)
    for k, (y, x) in enumerate(np.round(path).astype(int)):
        top, left, bottom, right = (
            max(y, 0),
            max(x, 0),
            min(y + cut_height, height),
            min(x + cut_width, width),
        )
        if bottom <= top or right <= left:
            in_view[k] = False
            continue
        view = np.s_[top:bottom, left:right]
        part = np.s_[k, top - y : bottom - y, left - x : right - x]
        share = alpha[part]
        if behind:
            share = share * ~masks[k][view]
        blend = share[..., None] * pixels[part] + (1 - share[..., None]) * frames[k][view]
        frames[k][view] = blend.round().astype(np.uint8)
        pasted[k][view] = share > 0.5
    visible = masks & ~pasted
    enough = visible.sum((1, 2)) >= MIN_VISIBLE * masks.sum((1, 2))
    shown = pasted.sum((1, 2)) >= MIN_VISIBLE * (alpha > 0.5).sum((1, 2))
    as_told = shown[in_view].all() and in_view.all() != passing
    return (frames, visible, pasted) if enough.all() and as_told else None
