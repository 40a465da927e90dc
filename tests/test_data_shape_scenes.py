# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from PIL import Image, ImageDraw

from proxyformer_hf.data.shape_scenes import (
    COLORS,
    MOTIONS,
    SHAPES,
    SIZES,
    TEXTURES,
    Scene,
    ShapeObject,
    draw_background,
    draw_scene,
)

HEIGHT, WIDTH, NUM_FRAMES = 96, 160, 6
ALL = range(NUM_FRAMES)


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    drawn = (draw_scene((7, k), HEIGHT, WIDTH, NUM_FRAMES) for k in range(150))
    return [scene for scene in drawn if scene is not None]


def one_object(shape: str, radius: float = 100, **changes) -> Scene:
    """A scene of one still object in the middle of 320 x 320 pixels."""
    still = ShapeObject(
        shape=shape,
        color="red",
        texture="plain",
        size="large",
        motion="still",
        direction="",
        tones=np.array(COLORS["red"], np.float32),
        position=np.full((1, 2), 160, np.float32),
        radius=np.full(1, radius, np.float32),
        angle=np.zeros(1, np.float32),
    )
    return Scene(320, 320, 1, (replace(still, **changes),), (0,), 0)


def polar(angles, radii) -> list[tuple[float, float]]:
    """Corners in pixels at angles clockwise from the top in degrees."""
    angles = np.radians(angles)
    return [
        (160 + 100 * r * np.sin(a), 160 - 100 * r * np.cos(a))
        for a, r in zip(angles, np.broadcast_to(radii, angles.shape), strict=True)
    ]


def drawn(*steps: tuple[str, list, int]) -> np.ndarray:
    image = Image.new("1", (320, 320))
    for form, where, fill in steps:
        getattr(ImageDraw.Draw(image), form)(where, fill=fill)
    return np.array(image)


def disc(radius: float, x: float = 0, y: float = 0) -> list[float]:
    x, y, radius = 160 + 100 * x, 160 + 100 * y, 100 * radius
    return [x - radius, y - radius, x + radius, y + radius]


REFERENCE = {
    "circle": drawn(("ellipse", disc(0.95), 1)),
    "square": drawn(("rectangle", [78, 78, 242, 242], 1)),
    "triangle": drawn(("polygon", polar([0, 120, 240], 1.2), 1)),
    "star": drawn(("polygon", polar(np.arange(10) * 36, [1.25, 0.55] * 5), 1)),
    "diamond": drawn(("polygon", [(160, 35), (235, 160), (160, 285), (85, 160)], 1)),
    "hexagon": drawn(("polygon", polar(np.arange(6) * 60 + 30, 0.9 / np.cos(np.pi / 6)), 1)),
    "cross": drawn(("rectangle", [50, 122, 270, 198], 1), ("rectangle", [122, 50, 198, 270], 1)),
    "ring": drawn(("ellipse", disc(1.04), 1), ("ellipse", disc(0.5), 0)),
    "heart": drawn(
        ("ellipse", disc(0.6364, -0.45, -0.35), 1),
        ("ellipse", disc(0.6364, 0.45, -0.35), 1),
        ("polygon", [(70, 170), (160, 80), (250, 170), (160, 260)], 1),
    ),
}


def test_every_shape_has_a_reference():
    assert REFERENCE.keys() == SHAPES.keys()


@pytest.mark.parametrize("shape", SHAPES)
def test_silhouettes_are_the_shapes_that_pillow_draws(shape):
    silhouette, reference = one_object(shape).silhouettes([0])[0, 0], REFERENCE[shape]
    assert (silhouette & reference).sum() > 0.97 * (silhouette | reference).sum()


def test_shapes_have_alike_areas():
    areas = [one_object(shape).silhouettes([0]).sum() for shape in SHAPES]
    assert max(areas) < 1.6 * min(areas)


def test_positive_angles_turn_clockwise():
    upright = one_object("triangle").silhouettes([0])[0, 0]
    quarter = one_object("triangle", angle=np.full(1, np.pi / 2, np.float32)).silhouettes([0])[0, 0]
    np.testing.assert_array_equal(quarter, np.rot90(upright, -1))


@pytest.mark.parametrize("color", COLORS)
def test_objects_are_painted_in_their_colour_with_soft_edges(color):
    tones = np.array(COLORS[color], np.float32)
    scene = one_object("circle", radius=100.3, tones=tones)
    frame, background = scene.render([0])[0], background_of(scene)
    distance = np.hypot(*(np.indices((320, 320)) + 0.5 - 160)) - 0.95 * 100.3
    assert (frame[distance < -2] == COLORS[color][0]).all()
    np.testing.assert_array_equal(frame[distance > 0.5], background[distance > 0.5])
    for place, inside, outside in ((-1, tones[0], tones[1]), (0, tones[1], background)):
        share = (0.5 - (distance - place))[..., None]
        blend, edge = share * inside + (1 - share) * outside, abs(distance - place) < 0.5
        np.testing.assert_allclose(frame[edge], blend[edge], atol=2)


def background_of(scene: Scene) -> np.ndarray:
    return replace(scene, objects=(), depth=()).render([0])[0]


@pytest.mark.parametrize("texture", TEXTURES)
def test_textures_show_both_tones(texture):
    frame = one_object("square", texture=texture).render([0])[0]
    inner = frame[85:235, 85:235].reshape(-1, 3)
    base, mark = ((inner == tone).all(1).mean() for tone in COLORS["red"])
    assert (base == 1) if texture == "plain" else (base > 0.3 and mark > 0.15)


