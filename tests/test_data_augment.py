# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
import numpy as np
import pytest

from proxyformer_hf.data.augment import (
    Camera,
    crop_video,
    cut_out,
    cut_out_moving,
    jitter_colors,
    paste,
)
from proxyformer_hf.data.expressions import color_fractions
from proxyformer_hf.data.sources import load_images, load_videos
from tests.toy_data import RED, make_data_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_data_folder(tmp_path_factory.mktemp("data"))


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    return (a & b).sum() / (a | b).sum()


def is_red(pixels: np.ndarray) -> np.ndarray:
    return pixels[..., 0].astype(int) - pixels[..., 1] > 100


@pytest.mark.parametrize("size", [(60, 80), (200, 260)])
def test_pixels_and_polygons_move_together(size):
    polygon = np.array([[150.0, 60.0], [260.0, 90.0], [240.0, 210.0], [130.0, 190.0]])
    source = np.full((300, 400, 3), 100, np.uint8)
    ys, xs = np.mgrid[:300, :400] + 0.5
    sides = [
        (b[0] - a[0]) * (ys - a[1]) - (b[1] - a[1]) * (xs - a[0]) > 0
        for a, b in zip(polygon, np.roll(polygon, -1, 0), strict=True)
    ]
    source[np.logical_and.reduce(sides)] = RED
    flips = set()
    for seed in range(8):
        camera = Camera.random(np.random.default_rng(seed), (300, 400), size, 3, still=False)
        views, masks = camera.frames(source), camera.masks([polygon])
        assert views.shape == (3, *size, 3) and masks.shape == (3, *size)
        for view, mask in zip(views, masks, strict=True):
            assert overlap(is_red(view), mask) > (0.9 if size[0] < 100 else 0.96)
        flips.add(camera.flip)
    assert flips == {True, False}


def test_still_camera_does_not_move_and_a_moving_one_does():
    for still in (True, False):
        camera = Camera.random(np.random.default_rng(0), (90, 120), (60, 80), 3, still)
        assert np.allclose(camera.matrices[0], camera.matrices[2]) is still
        assert np.allclose(camera.offsets[0], camera.offsets[2]) is still


def test_shift_of_the_identity_is_zero_and_of_a_pan_is_the_pan():
    polygon = [np.array([[10.0, 10.0], [30.0, 10.0], [30.0, 30.0]])]
    identity, offsets = np.eye(2)[None].repeat(2, 0), np.array([[0.0, 0.0], [25.0, -10.0]])
    assert Camera(identity, 0 * offsets, (50, 100), flip=False).shift(polygon, (50, 100)) == 0
    assert Camera(identity, offsets, (50, 100), flip=False).shift(polygon, (50, 100)) == 0.25
    mirror = np.diag([-1.0, 1.0])[None]
    mirrored = Camera(mirror, np.array([[100.0, 0.0]]), (50, 100), flip=True)
    assert mirrored.shift(polygon, (50, 100)) == 0


def test_colour_jitter_keeps_colour_words():
    frames = np.zeros((2, 4, 6, 3), np.uint8)
    colors = {"red": (210, 25, 20), "blue": (30, 60, 200), "white": (245, 245, 245)}
    for k, color in enumerate(colors.values()):
        frames[:, :, 2 * k : 2 * k + 2] = color
    for seed in range(20):
        jittered = jitter_colors(frames, np.random.default_rng(seed))
        assert jittered.shape == (2, 3, 4, 6)
        for k, color in enumerate(colors):
            pixels = jittered[:, :, :, 2 * k : 2 * k + 2].permute(0, 2, 3, 1).reshape(-1, 3)
            share = color_fractions(pixels.numpy())
            assert color == "white" or share[color] == 1
            assert max(share, key=share.get) in (color, "gray")


def test_colour_jitter_varies_between_and_a_little_within_clips():
    frames = np.full((3, 8, 8, 3), 120, np.uint8)
    means = [
        jitter_colors(frames, np.random.default_rng(seed)).float().mean((1, 2, 3))
        for seed in range(30)
    ]
    spread = np.array([[m.mean(), m.max() - m.min()] for m in means])
    assert spread[:, 0].std() > 5 and spread[:, 1].mean() < 5


def test_crop_holds_the_object_and_mask_fits_the_pixels(folder):
    (video,) = load_videos(folder, ["boat"])
    for seed in range(10):
        frames, masks = crop_video(video, [0, 4, 8], (48, 80), np.random.default_rng(seed))
        assert frames.shape == (3, 48, 80, 3) and masks.shape == (3, 48, 80)
        for frame, mask in zip(frames, masks, strict=True):
            assert overlap(is_red(frame), mask) > 0.9
            assert mask.mean() > 0.08


