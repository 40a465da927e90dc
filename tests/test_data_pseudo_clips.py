# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
import math

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import tv_tensors

from proxyformer_hf.data import pseudo_clips
from proxyformer_hf.data.pseudo_clips import ImageMotion, blur, draw_blur, draw_view

HEIGHT, WIDTH = 60, 90


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        yield


def clip(num_frames: int = 5) -> dict:
    """An image with two white boxes, to the left and to the right, and their masks."""
    image = torch.zeros(HEIGHT, WIDTH, dtype=torch.uint8)
    masks = torch.zeros(2, HEIGHT, WIDTH, dtype=torch.uint8)
    masks[0, 20:45, 15:35] = masks[1, 20:40, 55:75] = 1
    image[masks.any(0).bool()] = 255
    return {
        "frames": tv_tensors.Video(image.expand(num_frames, 3, -1, -1).contiguous()),
        "masks": tv_tensors.Mask(masks[:, None].expand(-1, num_frames, -1, -1).contiguous()),
        "annotated": torch.ones(num_frames, dtype=torch.bool),
        "expressions": ["the left one", "the right one"],
        "id": "an image",
    }


def test_every_frame_but_one_moves_and_masks_follow_their_objects(monkeypatch):
    monkeypatch.setattr(pseudo_clips, "BLUR_SHARE", 0.0)
    still = set()
    for _ in range(20):
        source, moved = clip(), ImageMotion()(clip())
        assert {type(moved["frames"]), type(moved["masks"])} == {tv_tensors.Video, tv_tensors.Mask}
        assert moved["frames"].dtype == moved["masks"].dtype == torch.uint8
        pairs = zip(moved["frames"], source["frames"], strict=True)
        unchanged = [torch.equal(*pair) for pair in pairs]
        assert sum(unchanged) == 1
        still.add(unchanged.index(True))
        for frame, masks in zip(moved["frames"], moved["masks"].unbind(1), strict=True):
            shown = frame[0] > 127
            union = masks.any(0)
            assert (shown != union).sum() < 0.05 * union.sum()
        assert moved["annotated"].all() and moved["id"] == source["id"]
    assert still == set(range(5))


def test_left_and_right_stay_true():
    for _ in range(50):
        moved = ImageMotion()(clip())
        assert moved["expressions"] == ["the left one", "the right one"]
        for left, right in moved["masks"].unbind(1):
            if left.any() and right.any():
                assert left.nonzero()[:, 1].float().mean() < right.nonzero()[:, 1].float().mean()


def test_views_are_those_of_pillow(monkeypatch):
    """Pillow's perspective takes coefficients from target to source: solved for here."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 9, 3), np.uint8))
    image = coarse.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    source, target, _ = draw_view(HEIGHT, WIDTH)
    monkeypatch.setattr(pseudo_clips, "draw_view", lambda *_: (source, target, None))
    frames = torch.from_numpy(np.array(image)).permute(2, 0, 1).expand(2, -1, -1, -1)
    moved = ImageMotion()(clip(2) | {"frames": tv_tensors.Video(frames.contiguous())})["frames"]
    found = next(frame for frame in moved if not torch.equal(frame, frames[0]))
    rows, values = [], []
    for (x, y), (u, v) in zip(target, source, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        values += [u, v]
    coefficients = np.linalg.solve(rows, values)
    expected = image.transform(
        image.size, Image.Transform.PERSPECTIVE, coefficients, Image.Resampling.BILINEAR
    )
    found = found.permute(1, 2, 0).numpy().astype(int)
    difference = np.abs(found - np.asarray(expected).astype(int))
    assert np.median(difference) <= 1 and (difference > 8).mean() < 0.05  # but at the border


def test_views_are_within_their_limits():
    turns, shifts = [], []
    for _ in range(200):
        source, target, _ = draw_view(HEIGHT, WIDTH)
        source, target = torch.tensor(source), torch.tensor(target)
        assert (source >= 0).all() and (source <= torch.tensor([WIDTH, HEIGHT])).all()
        top, left = target[1] - target[0], target[3] - target[0]
        assert math.hypot(*top) == pytest.approx(WIDTH, rel=1e-5)
        assert left * WIDTH == pytest.approx(HEIGHT * torch.stack([-top[1], top[0]]), abs=1e-2)
        turns.append(math.degrees(math.atan2(top[1], top[0])))
        shifts.append(((target.mean(0) / torch.tensor([WIDTH, HEIGHT])) - 0.5).abs().max())
    assert 15 < max(map(abs, turns)) <= 20 and 0.08 < max(shifts) <= 0.1001


def test_a_quarter_of_the_views_is_blurred():
    kernels = [draw_view(HEIGHT, WIDTH)[2] for _ in range(400)]
    assert 70 < sum(kernel is not None for kernel in kernels) < 130


def test_blur_spreads_along_a_line_and_keeps_what_is_even():
    even = torch.full((3, 30, 30), 77, dtype=torch.uint8)
    point = torch.zeros(3, 31, 31, dtype=torch.uint8)
    point[:, 15, 15] = 255
    for _ in range(10):
        kernel = draw_blur()
        assert len(kernel) in (9, 11) and kernel.sum().item() == pytest.approx(1)
        assert torch.equal(blur(even, kernel), even)
        places = blur(point, kernel)[0].nonzero().float() - 15
        assert len(places) >= 7 and places.abs().max() <= 5
        # The second singular value of points on a line is next to nothing.
        assert torch.linalg.svdvals(places)[1] < 0.25 * torch.linalg.svdvals(places)[0]
