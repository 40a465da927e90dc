# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""Precision at K, overall and mean IoU of one mask per expression, as A2D- and JHMDB-Sentences
report them.

The arithmetic is that of the metrics of MTTR (github.com/mttr2021/MTTR), which ReferFormer and
others use: IoU in float32 with 1e-6 added to both areas, and strictly above a threshold.
"""

from collections.abc import Sequence

import numpy as np

from .region_boundary import binary_masks

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)


def best_query(scores: Sequence[float]) -> int:
    """Index of the highest score, the last one among equals."""
    if len(scores) == 0 or not np.isfinite(scores).all():
        raise ValueError(f"scores must be finite, and at least one; got {scores}")
    return len(scores) - 1 - int(np.argmax(scores[::-1]))


def intersection_and_union(
    prediction: np.ndarray, truth: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Areas in pixels, int64 `(...)`, of bool or integer masks `(..., height, width)`; what is not
    zero is the object."""
    prediction, truth = binary_masks(prediction, truth)
    return (prediction & truth).sum((-2, -1)), (prediction | truth).sum((-2, -1))


def mask_precision(intersections: Sequence[int], unions: Sequence[int]) -> dict[str, float]:
    """Precision at K, overall and mean IoU of the masks of all expressions.

    Args:
        intersections: with the ground truth, in pixels, `(num_expressions,)`.
        unions: the same shape. Where it is 0, prediction and ground truth are empty: IoU 1.

    Returns:
        fractions: `P@0.5` ... `P@0.9`, the shares of the masks whose IoU is above; `overall_iou`,
        the sum of the intersections over that of the unions; `mean_iou`.
    """
    intersections, unions = np.asarray(intersections), np.asarray(unions)
    if intersections.ndim != 1 or intersections.size == 0 or intersections.shape != unions.shape:
        raise ValueError(
            "expected the areas of at least one expression, (num_expressions,), "
            f"got intersections {intersections.shape}, unions {unions.shape}"
        )
    if not (np.all(intersections >= 0) and np.all(intersections <= unions)):
        raise ValueError("intersections must not be negative nor larger than their unions")
    # Float32 decides ties: 7/10 rounds to less than 0.7 in it.
    epsilon = np.float32(1e-6)
    ious = (intersections.astype(np.float32) + epsilon) / (unions.astype(np.float32) + epsilon)
    ious = ious.astype(np.float64)
    total = unions.sum()
    return {
        **{f"P@{threshold}": float(np.mean(ious > threshold)) for threshold in THRESHOLDS},
        "overall_iou": float(intersections.sum() / total) if total else 1.0,
        "mean_iou": float(np.mean(ious)),
    }
