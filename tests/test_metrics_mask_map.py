# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
import numpy as np
import pytest
from pycocotools import mask as rle

from proxyformer_hf.metrics.mask_map import Detections, mask_map


def encode(mask: np.ndarray) -> dict:
    code = rle.encode(np.asfortranarray(mask, np.uint8))
    return {"size": code["size"], "counts": code["counts"].decode()}


class Benchmark:
    """Squares, and queries that draw them displaced, with scores that favour the better ones."""

    def __init__(self, num_images: int = 40, num_queries: int = 5, ties: bool = False):
        self.names = [f"v_{image:03d}_f_1" for image in range(num_images)]
        self.truth = np.zeros((num_images, 120, 160), bool)
        self.queries = np.zeros((num_images, num_queries, 120, 160), bool)
        self.scores = np.zeros((num_images, num_queries))
        for image in range(num_images):
            side = [12, 50, 100][image % 3]  # small, medium and large for COCO
            self.truth[image, 5 : 5 + side, 8 : 8 + side] = True
            for query in range(num_queries):
                down, right = (
                    np.array([3 * image + 5 * query, 5 * image + 7 * query]) % 11 * side // 44
                )
                self.queries[image, query] = np.roll(self.truth[image], (down, right), (0, 1))
                noise = (31 * image + 17 * query) % 97 / 97
                self.scores[image, query] = 1 + noise - (down + right) / side
        if ties:
            self.scores = self.scores.round(1)

    def truths(self) -> dict:
        return dict(zip(self.names, map(encode, self.truth), strict=True))

    def detections(self) -> list[Detections]:
        return [
            Detections(name, scores.tolist(), [*map(encode, masks)])
            for name, scores, masks in zip(self.names, self.scores, self.queries, strict=True)
        ]

    def average_precision(self, threshold: float, best_only: bool = False) -> float:
        """By hand: precision, made monotone, at 101 levels of recall."""
        hits = []  # (score, hit), in the order of images and queries
        for scores, masks, truth in zip(self.scores, self.queries, self.truth, strict=True):
            order = np.argsort(-scores, kind="stable")
            if best_only:
                order = [max(np.flatnonzero(scores == scores.max()))]
            free = True
            for query in order:
                iou = (masks[query] & truth).sum() / (masks[query] | truth).sum()
                hits.append((scores[query], free and iou >= threshold))
                free &= iou < threshold
        hits.sort(key=lambda hit: -hit[0])
        found = np.cumsum([hit for _, hit in hits])
        precision = found / np.arange(1, len(hits) + 1)
        levels = np.searchsorted(found / len(self.truth), np.linspace(0, 1, 101))
        return np.mean([precision[level:].max(initial=0) for level in levels])


THRESHOLDS = np.linspace(0.5, 0.95, 10)


@pytest.mark.parametrize("best_only", [False, True])
@pytest.mark.parametrize("ties", [False, True])
def test_average_precision_is_the_one_by_hand(best_only, ties):
    benchmark = Benchmark(ties=ties)
    results = mask_map(benchmark.truths(), iter(benchmark.detections()), best_only)
    expected = [benchmark.average_precision(threshold, best_only) for threshold in THRESHOLDS]
    assert 0.1 < np.mean(expected) < 0.9
    assert results["mAP 0.5:0.95"] == pytest.approx(np.mean(expected), abs=1e-12)
    assert results["AP 0.5"] == pytest.approx(expected[0], abs=1e-12)
    assert results["AP 0.75"] == pytest.approx(expected[5], abs=1e-12)


OFFICIAL = {  # by the evaluation of ReferFormer (commit 06fc218) with pycocotools 2.0.11
    "mAP 0.5:0.95": 0.5023961826656023,
    "AP 0.5": 0.9064383163999334,
    "AP 0.75": 0.4292111627294632,
    "AP 0.5:0.95 S": 0.6386025419222857,
    "AP 0.5:0.95 M": 0.4748708190406428,
    "AP 0.5:0.95 L": 0.43318645987134996,
}


def test_results_are_the_official_ones():
    benchmark = Benchmark(ties=True)
    assert mask_map(benchmark.truths(), benchmark.detections()) == OFFICIAL


def test_images_come_in_any_order():
    benchmark = Benchmark(ties=True)
    truths, detections = benchmark.truths(), benchmark.detections()
    expected = mask_map(truths, detections)
    assert mask_map(dict(reversed(truths.items())), detections[::-1]) == expected


def test_sizes_are_scored_apart():
    benchmark = Benchmark(3, 1)
    benchmark.queries[:] = benchmark.truth[:, None]
    benchmark.queries[1] = np.roll(benchmark.truth[1], 60, -1)  # somewhere else
    results = mask_map(benchmark.truths(), benchmark.detections())
    sizes = [results[f"AP 0.5:0.95 {size}"] for size in "SML"]
    assert sizes == pytest.approx([1, 0, 1], abs=1e-12)
    assert results["AP 0.5"] == pytest.approx(benchmark.average_precision(0.5), abs=1e-12)
    only_small = Benchmark(1, 1)
    assert mask_map(only_small.truths(), only_small.detections())["AP 0.5:0.95 L"] == -1


def test_only_the_100_best_queries_of_an_image_count():
    benchmark = Benchmark(1, 101)
    benchmark.queries[:] = False
    benchmark.queries[0, 0] = benchmark.truth[0]
    benchmark.scores[0] = np.arange(101) / 101
    assert mask_map(benchmark.truths(), benchmark.detections())["mAP 0.5:0.95"] == 0
    benchmark.scores[0, 0] = 0.015  # the 100th
    assert mask_map(benchmark.truths(), benchmark.detections())["mAP 0.5:0.95"] == pytest.approx(
        0.01
    )


def test_nothing_is_printed_and_nothing_changed(capsys):
    benchmark = Benchmark(3, 2)
    truths, detections = benchmark.truths(), benchmark.detections()
    mask_map(truths, detections)
    assert capsys.readouterr().out == ""
    assert (truths, detections) == (benchmark.truths(), benchmark.detections())


def test_image_without_detection_is_refused():
    benchmark = Benchmark(9, 2)
    truths, detections = benchmark.truths(), benchmark.detections()
    with pytest.raises(ValueError, match="2 of 9 have none, such as v_000_f_1, v_008_f_1"):
        mask_map(truths, detections[1:-1])
    with pytest.raises(ValueError, match="image v_000_f_1 needs finite scores .* at least one"):
        mask_map(truths, [Detections("v_000_f_1", [], [])])
    with pytest.raises(ValueError, match="0 of 0"):
        mask_map({}, [])


def test_unfit_detections_are_refused():
    benchmark = Benchmark(2, 1)
    truths, (first, second) = benchmark.truths(), benchmark.detections()
    with pytest.raises(ValueError, match="no image v_x in the ground truth"):
        mask_map(truths, [first, second._replace(image_id="v_x")])
    with pytest.raises(ValueError, match="image v_000_f_1 comes twice"):
        mask_map(truths, [first, first])
    with pytest.raises(ValueError, match="got scores .nan. and 1 masks"):
        mask_map(truths, [first._replace(scores=[np.nan])])
    with pytest.raises(ValueError, match="and 2 masks"):
        mask_map(truths, [first._replace(masks=first.masks * 2)])
    with pytest.raises(
        ValueError, match=r"v_000_f_1: a mask has the size \[8, 9\], .* \[120, 160\]"
    ):
        mask_map(truths, [first._replace(masks=[encode(np.ones((8, 9)))])])
