# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""Scenes of the moving-shapes data set: what is in them, how it moves, and their pixels.

A [`Scene`] is light: a few numbers per object and frame, drawn from a seed. Its pixels are made
when they are asked for, any frames in any order. Coordinates are pixels, x to the right and y down;
the pixel of row i and column j has its centre at (j + 0.5, i + 0.5).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

SIZES = {"small": (0.1, 0.115), "large": (0.175, 0.2)}  # radius as a share of the shorter side
COLORS = {  # name -> RGB of the object and of its rim, stripes or dots
    "red": ((215, 30, 35), (105, 5, 10)),
    "orange": ((245, 135, 20), (150, 65, 0)),
    "yellow": ((245, 225, 50), (160, 125, 0)),
    "green": ((40, 165, 55), (10, 75, 20)),
    "blue": ((35, 70, 215), (130, 160, 250)),
    "purple": ((130, 45, 180), (205, 150, 235)),
    "pink": ((250, 140, 195), (170, 60, 115)),
    "cyan": ((60, 210, 225), (10, 110, 130)),
    "white": ((245, 245, 245), (150, 150, 150)),
    "black": ((20, 20, 20), (115, 115, 115)),
}
TEXTURES = ("plain", "striped", "dotted")
DIRECTIONS = {
    "left": (-1, 0),
    "right": (1, 0),
    "up": (0, -1),
    "down": (0, 1),
    "up left": (-1, -1),
    "up right": (1, -1),
    "down left": (-1, 1),
    "down right": (1, 1),
}
STRAIGHT = tuple(DIRECTIONS)[:4]
MOTIONS = {  # name -> (how often, its directions)
    "still": (5, ("",)),
    "move": (8, tuple(DIRECTIONS)),
    "stop": (2, STRAIGHT),
    "start": (2, STRAIGHT),
    "enter": (3, STRAIGHT),
    "leave": (3, STRAIGHT),
    "zigzag": (1, STRAIGHT),
    "sway": (2, ("right", "down")),  # there and back
    "circle": (1, ("",)),
    "grow": (2, ("",)),
    "shrink": (2, ("",)),
    "rotate": (2, ("",)),
}
TURNING_SHAPES = ("square", "triangle", "star", "diamond", "cross", "heart")  # seen to turn
DISTANCES = ((0.18, 0.24), (0.44, 0.55))  # slow and fast: the way as a share of the shorter side
EXTENT = 1.25  # no shape reaches further from its centre, in radii
CLEARANCE = 0.75  # of the sum of two radii: only companions come closer
BACKGROUNDS = ("noise", "gradient", "stripes", "checks", "blobs")
MAX_TRIES = 40


