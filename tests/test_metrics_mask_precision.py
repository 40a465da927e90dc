# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
import numpy as np
import pytest
import torch

from proxyformer_hf.metrics.mask_precision import (
    best_query,
    intersection_and_union,
    mask_precision,
)


def official_masks() -> tuple[np.ndarray, np.ndarray]:
    """Predictions and truths of 200 expressions, bool (200, 1, 1000): runs of pixels."""
    index, x = np.arange(200)[:, None, None], np.arange(1000)
    stop = 20 * (1 + index * 13 % 50)
    truth = x < stop
    prediction = (x >= index * 7 % 30 * stop // 100) & (x < stop + index * 3 % 20)
    return prediction & (index % 40 > 0), truth & (index % 80 > 0)


def test_areas_are_counts_of_pixels():
    prediction = np.zeros((2, 4, 6), bool)
    prediction[0, :2], prediction[1, 1:3, 1:3] = True, True
    truth = np.zeros((2, 4, 6), np.uint8)
    truth[:, :, :3] = 255
    intersection, union = intersection_and_union(prediction, truth)
    assert intersection.tolist() == [6, 4]
    assert union.tolist() == [18, 12]
    assert intersection_and_union(prediction[0], truth[0]) == (6, 18)


def test_masks_of_unlike_shapes_are_refused():
    with pytest.raises(ValueError, match=r"prediction \(4, 6\), truth \(6, 4\)"):
        intersection_and_union(np.zeros((4, 6), bool), np.zeros((6, 4), bool))


def test_precision_counts_the_masks_strictly_above_the_thresholds():
    results = mask_precision([55, 65, 75, 85, 95, 0], [100, 100, 100, 100, 100, 100])
    assert [results[f"P@{k}"] for k in (0.5, 0.6, 0.7, 0.8, 0.9)] == [
        5 / 6,
        4 / 6,
        3 / 6,
        2 / 6,
        1 / 6,
    ]
    assert results["overall_iou"] == 375 / 600
    assert results["mean_iou"] == pytest.approx(375 / 600, abs=1e-8)


def test_overall_iou_weighs_by_area_and_mean_iou_does_not():
    results = mask_precision([1000, 0], [1000, 10])
    assert results["overall_iou"] == 1000 / 1010
    assert results["mean_iou"] == pytest.approx(0.5, abs=1e-6)


def test_ious_at_the_thresholds_are_decided_in_float32_as_in_the_official_code():
    """With a wide union, 0.5, 0.7 and 0.9 round to what is not above, 0.6 and 0.8 to what is."""
    unions = np.full(5, 100_000)
    results = mask_precision(unions * [5, 6, 7, 8, 9] // 10, unions)
    assert [results[f"P@{k}"] for k in (0.5, 0.6, 0.7, 0.8, 0.9)] == [4 / 5, 4 / 5, 2 / 5, 2 / 5, 0]


OFFICIAL = {  # by the evaluation of ReferFormer (commit 06fc218), which is MTTR's
    "P@0.5": 0.99,
    "P@0.6": 0.98,
    "P@0.7": 0.93,
    "P@0.8": 0.63,
    "P@0.9": 0.285,
    "overall_iou": 0.8347984060009377,
    "mean_iou": 0.8218406933892386,
}


def test_results_are_the_official_ones():
    prediction, truth = official_masks()
    assert mask_precision(*intersection_and_union(prediction, truth)) == OFFICIAL


def test_ious_are_those_of_float32_tensors():
    random = np.random.default_rng(0)
    unions = random.integers(1, 20, 4000) * random.choice([1, 10, 1000, 20000], 4000)
    intersections = (unions * random.integers(0, 21, 4000)) // 20
    areas = [torch.tensor(x).float() for x in (intersections, unions)]
    ious = [iou.item() for iou in (areas[0] + 1e-6) / (areas[1] + 1e-6)]
    results = mask_precision(intersections, unions)
    for threshold in (0.5, 0.6, 0.7, 0.8, 0.9):
        assert results[f"P@{threshold}"] == sum(iou > threshold for iou in ious) / 4000
    assert results["mean_iou"] == np.mean(ious)
    assert results["overall_iou"] == intersections.sum() / unions.sum()


def test_empty_mask_of_an_absent_object_is_right():
    results = mask_precision([0], [0])
    assert results == dict.fromkeys(results, 1.0)
    assert mask_precision([0, 0], [0, 7])["P@0.5"] == 0.5


@pytest.mark.parametrize(
    ("intersections", "unions"), [([], []), ([1, 2], [3]), ([[1]], [[2]]), (1, 2)]
)
def test_areas_of_unlike_or_no_masks_are_refused(intersections, unions):
    with pytest.raises(ValueError, match="expected the areas of at least one expression"):
        mask_precision(intersections, unions)


@pytest.mark.parametrize(("intersections", "unions"), [([3], [2]), ([-1], [2]), ([np.nan], [2])])
def test_impossible_areas_are_refused(intersections, unions):
    with pytest.raises(ValueError, match="must not be negative nor larger than their unions"):
        mask_precision(intersections, unions)


def test_best_query_is_the_last_of_the_highest():
    assert best_query([0.1, 0.7, 0.7, 0.2]) == 2
    assert best_query(np.array([0.3])) == 0
    for unfit in ([], [0.1, np.nan]):
        with pytest.raises(ValueError, match="scores must be finite, and at least one"):
            best_query(unfit)
