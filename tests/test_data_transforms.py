# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
import colorsys
from itertools import product

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms import v2

from proxyformer_hf.data.transforms import (
    VIDEO_SHORT_SIDES,
    PhotometricDistortion,
    RandomMirror,
    RandomResizeOrCrop,
    RandomShortSide,
    RandomSizeCrop,
    distort,
    image_pretraining_transform,
    largest_sides,
    paper_transform,
    training_transform,
    validation_transform,
)
from proxyformer_hf.video_processing_proxyformer import ProxyFormerVideoProcessor


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        yield


def marker_clip(height: int, width: int, num_frames: int = 3) -> dict:
    """A white rectangle that moves over black, with its mask and box."""
    frames = torch.zeros(num_frames, 3, height, width, dtype=torch.uint8)
    boxes = []
    for t in range(num_frames):
        x1, y1 = width // 2 - 20 + 12 * t, height // 2 - 30 + 8 * t
        boxes.append([x1, y1, x1 + 60, y1 + 40])
        frames[t, :, y1 : y1 + 40, x1 : x1 + 60] = 255
    return {
        "frames": tv_tensors.Video(frames),
        "masks": tv_tensors.Mask((frames[None, :, 0] > 0).to(torch.uint8)),
        "boxes": tv_tensors.BoundingBoxes(
            boxes, format="XYXY", canvas_size=(height, width), dtype=torch.float32
        ),
        "expressions": ["the box on the left", "Left-handed, not Right"],
        "annotated": torch.tensor([True, False, True]),
        "video_id": "turn-left",
    }