def _star(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    outer, inner, fifth = 1.25, 0.55, 2 * np.pi / 5
    angle = np.abs((np.arctan2(x, -y) + fifth / 2) % fifth - fifth / 2)  # from the nearest ray
    distance = np.hypot(x, y)
    notch = inner * np.cos(fifth / 2), inner * np.sin(fifth / 2)
    normal = np.array([notch[1], outer - notch[0]]) / np.hypot(notch[1], outer - notch[0])
    return (distance * np.cos(angle) - outer) * normal[0] + distance * np.sin(angle) * normal[1]


def _heart(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    half, x, y = 0.9, np.abs(x), y - 0.1
    lobes = np.hypot(x - half / 2, y + half / 2) - half / np.sqrt(2)
    return np.minimum((x + np.abs(y) - half) / np.sqrt(2), lobes)


def _cross(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    x, y = np.abs(x), np.abs(y)
    return np.minimum(np.maximum(x - 1.1, y - 0.38), np.maximum(x - 0.38, y - 1.1))


# Signed distance to the outline of a shape of radius 1, negative inside. The areas are alike.
SHAPES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "circle": lambda x, y: np.hypot(x, y) - 0.95,
    "square": lambda x, y: np.maximum(np.abs(x), np.abs(y)) - 0.82,
    "triangle": lambda x, y: np.maximum(y - 0.6, np.abs(x) * 0.866 - y * 0.5 - 0.6),
    "star": _star,
    "diamond": lambda x, y: (np.abs(x) / 0.75 + np.abs(y) / 1.25 - 1) * 0.643,
    "hexagon": lambda x, y: np.maximum(np.abs(x) * 0.866 + np.abs(y) * 0.5, np.abs(y)) - 0.9,
    "cross": _cross,
    "ring": lambda x, y: np.abs(np.hypot(x, y) - 0.77) - 0.27,
    "heart": _heart,
}


@dataclass(frozen=True, eq=False)
class ShapeObject:
    """One object. `position`, `radius` and `angle` have an entry per frame of the video.

    Attributes:
        shape, color, texture: keys of `SHAPES` and `COLORS`, an item of `TEXTURES`.
        size: key of `SIZES`; "" of an object that grows or shrinks.
        motion: key of `MOTIONS`.
        direction: one of the motion's directions, "" if it has none.
        tones: RGB of the object and of its rim, stripes or dots, float32 `(2, 3)` in [0, 255].
        position: centre (x, y) in pixels, maybe outside of the frame, float32 `(num_frames, 2)`.
        radius: pixels, float32 `(num_frames,)`.
        angle: radians, clockwise, float32 `(num_frames,)`.
    """

    shape: str
    color: str
    texture: str
    size: str
    motion: str
    direction: str
    tones: np.ndarray
    position: np.ndarray
    radius: np.ndarray
    angle: np.ndarray

    def cover(self, canvas: np.ndarray, indices: Sequence[int]) -> None:
        """Set the pixels whose centres lie within the object in a bool `(T, height, width)`."""
        corners, u, v = self._patches(indices)
        inside = SHAPES[self.shape](u, v) < 0
        for window, patch in _windows(corners, u.shape[1], canvas.shape[1:3]):
            canvas[window] = inside[patch]

    def paint(self, frames: np.ndarray, indices: Sequence[int]) -> None:
        """Paint the object, with soft edges, over float32 frames `(T, height, width, 3)`."""
        corners, u, v = self._patches(indices)
        radius = self.radius[indices][:, None, None]
        distance = SHAPES[self.shape](u, v) * radius
        alpha = np.clip(0.5 - distance, 0, 1)[..., None]
        # A rim of the second tone tells objects of one colour apart where they overlap.
        share = np.maximum(self._texture(u, v, radius), np.clip(distance + 1.5, 0, 1))[..., None]
        base, mark = self.tones
        color = base + share * (mark - base)
        for window, patch in _windows(corners, u.shape[1], frames.shape[1:3]):
            frames[window] += alpha[patch] * (color[patch] - frames[window])

    def _patches(self, indices: Sequence[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Square windows around the object: their upper left corners in pixels, int `(T, 2)`, and
        coordinates along the object's own axes, in radii, two `(T, size, size)`."""
        position, radius, angle = (a[indices] for a in (self.position, self.radius, self.angle))
        size = int(np.ceil(2 * EXTENT * radius.max())) + 2
        corners = np.floor(position - size / 2).astype(int)
        offsets = (corners + 0.5 - position).astype(np.float32) / radius[:, None]
        steps = np.arange(size, dtype=np.float32) / radius[:, None]
        x = (offsets[:, :1] + steps)[:, None, :]
        y = (offsets[:, 1:] + steps)[:, :, None]
        cos, sin = np.cos(angle)[:, None, None], np.sin(angle)[:, None, None]
        return corners, x * cos + y * sin, y * cos - x * sin

    def _texture(self, u: np.ndarray, v: np.ndarray, radius: np.ndarray) -> np.ndarray:
        """How much of the second tone each pixel has, in [0, 1]."""
        if self.texture == "plain":
            return np.zeros_like(u)
        pixels = 5 if self.texture == "striped" else 6  # a period has as many, or more
        period = np.maximum(0.55, pixels / self.radius.min())
        if self.texture == "striped":
            return np.clip(0.5 + np.sin(u * (2 * np.pi / period)) * period * radius / 6, 0, 1)
        du, dv = u - np.round(u / period) * period, v - np.round(v / period) * period
        return np.clip(0.5 + (0.32 * period - np.hypot(du, dv)) * radius, 0, 1)


def _windows(
    corners: np.ndarray, size: int, shape: tuple[int, int]
) -> Iterator[tuple[tuple, tuple]]:
    """For each frame that a window of `size` pixels lies in: where, and which part of it does."""
    for t, (x, y) in enumerate(corners.tolist()):
        top, left = max(y, 0), max(x, 0)
        bottom, right = min(y + size, shape[0]), min(x + size, shape[1])
        if top < bottom and left < right:
            yield (
                (t, slice(top, bottom), slice(left, right)),
                (t, slice(top - y, bottom - y), slice(left - x, right - x)),
            )


@dataclass(frozen=True, eq=False)
class Scene:
    """Objects on a background. `objects[i]` has the id i + 1; `depth` lists the indices of the
    objects from the back to the front."""

    height: int
    width: int
    num_frames: int
    objects: tuple[ShapeObject, ...]
    depth: tuple[int, ...]
    background_seed: int

    def render(self, indices: Sequence[int]) -> np.ndarray:
        """The frames of the given indices, in any order: uint8 RGB `(T, height, width, 3)`."""
        rng = np.random.default_rng(self.background_seed)
        background = draw_background(rng, self.height, self.width)
        frames = np.repeat(background[None], len(indices), axis=0)
        for i in self.depth:
            self.objects[i].paint(frames, indices)
        return (frames + 0.5).astype(np.uint8)

    def silhouettes(self, indices: Sequence[int]) -> np.ndarray:
        """What each object would show if it were alone: bool `(objects, T, height, width)`."""
        shape = (len(self.objects), len(indices), self.height, self.width)
        silhouettes = np.zeros(shape, bool)
        for canvas, shape_object in zip(silhouettes, self.objects, strict=True):
            shape_object.cover(canvas, indices)
        return silhouettes

    def object_map(self, silhouettes: np.ndarray) -> np.ndarray:
        """The id of the object seen at each pixel, 0 for the background: uint8 `(T, height,
        width)`."""
        ids = np.zeros(silhouettes.shape[1:], np.uint8)
        for i in self.depth:
            ids[silhouettes[i]] = i + 1
        return ids


def draw_background(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A textured picture in dull colours, which no object has: float32 `(height, width, 3)`."""
    kind = rng.choice(BACKGROUNDS)
    y, x = np.ogrid[0:height, 0:width]
    side = min(height, width)
    if kind == "noise":
        share = _smooth_noise(rng, height, width, 24)
    elif kind == "gradient":
        angle = rng.uniform(0, 2 * np.pi)
        share = 0.5 + (x / width - 0.5) * np.cos(angle) + (y / height - 0.5) * np.sin(angle)
    elif kind == "stripes":
        angle, period = rng.uniform(0, np.pi), rng.uniform(0.08, 0.4) * side
        wave = np.sin((x * np.cos(angle) + y * np.sin(angle)) * (2 * np.pi / period))
        share = np.clip(0.5 + wave, 0, 1)
    elif kind == "checks":
        period = rng.uniform(0.1, 0.3) * side
        share = (np.floor(x / period) + np.floor(y / period)) % 2
    else:
        share = np.clip(4 * _smooth_noise(rng, height, width, 7) - 1.5, 0, 1)
    share = share[..., None] + 0.3 * (_smooth_noise(rng, height, width, 40)[..., None] - 0.5)
    grey = rng.uniform(70, 185, (2, 1))
    dark, light = grey + rng.uniform(-22, 22, (2, 3))
    return np.clip(dark + share * (light - dark), 40, 215).astype(np.float32)


def _smooth_noise(rng: np.random.Generator, height: int, width: int, cells: int) -> np.ndarray:
    """Random values in [0, 1] on a grid of about cells x cells, interpolated."""
    grid = rng.random((cells + 1, cells + 1), np.float32)

    def weights(length: int) -> np.ndarray:
        position = (np.arange(length, dtype=np.float32) + 0.5) / length * cells
        return np.maximum(1 - np.abs(position[:, None] - np.arange(cells + 1, dtype=np.float32)), 0)

    return weights(height) @ grid @ weights(width).T


def draw_scene(
    seed: Sequence[int], height: int, width: int, num_frames: int, only_shapes: bool = False
) -> Scene | None:
    """The scene of a seed; None where its objects find no place.

    Each object is like another one but for a little, so that no property alone tells it apart, and
    at times two of them overlap all the time. The order of the ids tells nothing. With
    `only_shapes` the objects look alike but for their shapes, which are all different.
    """
    rng = np.random.default_rng(seed)
    count = int(rng.choice((3, 4, 5), p=(0.2, 0.35, 0.45)))
    objects: list[ShapeObject] = []
    for looks in _draw_shapes(rng, count) if only_shapes else _draw_looks(rng, count):
        leaders = [o for o in objects if o.motion not in ("enter", "leave")]
        leader = leaders[rng.integers(len(leaders))] if leaders and rng.random() < 0.3 else None
        for _ in range(MAX_TRIES):
            new = _draw_object(rng, looks, leader, np.array([width, height]), num_frames)
            if new is not None and _has_room(new, [o for o in objects if o is not leader]):
                objects.append(new)
                break
        else:
            return None
    shuffled = tuple(objects[i] for i in rng.permutation(count))
    depth = tuple(rng.permutation(count).tolist())
    return Scene(height, width, num_frames, shuffled, depth, int(rng.integers(2**32)))


def _draw_looks(rng: np.random.Generator, count: int) -> list[dict[str, str]]:
    """Shape, colour, texture and size of each object. A scene has two of each; every object but
    the first is copied from one before and changed in one of them, at times in two or in none."""
    choices = {"shape": [*SHAPES], "color": [*COLORS], "texture": TEXTURES, "size": [*SIZES]}
    pairs = {k: rng.choice(values, 2, replace=False).tolist() for k, values in choices.items()}
    looks = [{name: pair[0] for name, pair in pairs.items()}]
    while len(looks) < count:
        new = dict(looks[rng.integers(len(looks))])
        num_changes = rng.choice(3, p=(0.2, 0.6, 0.2))
        for name in rng.choice([*pairs], num_changes, replace=False).tolist():
            new[name] = pairs[name][new[name] == pairs[name][0]]
        looks.append(new)
    return looks


def _draw_shapes(rng: np.random.Generator, count: int) -> list[dict[str, str]]:
    """The same of each object, all of different shapes and of one colour, texture and size."""
    shared = {"color": [*COLORS], "texture": TEXTURES, "size": [*SIZES]}
    looks = {name: str(rng.choice(values)) for name, values in shared.items()}
    shapes = rng.choice([*SHAPES], count, replace=False).tolist()
    return [{"shape": shape, **looks} for shape in shapes]


def _draw_object(
    rng: np.random.Generator,
    looks: dict[str, str],
    leader: ShapeObject | None,
    frame: np.ndarray,
    num_frames: int,
) -> ShapeObject | None:
    """An object at a random place, or one that overlaps `leader` all the time and moves as it does;
    None where its way does not fit into the frame, whose (width, height) is given."""
    progress = np.linspace(0, 1, num_frames)
    small, large = (frame.min() * rng.uniform(*bounds) for bounds in SIZES.values())
    radius = np.full(num_frames, small if looks["size"] == "small" else large)
    angle = np.full(num_frames, rng.uniform(-0.2, 0.2))
    motion, direction = _draw_motion(rng, looks["shape"])
    if leader is not None:
        moves = np.ptp(leader.position, axis=0).any()
        motion, direction = (leader.motion, leader.direction) if moves else ("still", "")
    if motion in ("grow", "shrink"):
        looks = looks | {"size": ""}
        radius = small + (progress if motion == "grow" else 1 - progress) * (large - small)
    elif motion == "rotate":
        angle = angle + rng.choice((-1, 1)) * rng.uniform(2.1, 2.8) * progress
    if leader is not None:
        towards = rng.uniform(0, 2 * np.pi)
        offset = rng.uniform(0.6, 0.85) * np.array([np.cos(towards), np.sin(towards)])
        position = leader.position + offset * (leader.radius.mean() + radius.mean())
    else:
        position = _draw_position(rng, motion, direction, radius, frame, progress)
    if motion not in ("enter", "leave") and not _inside(position, radius, frame):
        return None
    tones = np.array(COLORS[looks["color"]]) + rng.uniform(-8, 8, 3)
    return ShapeObject(
        **looks,
        motion=motion,
        direction=direction,
        tones=np.clip(tones, 0, 255).astype(np.float32),
        position=position.astype(np.float32),
        radius=radius.astype(np.float32),
        angle=angle.astype(np.float32),
    )


def _draw_motion(rng: np.random.Generator, shape: str) -> tuple[str, str]:
    names = [name for name in MOTIONS if name != "rotate" or shape in TURNING_SHAPES]
    weights = np.array([MOTIONS[name][0] for name in names])
    motion = str(rng.choice(names, p=weights / weights.sum()))
    return motion, str(rng.choice(MOTIONS[motion][1]))


def _draw_position(
    rng: np.random.Generator,
    motion: str,
    direction: str,
    radius: np.ndarray,
    frame: np.ndarray,
    progress: np.ndarray,
) -> np.ndarray:
    """Centres over time `(num_frames, 2)`; they may leave the frame where it is too small."""
    step = np.array(DIRECTIONS.get(direction, (0, 0)), float)
    step /= max(np.hypot(*step), 1)
    margin, side = radius.max(), frame.min()
    if motion in ("enter", "leave"):
        inward, towards = (step, progress) if motion == "enter" else (-step, 1 - progress)
        outside = EXTENT * margin + 1
        inside = rng.uniform(1.4 * margin, 0.8 * frame @ np.abs(step))
        along = np.where(inward < 0, frame, 0) + np.outer(
            towards * (outside + inside) - outside, inward
        )
        return np.where(inward != 0, along, rng.uniform(margin, frame - margin))
    way = _draw_way(rng, motion, step, progress) * side
    low, high = margin - way.min(0), frame - margin - way.max(0)
    return way + rng.uniform(low, np.maximum(low, high))


def _draw_way(
    rng: np.random.Generator, motion: str, step: np.ndarray, progress: np.ndarray
) -> np.ndarray:
    """Way from the start `(num_frames, 2)`, as a share of the shorter side of the frame."""
    sign = rng.choice((-1, 1))
    if motion == "sway":
        return np.outer(_there_and_back(progress), sign * step) * 0.45
    if motion == "zigzag":
        across = np.outer(_there_and_back(2 * progress), sign * step[::-1])
        return np.outer(progress, step) * 0.5 + across * 0.15
    if motion == "circle":
        turn = rng.uniform(0, 2 * np.pi) + sign * 2 * np.pi * progress
        return np.stack([np.cos(turn), np.sin(turn)], -1) * 0.17
    halves = {"stop": 2 * progress, "start": 2 * progress - 1}
    share = np.clip(halves.get(motion, progress), 0, 1)
    return np.outer(share, step) * rng.uniform(*DISTANCES[rng.integers(len(DISTANCES))])


def _there_and_back(turns: np.ndarray) -> np.ndarray:
    """From 0 to 1 and back in each turn, evenly."""
    return 1 - np.abs(2 * (turns % 1) - 1)


def _inside(position: np.ndarray, radius: np.ndarray, frame: np.ndarray) -> bool:
    margin = 0.9 * radius[:, None]
    return bool(((position >= margin) & (position <= frame - margin)).all())


def _has_room(new: ShapeObject, others: Sequence[ShapeObject]) -> bool:
    return all(
        (
            np.hypot(*(new.position - other.position).T) >= CLEARANCE * (new.radius + other.radius)
        ).all()
        for other in others
    )
