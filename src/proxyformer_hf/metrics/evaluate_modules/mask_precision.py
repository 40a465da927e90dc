# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""Precision at K and IoU for the library `evaluate`: `evaluate.load("<path of this file>")`."""

import datasets
import evaluate
from pycocotools import mask as rle

from proxyformer_hf.metrics.mask_precision import (
    best_query,
    intersection_and_union,
    mask_precision,
)

RLE_FEATURE = {"size": datasets.List(datasets.Value("int64")), "counts": datasets.Value("string")}
DETECTION_FEATURES = datasets.Features(
    {
        "predictions": {
            "scores": datasets.List(datasets.Value("float64")),
            "masks": datasets.List(RLE_FEATURE),
        },
        "references": {"image_id": datasets.Value("string"), "mask": RLE_FEATURE},
    }
)
DETECTION_INPUTS = """
Args:
    predictions: one item an expression: `{"scores": [...], "masks": [...]}`, the scores of the
        queries and their masks as COCO run-length codes `{"size": [height, width], "counts": str}`.
    references: `{"image_id": str, "mask": {...}}`, a name of its own for the expression's frame
        (as in COCO's files of the benchmarks) and the mask of the ground truth.
"""

_CITATION = """\
@inproceedings{botach2022end,
  author = {Adam Botach and Evgenii Zheltonozhskii and Chaim Baskin},
  title = {End-to-End Referring Video Object Segmentation with Multimodal Transformers},
  booktitle = {CVPR},
  year = {2022}
}
"""


class MaskPrecision(evaluate.Metric):
    """`mask_precision` of the best query's mask of every expression."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Precision at K, overall IoU and mean IoU of the mask with the best score, "
            "as reported on A2D-Sentences and JHMDB-Sentences.",
            citation=_CITATION,
            inputs_description=DETECTION_INPUTS
            + "\nReturns:\n    fractions: `P@0.5` ... `P@0.9`, `overall_iou`, `mean_iou`.\n",
            features=DETECTION_FEATURES,
            reference_urls=["https://github.com/mttr2021/MTTR"],
        )

    def _compute(self, predictions: list[dict], references: list[dict]) -> dict[str, float]:
        areas = []
        for prediction, reference in zip(predictions, references, strict=True):
            best = prediction["masks"][best_query(prediction["scores"])]
            areas.append(intersection_and_union(rle.decode(best), rle.decode(reference["mask"])))
        return mask_precision(*zip(*areas, strict=True))
