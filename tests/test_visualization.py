# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
import numpy as np
import pytest
from scipy import ndimage

from proxyformer_hf.visualization import MASK_OPACITY, PALETTE, contact_sheet, draw_masks

HEIGHT, WIDTH = 240, 320
BELOW_LEGEND = slice(60, None)


def disc(row: int, column: int, radius: int) -> np.ndarray:
    rows, columns = np.ogrid[:HEIGHT, :WIDTH]
    return (rows - row) ** 2 + (columns - column) ** 2 < radius**2


@pytest.fixture
def frame() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def test_mask_is_tinted_and_outlined_and_the_rest_is_kept(frame):
    mask = disc(150, 160, 50)
    drawn = draw_masks(frame, [mask], ["a"], [0.5])
    square = np.ones((3, 3))  # one pixel at this size
    inside = ndimage.binary_erosion(mask, square, border_value=1)
    around = ndimage.binary_dilation(mask, square) & ~mask
    tinted = (1 - MASK_OPACITY) * frame[inside] + MASK_OPACITY * np.array(PALETTE[0])
    np.testing.assert_array_equal(drawn[inside], tinted.astype(np.uint8))
    assert (drawn[mask & ~inside] == PALETTE[0]).all()
    assert (drawn[around] == 0).all()
    untouched = ~mask & ~around
    np.testing.assert_array_equal(
        drawn[BELOW_LEGEND][untouched[BELOW_LEGEND]], frame[BELOW_LEGEND][untouched[BELOW_LEGEND]]
    )


def test_frame_given_is_not_changed(frame):
    before = frame.copy()
    draw_masks(frame, [disc(150, 160, 50)], ["a"], [0.5])
    np.testing.assert_array_equal(frame, before)


def test_outline_grows_with_the_frame():
    mask = np.zeros((720, 1280), bool)
    mask[300:500, 400:800] = True
    drawn = draw_masks(np.full((720, 1280, 3), 255, np.uint8), [mask], ["a"], [0.5])
    assert (drawn[300:303, 600] == PALETTE[0]).all() and (drawn[297:300, 600] == 0).all()
    assert (drawn[303, 600] != PALETTE[0]).any() and (drawn[296, 600] == 255).all()


def test_each_expression_has_its_color_in_legend_and_mask(frame):
    masks = [disc(150, 60, 30), disc(150, 160, 30), disc(150, 260, 30)]
    drawn = draw_masks(frame, masks, ["a", "b", "c"], [0.1, 0.2, 0.3])
    for mask, color in zip(masks, PALETTE, strict=False):
        border = mask & ~ndimage.binary_erosion(mask, np.ones((3, 3)))
        assert (drawn[border] == color).all()
    legend = drawn[: BELOW_LEGEND.start]
    first_rows = [np.flatnonzero((legend == color).all(-1).any(1))[0] for color in PALETTE[:3]]
    assert first_rows == sorted(first_rows)


def test_empty_mask_only_gets_a_legend(frame):
    drawn = draw_masks(frame, [np.zeros((HEIGHT, WIDTH), bool)], ["a"], [0.0])
    np.testing.assert_array_equal(drawn[BELOW_LEGEND], frame[BELOW_LEGEND])
    assert (drawn[: BELOW_LEGEND.start] != frame[: BELOW_LEGEND.start]).any()


def test_legend_tells_scores_apart(frame):
    mask = np.zeros((HEIGHT, WIDTH), bool)
    assert (
        draw_masks(frame, [mask], ["a"], [0.1]) != draw_masks(frame, [mask], ["a"], [0.9])
    ).any()


def test_long_label_stays_in_the_frame_and_keeps_its_score(frame):
    mask, label = np.zeros((HEIGHT, WIDTH), bool), "a very long expression " * 20
    low, high = (draw_masks(frame, [mask], [label], [score]) for score in (0.1, 0.9))
    np.testing.assert_array_equal(low[:, -2:], frame[:, -2:])
    assert (low != high).any()


@pytest.mark.parametrize("size", [(1, 1), (7, 300), (300, 7), (16, 16)])
def test_any_size_can_be_drawn_on(size):
    frame, mask = np.zeros((*size, 3), np.uint8), np.ones(size, bool)
    drawn = draw_masks(frame, [mask] * 9, ["an expression"] * 9, [0.5] * 9)
    assert drawn.shape == frame.shape and drawn.dtype == np.uint8


def test_mask_of_another_size_is_refused(frame):
    with pytest.raises(ValueError, match=r"\(120, 160\) does not fit a frame of \(240, 320\)"):
        draw_masks(frame, [np.zeros((120, 160), bool)], ["a"], [0.5])


def test_missing_label_is_refused(frame):
    with pytest.raises(ValueError, match="1 masks, 0 labels and 1 scores"):
        draw_masks(frame, [np.zeros((HEIGHT, WIDTH), bool)], [], [0.5])


def test_contact_sheet_lays_frames_out_row_by_row():
    frames = [np.full((60, 80, 3), 40 * index, np.uint8) for index in range(5)]
    sheet = np.asarray(contact_sheet(frames, columns=2, tile_width=40, margin=4))
    assert sheet.shape == (3 * 34 + 4, 2 * 44 + 4, 3)
    for index in range(5):
        top, left = 4 + index // 2 * 34, 4 + index % 2 * 44
        assert (sheet[top : top + 30, left : left + 40] == 40 * index).all()
    assert (sheet[4 + 2 * 34 :, 48:] == 24).all()  # the place after the last frame is empty


def test_contact_sheet_of_few_frames_has_no_empty_columns():
    frames = [np.zeros((10, 20, 3), np.uint8)] * 2
    assert contact_sheet(frames, columns=4, tile_width=20, margin=0).size == (40, 10)


def test_contact_sheet_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one frame"):
        contact_sheet([])