def coordinate_clip(height: int, width: int) -> dict:
    """Frames and masks whose values tell where in the source they come from."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    frame = torch.stack([rows % 256, columns % 256, 16 * (rows // 256) + columns // 256])
    frames = torch.stack([frame, frame]).to(torch.uint8)
    return {
        "frames": tv_tensors.Video(frames),
        "masks": tv_tensors.Mask(frames[None, :, 0]),
        "expressions": [],
    }


def sources(frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Row and column in the source of each pixel of a clip of coordinates."""
    low_rows, low_columns, high = frames.int().unbind(1)
    return 256 * (high // 16) + low_rows, 256 * (high % 16) + low_columns


def canvas(height: int, width: int) -> dict:
    """Geometry without pixels: one box, a tenth of the frame around its middle."""
    box = [0.45 * width, 0.45 * height, 0.55 * width, 0.55 * height]
    return {
        "boxes": tv_tensors.BoundingBoxes([box], format="XYXY", canvas_size=(height, width)),
        "expressions": [],
    }


def published_size(height: int, width: int, short_side: int, max_size: float) -> tuple[int, int]:
    """The rule of DETR and ReferFormer in its floating point arithmetic, held to `max_size`."""
    low, high = float(min(height, width)), float(max(height, width))
    if high / low * short_side > max_size:
        short_side = int(round(max_size * low / high))
    if width < height:
        return min(int(short_side * height / width), max_size), short_side
    return short_side, min(int(short_side * width / height), max_size)


def test_mirror_turns_frames_masks_boxes_and_words():
    sample = marker_clip(120, 160)
    results = [RandomMirror()(sample) for _ in range(200)]
    mirrored = [result for result in results if result is not sample]
    assert 70 < len(mirrored) < 130
    for result in mirrored:
        assert torch.equal(result["frames"], sample["frames"].flip(-1))
        assert torch.equal(result["masks"], sample["masks"].flip(-1))
        x1, y1, x2, y2 = sample["boxes"].unbind(-1)
        assert torch.equal(result["boxes"], torch.stack([160 - x2, y1, 160 - x1, y2], -1))
        assert result["expressions"] == ["the box on the right", "Right-handed, not Left"]
        assert result["video_id"] == "turn-left" and result["annotated"] is sample["annotated"]
    assert sample["expressions"][0] == "the box on the left"


def test_mirror_keeps_words_that_only_contain_left_or_right():
    sample = canvas(40, 60) | {"expressions": ["the bright copyright mark", "the leftmost cat"]}
    results = [RandomMirror()(sample)["expressions"] for _ in range(20)]
    mirrored = ["the bright copyright mark", "the rightmost cat"]
    assert mirrored in results and sample["expressions"] in results


@pytest.mark.parametrize("max_size", [640, 800, float("inf")])
def test_short_side_sizes_are_the_published_ones(max_size):
    rng = np.random.default_rng(0)
    sizes = [(720, 1280), (1280, 720), (320, 568), (480, 854), (480, 910), (500, 500), (37, 990)]
    sizes += rng.integers(64, 1400, (200, 2)).tolist()
    for (height, width), short_side in product(sizes, (288, 360, 512)):
        resized = RandomShortSide([short_side], max_size)(canvas(height, width))
        expected = published_size(height, width, short_side, max_size)
        assert resized["boxes"].canvas_size == expected, (height, width, short_side)


def test_resized_frames_agree_with_pillow_and_masks_take_the_nearest_pixel():
    coarse = torch.randint(0, 256, (2, 3, 15, 20)).float()
    frames = torch.nn.functional.interpolate(coarse, scale_factor=8, mode="bilinear").byte()
    masks = torch.randint(0, 2, (1, 2, 120, 160), dtype=torch.uint8)
    sample = {"frames": tv_tensors.Video(frames), "masks": tv_tensors.Mask(masks)}
    result = RandomShortSide([77])(sample)
    for frame, resized in zip(frames, result["frames"], strict=True):
        image = Image.fromarray(frame.permute(1, 2, 0).numpy())
        expected = np.asarray(image.resize((102, 77), Image.Resampling.BILINEAR))
        assert np.abs(expected - resized.permute(1, 2, 0).numpy().astype(int)).max() <= 1
    rows = [int((y + 0.5) * 120 / 77) for y in range(77)]
    columns = [int((x + 0.5) * 160 / 102) for x in range(102)]
    assert torch.equal(result["masks"], masks[:, :, rows][..., columns])


def test_crop_is_one_rectangle_of_all_frames_and_masks():
    crop = RandomSizeCrop(384, 600)
    for _ in range(10):
        result = crop(coordinate_clip(400, 710))
        rows, columns = sources(result["frames"].as_subclass(torch.Tensor))
        height, width = rows.shape[1:]
        assert 384 <= height <= 400 and 384 <= width <= 600
        top, left = rows[0, 0, 0], columns[0, 0, 0]
        assert (rows == torch.arange(top, top + height)[:, None]).all()
        assert (columns == torch.arange(left, left + width)).all()
        assert torch.equal(result["masks"][0], (rows % 256).to(torch.uint8))


def test_crop_reaches_all_sizes_and_places():
    crop = RandomSizeCrop(10, 14)
    found = [crop.make_params([canvas(12, 20)["boxes"]]) for _ in range(3000)]
    places = {tuple(params.values()) for params in found}
    assert places == {
        (top, left, height, width)
        for height, width in product((10, 11, 12), range(10, 15))
        for top, left in product(range(12 - height + 1), range(20 - width + 1))
    }


def test_half_of_the_clips_are_cropped():
    transform = RandomResizeOrCrop(VIDEO_SHORT_SIDES, 900, VIDEO_SHORT_SIDES)
    results = [transform(canvas(600, 1000))["boxes"] for _ in range(1000)]
    whole, cropped = [], []
    for boxes in results:
        height, width = boxes.canvas_size
        relative = boxes[0] / torch.tensor([width, height, width, height])
        middle = torch.tensor([0.45, 0.45, 0.55, 0.55])
        is_whole = torch.allclose(relative, middle, atol=0.002)
        (whole if is_whole else cropped).append((height, width))
    assert 430 < len(whole) < 570
    assert {*whole} == {published_size(600, 1000, short, 900) for short in VIDEO_SHORT_SIDES}
    assert {*VIDEO_SHORT_SIDES} <= {min(size) for size in cropped}
    assert max(max(size) for size in cropped) == 640


def test_sizes_of_image_pretraining():
    transform = image_pretraining_transform()
    sizes = {transform(canvas(480, 480))["boxes"].canvas_size for _ in range(1000)}
    squares = {height for height, width in sizes if height == width}
    assert squares >= {480, 512, 544, 576, 608, 640, 672, 704, 736, 768}
    cropped = {size for size in sizes if size[0] != size[1]}
    assert {296, 328, 360} <= {min(size) for size in cropped}
    assert max(max(size) for size in cropped) <= 640
    largest = {max(transform(canvas(480, 960))["boxes"].canvas_size) for _ in range(300)}
    assert max(largest) == 800


@pytest.mark.parametrize("size", [(120, 160), (160, 90), (90, 230), (64, 114)])
def test_validation_size_is_that_of_the_processor(size):
    frames = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8)
    resized = validation_transform()({"frames": tv_tensors.Video(frames)})["frames"]
    processor = ProxyFormerVideoProcessor()
    own = processor(frames, do_resize=True, return_tensors="pt")["pixel_values_videos"]
    given = processor(resized, do_resize=False, return_tensors="pt")["pixel_values_videos"]
    assert torch.equal(own, given)