def test_frames_come_in_any_order(scenes):
    for scene in scenes[:5]:
        frames, silhouettes = scene.render(ALL), scene.silhouettes(ALL)
        np.testing.assert_array_equal(scene.render([4, 1, 1]), frames[[4, 1, 1]])
        np.testing.assert_array_equal(scene.silhouettes([4, 1, 1]), silhouettes[:, [4, 1, 1]])


def test_the_seed_decides_the_scene():
    draw = partial(draw_scene, height=HEIGHT, width=WIDTH, num_frames=3)
    first, again, other = draw((1, 2)), draw((1, 2)), draw((1, 3))
    np.testing.assert_array_equal(first.render(range(3)), again.render(range(3)))
    assert (first.render(range(3)) != other.render(range(3))).any()


def test_the_map_shows_the_object_in_front(scenes):
    overlaps = 0
    for scene in scenes[:10]:
        silhouettes = scene.silhouettes(ALL)
        expected = np.zeros((NUM_FRAMES, HEIGHT, WIDTH), np.uint8)
        for t, y, x in np.argwhere(silhouettes.any(0)):
            front = max(np.flatnonzero(silhouettes[:, t, y, x]), key=scene.depth.index)
            expected[t, y, x] = front + 1
        np.testing.assert_array_equal(scene.object_map(silhouettes), expected)
        overlaps += (silhouettes.sum(0) > 1).any()
    assert overlaps >= 3


def test_pixels_have_the_colour_of_the_object_on_the_map(scenes):
    for scene in scenes[:30]:
        frames, ids = scene.render(ALL), scene.object_map(scene.silhouettes(ALL))
        background = background_of(scene)
        away = ~np.any([spread(ids == i + 1) for i in range(len(scene.objects))], axis=0)
        behind = np.broadcast_to(background, frames.shape)[away]
        assert (np.abs(frames[away].astype(int) - behind) > 12).mean() < 1e-3  # tips of corners
        for i, o in enumerate(scene.objects):
            inner = frames[~spread(ids != i + 1)].astype(float)
            base, mark = o.tones
            share = ((inner - base) @ (mark - base) / ((mark - base) ** 2).sum()).clip(0, 1)
            assert (abs(inner - base - share[:, None] * (mark - base)) > 4).mean() < 1e-2  # notches


def spread(mask: np.ndarray) -> np.ndarray:
    """The mask and the pixels next to it."""
    padded = np.pad(mask, ((0, 0), (1, 1), (1, 1)))
    return np.any(
        [
            padded[:, dy : dy + mask.shape[1], dx : dx + mask.shape[2]]
            for dy in range(3)
            for dx in range(3)
        ],
        axis=0,
    )


def test_scenes_hold_look_alikes(scenes):
    names = ("shape", "color", "texture")
    for scene in scenes:
        assert 3 <= len(scene.objects) <= 5
        for o in scene.objects:
            differences = [
                sum(getattr(o, name) != getattr(other, name) for name in names)
                for other in scene.objects
                if other is not o
            ]
            assert min(differences) <= 2
        for name in names:
            assert len({getattr(o, name) for o in scene.objects}) <= 2


def test_scenes_of_shapes_alone_have_nothing_else_to_tell_their_objects_apart():
    drawn = [draw_scene((8, k), HEIGHT, WIDTH, NUM_FRAMES, only_shapes=True) for k in range(30)]
    scenes = [scene for scene in drawn if scene is not None]
    assert len(scenes) >= 10
    for scene in scenes:
        assert len({o.shape for o in scene.objects}) == len(scene.objects)
        for name in ("color", "texture"):
            assert len({getattr(o, name) for o in scene.objects}) == 1
        assert len({o.size for o in scene.objects} - {""}) <= 1  # "": one that grows or shrinks


def test_sizes_differ_clearly(scenes):
    for scene in scenes:
        for o in scene.objects:
            share = o.radius / HEIGHT
            if o.size:
                low, high = SIZES[o.size]
                assert ((share > low - 1e-6) & (share < high + 1e-6)).all()
            else:
                assert o.motion in ("grow", "shrink")
                assert share.max() > 1.5 * share.min()
    assert SIZES["large"][0] > 1.5 * SIZES["small"][1]


def test_everything_occurs(scenes):
    objects = [o for scene in scenes for o in scene.objects]
    assert {(o.motion, o.direction) for o in objects} == {
        (name, direction) for name, (_, directions) in MOTIONS.items() for direction in directions
    }
    assert {o.shape for o in objects} == SHAPES.keys()
    assert {o.color for o in objects} == COLORS.keys()
    assert {o.texture for o in objects} == {*TEXTURES}


def test_only_objects_that_cross_the_edge_are_absent_from_frames(scenes):
    for scene in scenes:
        shown = scene.silhouettes(ALL).any((2, 3))
        for o, frames in zip(scene.objects, shown, strict=True):
            if o.motion in ("enter", "leave"):
                assert frames[-1 if o.motion == "enter" else 0]
                assert not frames[0 if o.motion == "enter" else -1]
            else:
                assert frames.all()


def test_backgrounds_are_dull_and_textured():
    for seed in range(40):
        background = draw_background(np.random.default_rng(seed), HEIGHT, WIDTH)
        assert background.shape == (HEIGHT, WIDTH, 3) and background.dtype == np.float32
        assert background.min() >= 40 and background.max() <= 215
        assert np.ptp(background, axis=-1).max() < 75  # the objects' colours have 100 or more
        assert background.std((0, 1)).max() > 0.5
