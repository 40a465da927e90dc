# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""COCO's mAP for the library `evaluate`: `evaluate.load("<path of this file>")`."""

import evaluate

from proxyformer_hf.metrics.evaluate_modules.mask_precision import (
    DETECTION_FEATURES,
    DETECTION_INPUTS,
)
from proxyformer_hf.metrics.mask_map import NAMES, Detections, mask_map

_CITATION = """\
@inproceedings{lin2014microsoft,
  author = {Tsung-Yi Lin and Michael Maire and Serge Belongie and James Hays and Pietro Perona and
            Deva Ramanan and Piotr Doll{\'a}r and C. Lawrence Zitnick},
  title = {Microsoft {COCO}: Common Objects in Context},
  booktitle = {ECCV},
  year = {2014}
}
"""


class MaskMAP(evaluate.Metric):
    """`mask_map` of all expressions; `compute(best_only=True)` counts their best queries alone."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="COCO's mean average precision of masks over all queries or the best one, "
            "as reported on A2D-Sentences and JHMDB-Sentences.",
            citation=_CITATION,
            inputs_description=DETECTION_INPUTS
            + "    best_only: count the query with the highest score alone; False.\n"
            + "\nReturns:\n    fractions: "
            + ", ".join(f"`{name}`" for name in NAMES)
            + ".\n",
            features=DETECTION_FEATURES,
            reference_urls=["https://github.com/cocodataset/cocoapi"],
        )

    def _compute(
        self, predictions: list[dict], references: list[dict], best_only: bool = False
    ) -> dict[str, float]:
        truths = {reference["image_id"]: reference["mask"] for reference in references}
        detections = (
            Detections(reference["image_id"], **prediction)
            for prediction, reference in zip(predictions, references, strict=True)
        )
        return mask_map(truths, detections, best_only)