def test_cut_out_is_the_object_at_the_asked_height(folder):
    image = load_images(folder)[2]
    pixels, alpha = cut_out(image, image.instances[0], 24, np.random.default_rng(0))
    assert pixels.shape == (1, 24, 30, 3) and alpha.shape == (1, 24, 30)
    assert alpha.max() == 1 and is_red(pixels)[alpha > 0.9].all()


def test_moving_cut_out_keeps_the_motion_of_its_object(folder):
    (video,) = load_videos(folder, ["boat"])  # 25 pixels high, it moves 3 to the right in a frame
    pixels, alpha = cut_out_moving(video, [0, 2, 4], height=25)
    assert pixels.shape == (3, 25, 42, 3) and alpha.shape == (3, 25, 42)
    for k, (frame, share) in enumerate(zip(pixels, alpha, strict=True)):
        expected = np.zeros((25, 42), bool)
        expected[:, 6 * k : 6 * k + 30] = True
        assert overlap(share > 0.5, expected) > 0.95 and overlap(is_red(frame), expected) > 0.9


@pytest.mark.parametrize("hidden", ["cut by the border", "not shown"])
def test_moving_cut_out_is_refused_where_the_object_is(folder, hidden):
    (video,) = load_videos(folder, ["boat"])
    pixels, mask = video.frame(4)
    mask = np.zeros_like(mask) if hidden == "not shown" else mask.copy()
    mask[0, 5] = hidden != "not shown"
    video._cache[4] = pixels, mask
    assert cut_out_moving(video, [0, 2], height=25) is not None
    assert cut_out_moving(video, [0, 4], height=25) is None


def test_pasted_frames_follow_each_other():
    frames, masks = np.full((3, 40, 60, 3), 50, np.uint8), np.zeros((3, 40, 60), bool)
    pixels = (
        np.zeros((3, 4, 5, 3), np.uint8) + np.array([0, 100, 200], np.uint8)[:, None, None, None]
    )
    alpha = np.ones((3, 4, 5))
    alpha[:, :, 0] = 0
    composed, _, pasted = paste(frames, masks, pixels, alpha, np.random.default_rng(0))
    for frame, mask, level in zip(composed, pasted, (0, 100, 200), strict=True):
        assert mask.sum() == 16 and (frame[mask] == level).all() and (frame[~mask] == 50).all()


def test_what_passes_is_gone_at_one_end_and_comes_in_at_a_side():
    frames, masks = np.full((4, 40, 60, 3), 50, np.uint8), np.zeros((4, 40, 60), bool)
    pixels, alpha = np.full((1, 16, 20, 3), RED, np.uint8), np.ones((1, 16, 20))
    seen = set()
    for seed in range(40):
        result = paste(frames, masks, pixels, alpha, np.random.default_rng(seed), passing=True)
        if result is None:  # hardly in view in the second frame
            continue
        composed, _, pasted = result
        assert (is_red(composed) == pasted).all() and (composed[~pasted] == 50).all()
        areas = pasted.sum((1, 2))
        order = slice(None) if areas[0] == 0 else slice(None, None, -1)
        first, *rest, last = areas[order]
        assert first == 0 and last == 16 * 20 and all(area >= 0.4 * last for area in rest)
        columns = [np.flatnonzero(mask.any(0)) for mask in pasted[order][1:]]
        at_left = columns[0][0] < 60 - columns[0][-1]
        steps = np.diff([c[-1] if at_left else c[0] for c in columns])
        assert (steps > 0).all() if at_left else (steps < 0).all()
        seen.add((at_left, order.step))
    assert len(seen) == 4  # from both sides, coming and going


def test_pasting_replaces_pixels_and_takes_from_the_mask():
    frames, masks = np.full((3, 40, 60, 3), 50, np.uint8), np.zeros((3, 40, 60), bool)
    masks[:, 10:30, 10:40] = True
    pixels = np.full((1, 16, 20, 3), RED, np.uint8)
    hidden = covered = 0
    for seed in range(30):
        result = paste(frames, masks, pixels, np.ones((1, 16, 20)), np.random.default_rng(seed))
        if result is None:
            continue
        composed, visible, pasted = result
        assert (is_red(composed) == pasted).all() and (composed[~pasted] == 50).all()
        assert not (visible & pasted).any() and ((visible | pasted) >= masks).all()
        assert (visible.sum((1, 2)) >= 0.4 * masks.sum((1, 2))).all()
        hidden += (pasted.sum((1, 2)) < 16 * 20).any()
        covered += visible.sum() < masks.sum()
    assert hidden and covered  # behind the object as well as in front of it
    assert (frames == 50).all()


def test_pasting_gives_up_when_the_object_would_vanish():
    masks = np.ones((2, 40, 60), bool)
    for seed in range(10):
        rng = np.random.default_rng(seed)
        assert (
            paste(
                np.zeros((2, 40, 60, 3), np.uint8),
                masks,
                np.zeros((1, 40, 60, 3), np.uint8),
                np.ones((1, 40, 60)),
                rng,
            )
            is None
        )
