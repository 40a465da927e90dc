# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.measure import label
from torchvision.ops import box_convert, masks_to_boxes

from proxyformer_hf.masks import (
    boxes_from_masks,
    davis_palette,
    keep_surest_region,
    load_mask,
    save_mask,
)


def random_masks(*shape, density=0.02):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0)) < density


def test_pixel_boxes_are_torchvisions_with_the_last_column_and_row_covered():
    masks = random_masks(50, 11, 17)
    visible = masks.flatten(1).any(1)
    assert 0 < visible.sum() < 50
    boxes, result = boxes_from_masks(masks, normalized=False)
    expected = masks_to_boxes(masks) + torch.tensor([0, 0, 1, 1])
    torch.testing.assert_close(boxes[visible], expected[visible], rtol=0, atol=0)
    torch.testing.assert_close(result, visible)
    assert boxes[~visible].eq(0).all()


def test_normalised_boxes_are_the_pixel_boxes_over_the_frame():
    masks = random_masks(2, 3, 20, 30)
    corners, _ = boxes_from_masks(masks, normalized=False)
    boxes, visible = boxes_from_masks(masks)
    assert boxes.shape == (2, 3, 4) and boxes.dtype == torch.float32
    assert visible.shape == (2, 3) and visible.dtype == torch.bool
    expected = box_convert(corners / torch.tensor([30, 20, 30, 20]), "xyxy", "cxcywh")
    torch.testing.assert_close(boxes, expected)


def test_full_mask_is_the_whole_frame_and_one_pixel_has_an_area():
    masks = torch.zeros(2, 4, 8)
    masks[0] = 1
    masks[1, 1, 2] = 1
    boxes, _ = boxes_from_masks(masks)
    expected = torch.tensor([[0.5, 0.5, 1, 1], [2.5 / 8, 1.5 / 4, 1 / 8, 1 / 4]])
    torch.testing.assert_close(boxes, expected)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float32, torch.bfloat16])
def test_any_dtype_gives_the_same_boxes(dtype):
    masks = random_masks(5, 9, 13)
    torch.testing.assert_close(boxes_from_masks(masks.to(dtype)), boxes_from_masks(masks))


def test_unannotated_frame_counts_as_empty():
    boxes, visible = boxes_from_masks(torch.full((1, 4, 4), -1))
    assert boxes.tolist() == [[0, 0, 0, 0]]
    assert visible.tolist() == [False]


def test_box_of_a_vector_is_refused():
    with pytest.raises(ValueError, match=r"masks must be \(..., height, width\), got shape \(5,\)"):
        boxes_from_masks(torch.zeros(5))


def test_binary_mask_round_trip(tmp_path):
    mask = random_masks(11, 17, density=0.5).numpy()
    save_mask(tmp_path / "mask.png", mask)
    with Image.open(tmp_path / "mask.png") as image:
        assert image.mode == "L"
        np.testing.assert_array_equal(np.array(image), np.where(mask, 255, 0))
    loaded = load_mask(tmp_path / "mask.png")
    assert loaded.dtype == np.bool_
    np.testing.assert_array_equal(loaded, mask)


def test_palette_mask_round_trip(tmp_path):
    ids = np.arange(256, dtype=np.uint8).reshape(16, 16)
    save_mask(tmp_path / "mask.png", ids)
    with Image.open(tmp_path / "mask.png") as image:
        assert image.mode == "P"
        assert image.getpalette() == davis_palette()
    loaded = load_mask(tmp_path / "mask.png")
    assert loaded.dtype == np.uint8
    np.testing.assert_array_equal(loaded, ids)


def test_palette_has_the_known_colours_of_voc():
    colours = np.reshape(davis_palette(), (256, 3)).tolist()
    assert colours[:9] == [
        [0, 0, 0],
        [128, 0, 0],
        [0, 128, 0],
        [128, 128, 0],
        [0, 0, 128],
        [128, 0, 128],
        [0, 128, 128],
        [128, 128, 128],
        [64, 0, 0],
    ]
    assert colours[19:21] == [[128, 192, 0], [0, 64, 128]]
    assert colours[255] == [224, 224, 192]


def test_failed_saving_keeps_the_finished_mask(tmp_path, monkeypatch):
    path = tmp_path / "mask.png"
    path.write_bytes(b"a finished file")

    def fail(self, file, **kwargs):
        Path(file).write_bytes(b"partly written")
        raise OSError("disk full")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        save_mask(path, np.zeros((4, 4), bool))
    assert path.read_bytes() == b"a finished file"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("mask", [np.zeros((2, 4, 4), bool), np.zeros((4, 4), np.float32)])
def test_mask_of_another_kind_is_refused(tmp_path, mask):
    with pytest.raises(ValueError, match="a mask is bool or uint8"):
        save_mask(tmp_path / "mask.png", mask)


@pytest.mark.parametrize("density", [0.2, 0.6, 0.9])  # specks; winding regions; nearly one
@pytest.mark.parametrize("compiled", [False, True])
def test_the_region_that_is_kept_is_the_one_with_the_peak(density, compiled):
    noise = torch.randn(2, 6, 13, 21, generator=torch.Generator().manual_seed(0))
    logits = noise - noise.quantile(1 - density)
    keep = keep_surest_region
    if compiled:
        keep = torch.compile(keep, fullgraph=True, dynamic=False, backend="eager")
    for before, after in zip(logits.flatten(0, 1), keep(logits).flatten(0, 1), strict=True):
        regions = label(before.numpy() > 0, connectivity=1)
        peaks = [before.numpy()[regions == region].max() for region in range(1, regions.max() + 1)]
        kept = torch.from_numpy(regions == 1 + np.argmax(peaks))
        assert len(peaks) > 1 or density == 0.9
        torch.testing.assert_close(after, torch.where(kept, before, -before.abs()), rtol=0, atol=0)


def test_a_spiral_is_one_region_and_no_region_stays_none():
    spiral = torch.tensor(
        [[1, 1, 1, 1, 1], [0, 0, 0, 0, 1], [1, 1, 1, 0, 1], [1, 0, 0, 0, 1], [1, 1, 1, 1, 1]]
    )
    logits = torch.where(spiral > 0, 1.0, -1.0)
    logits[0, 0] = 2.0
    assert torch.equal(keep_surest_region(logits), logits)
    assert torch.equal(keep_surest_region(-logits.abs()), -logits.abs())