@pytest.mark.parametrize("size", [(720, 1280), (320, 568), (854, 480)])
def test_masks_and_boxes_stay_on_their_object(size):
    geometry = v2.Compose(training_transform().transforms[:2])
    for _ in range(8):
        result = geometry(marker_clip(*size))
        lit, masks = result["frames"][:, 0] > 127, result["masks"][0].bool()
        assert lit.shape == masks.shape
        for t in range(3):
            rows, columns = masks[t].any(1).nonzero()[:, 0], masks[t].any(0).nonzero()[:, 0]
            box = torch.stack([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
            lit_rows, lit_columns = lit[t].any(1).nonzero()[:, 0], lit[t].any(0).nonzero()[:, 0]
            lit_box = torch.stack(
                [lit_columns[0], lit_rows[0], lit_columns[-1] + 1, lit_rows[-1] + 1]
            )
            assert (box - lit_box).abs().max() <= 1
            assert (box - result["boxes"][t]).abs().max() <= 1


def reference_distortion(pixel, brightness, contrast, saturation, hue, contrast_first):
    """One RGB pixel in Python's own HSV, contrast before or after it."""
    r, g, b = (float(value) + brightness for value in pixel)
    if contrast_first:
        r, g, b = contrast * r, contrast * g, contrast * b
    h, s, v = colorsys.rgb_to_hsv(r, g, b)
    channels = colorsys.hsv_to_rgb((h + hue / 360) % 1, s * saturation, v)
    if not contrast_first:
        channels = [contrast * channel for channel in channels]
    return [min(max(channel, 0.0), 255.0) for channel in channels]


@pytest.mark.parametrize("contrast_first", [True, False])
def test_distortion_agrees_with_hsv_wherever_contrast_stands(contrast_first):
    rng = np.random.default_rng(0)
    frame = rng.integers(33, 256, (3, 6, 7), dtype=np.uint8)
    frame[:, 0, 0], frame[:, 0, 1], frame[:, 0, 2] = 77, (90, 90, 40), (40, 90, 90)
    for _ in range(20):
        amounts = rng.uniform((-32, 0.5, 0.5, -18), (32, 1.5, 1.5, 18)) * rng.integers(0, 2, 4)
        amounts = np.where(amounts == 0, (0, 1, 1, 0), amounts).tolist()
        distorted = distort(torch.from_numpy(frame), *amounts)
        assert distorted.dtype == torch.uint8
        for y, x in np.ndindex(6, 7):
            expected = reference_distortion(frame[:, y, x], *amounts, contrast_first)
            assert np.abs(distorted[:, y, x].numpy() - np.array(expected)).max() <= 0.501


def test_distortion_saturates_and_keeps_greys():
    frame = torch.tensor([0, 10, 128, 250]).repeat(3, 1, 1).to(torch.uint8)
    assert torch.equal(distort(frame), frame)
    assert torch.equal(distort(frame, saturation=1.5, hue=18.0), frame)
    assert distort(frame, brightness=32.0)[0, 0].tolist() == [32, 42, 160, 255]
    assert distort(frame, brightness=-32.0)[0, 0].tolist() == [0, 0, 96, 218]
    assert distort(frame, contrast=1.5)[0, 0].tolist() == [0, 15, 192, 255]
    red = torch.tensor([200, 20, 20], dtype=torch.uint8)[:, None, None]
    assert distort(red, hue=120.0).flatten().tolist() == [20, 200, 20]
    assert distort(red, saturation=1.5).flatten().tolist() == [200, 0, 0]


def test_distortion_is_drawn_for_every_frame_and_leaves_masks():
    sample = marker_clip(48, 64, num_frames=3)
    sample["frames"][:] = torch.tensor([120, 90, 60], dtype=torch.uint8)[:, None, None]
    result = PhotometricDistortion()(sample)
    assert isinstance(result["frames"], tv_tensors.Video)
    assert result["masks"] is sample["masks"] and result["boxes"] is sample["boxes"]
    colors = result["frames"].flatten(2)
    assert (colors == colors[..., :1]).all() and len(colors[..., 0].unique(dim=0)) == 3

    video = tv_tensors.Video(torch.zeros(4000, 3, 1, 1))
    amounts = PhotometricDistortion().make_params([video])["amounts"]
    for name, (low, high) in {
        "brightness": (-32, 32),
        "contrast": (0.5, 1.5),
        "saturation": (0.5, 1.5),
        "hue": (-18, 18),
    }.items():
        values = np.array([frame[name] for frame in amounts if name in frame])
        assert abs(len(values) - 2000) < 130
        shares = np.histogram(values, bins=10, range=(low, high))[0] / len(values)
        assert shares.sum() == pytest.approx(1) and np.abs(shares - 0.1).max() < 0.03
    together = sum(len(frame) == 4 for frame in amounts)
    assert abs(together - 250) < 65  # the four are independent


def test_a_seed_repeats_the_whole_transform():
    results = []
    for seed in (3, 3, 4):
        torch.default_generator.manual_seed(seed)
        results.append(training_transform()(marker_clip(320, 568)))
    first, again, other = results
    assert torch.equal(first["frames"], again["frames"])
    assert torch.equal(first["masks"], again["masks"])
    assert first["expressions"] == again["expressions"]
    assert first["frames"].shape != other["frames"].shape


@pytest.mark.parametrize(
    ("transform", "largest"),
    [
        (training_transform(), (512, 640)),
        (image_pretraining_transform(), (768, 800)),
        (paper_transform([320, 360], 640), (360, 640)),
    ],
)
def test_largest_sides_are_reached_and_not_exceeded(transform, largest):
    short, long = largest
    assert largest_sides(transform) == largest
    reached = set()
    for width in (short * 2, round(short * long / short), short):
        for _ in range(12):
            frames = torch.zeros(1, 3, short, width, dtype=torch.uint8)
            size = transform({"frames": tv_tensors.Video(frames), "expressions": []})
            sides = sorted(size["frames"].shape[2:])
            assert sides[0] <= short and sides[1] <= long
            reached.add(sides[1])
    assert max(reached) == long


def test_the_papers_transform_mirrors_and_resizes_alone():
    clip = coordinate_clip(30, 48) | {"expressions": ["the left one"]}
    seen = set()
    for _ in range(30):
        turned = paper_transform([24, 30], 640)(clip)
        if turned["frames"].shape[2:] == (30, 48):
            mirrored = torch.equal(turned["frames"], clip["frames"].flip(-1))
            assert mirrored or torch.equal(turned["frames"], clip["frames"])
            assert turned["expressions"] == [f"the {'right' if mirrored else 'left'} one"]
        else:
            assert turned["frames"].shape[2:] == (24, 38)
        seen.add((tuple(turned["frames"].shape[2:]), turned["expressions"][0]))
    assert len(seen) == 4
