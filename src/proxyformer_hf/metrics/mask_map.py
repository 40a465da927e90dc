# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""COCO's mean average precision of masks, as A2D- and JHMDB-Sentences report it.

Every expression is an image of its own with one object, every query of the model a detection in it.
That is how MTTR and ReferFormer count; to count the best query alone lowers the number by some
points, so that the two do not compare.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import redirect_stdout
from typing import Any, NamedTuple

import numpy as np
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from .mask_precision import best_query

RLE = Mapping[str, Any]  # {"size": [height, width], "counts": compressed str or bytes}

# COCOeval's first six numbers, under the names of MTTR and ReferFormer
NAMES = (
    "mAP 0.5:0.95",
    "AP 0.5",
    "AP 0.75",
    "AP 0.5:0.95 S",
    "AP 0.5:0.95 M",
    "AP 0.5:0.95 L",
)


class Detections(NamedTuple):
    """What a model answers to one expression.

    Attributes:
        image_id: name of the expression's frame, as `v_<video>_f_<frame>_i_<instance>`.
        scores: of the queries.
        masks: of the queries, COCO run-length codes.
    """

    image_id: str
    scores: Sequence[float]
    masks: Sequence[RLE]


def mask_map(
    truths: Mapping[str, RLE], detections: Iterable[Detections], best_only: bool = False
) -> dict[str, float]:
    """COCO's mean average precision over all queries, or over the best one of every expression.

    Args:
        truths: the mask of every image, by its id.
        detections: once for every image, in any order.
        best_only: count the query with the highest score alone.

    Returns:
        fractions: `mAP 0.5:0.95`, `AP 0.5`, `AP 0.75`, and `AP 0.5:0.95` of small (S, below 32^2
        pixels), medium (M) and large (L, above 96^2) objects, -1 where there are none. At most the
        100 best queries of an image count.

    Raises:
        ValueError: an image has no detection, is not in `truths` or comes twice; sizes of masks
            differ; scores are not finite.
    """
    results, seen = [], set()
    for image_id, scores, masks in detections:
        _check(image_id, scores, masks, truths)
        if image_id in seen:
            raise ValueError(f"image {image_id} comes twice")
        seen.add(image_id)
        queries = [best_query(scores)] if best_only else range(len(scores))
        results += [
            {
                "image_id": image_id,
                "category_id": 1,
                "segmentation": dict(masks[query]),
                "score": float(scores[query]),
            }
            for query in queries
        ]
    missing = [image_id for image_id in truths if image_id not in seen]
    if missing or not truths:
        raise ValueError(
            f"every image needs a detection: {len(missing)} of {len(truths)} have none, "
            f"such as {', '.join(missing[:5])}"
        )
    with open(os.devnull, "w") as devnull, redirect_stdout(devnull):
        evaluation = COCOeval(*_coco(truths, results), iouType="segm")
        evaluation.params.useCats = 0
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return dict(zip(NAMES, map(float, evaluation.stats[: len(NAMES)]), strict=True))


def _check(
    image_id: str, scores: Sequence[float], masks: Sequence[RLE], truths: Mapping[str, RLE]
) -> None:
    if image_id not in truths:
        raise ValueError(f"there is no image {image_id} in the ground truth")
    if len(scores) != len(masks) or not len(scores) or not np.isfinite(scores).all():
        raise ValueError(
            f"image {image_id} needs finite scores and as many masks, at least one: "
            f"got scores {list(scores)} and {len(masks)} masks"
        )
    size = list(truths[image_id]["size"])
    for mask in masks:
        if list(mask["size"]) != size:
            raise ValueError(
                f"image {image_id}: a mask has the size {list(mask['size'])}, "
                f"the ground truth {size}"
            )


def _coco(truths: Mapping[str, RLE], results: list[dict[str, Any]]) -> tuple[COCO, COCO]:
    """Ground truth and results as pycocotools knows them."""
    images = [
        {"id": image_id, "height": mask["size"][0], "width": mask["size"][1]}
        for image_id, mask in truths.items()
    ]
    annotations = [
        {
            "id": number,  # from 1 on: COCOeval takes 0 for no match
            "image_id": image_id,
            "category_id": 1,
            "segmentation": dict(mask),
            "area": float(rle.area(dict(mask))),
            "iscrowd": 0,
        }
        for number, (image_id, mask) in enumerate(truths.items(), 1)
    ]
    truth = COCO()
    truth.dataset = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "object"}],
    }
    truth.createIndex()
    return truth, truth.loadRes(results)
