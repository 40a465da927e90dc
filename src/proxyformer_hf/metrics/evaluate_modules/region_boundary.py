# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""J and F for the library `evaluate`: `evaluate.load("<path of this file>", "<protocol>")`."""

from collections.abc import Iterable
from pathlib import Path

import datasets
import evaluate
import numpy as np
from PIL import Image

from proxyformer_hf.metrics.region_boundary import (
    as_ids,
    object_scores,
    semi_supervised_scores,
    summarize,
    unsupervised_scores,
)

_PROTOCOLS = {
    "default": object_scores,
    "semi-supervised": semi_supervised_scores,
    "unsupervised": unsupervised_scores,
}

_DESCRIPTION = """\
J (region similarity), F (boundary accuracy), their mean, recall and decay, as in the official
evaluation of DAVIS. The configuration is the protocol: "default" takes masks of one object,
"semi-supervised" and "unsupervised" take maps of object ids.
"""

_CITATION = """\
@article{Pont-Tuset_arXiv_2017,
  author = {Jordi Pont-Tuset and Federico Perazzi and Sergi Caelles and Pablo Arbel\\'aez and
            Alexander Sorkine-Hornung and Luc {Van Gool}},
  title = {The 2017 DAVIS Challenge on Video Object Segmentation},
  journal = {arXiv:1704.00675},
  year = {2017}
}
"""

_INPUTS = """
Args:
    predictions: one item a sequence: its frames, an integer or bool array
        `(num_frames, height, width)` or a list of arrays, PIL images or paths of PNG files.
    references: the same of the ground truth.

Returns:
    fractions: `J&F-Mean`, `J-Mean`, `J-Recall`, `J-Decay`, `F-Mean`, `F-Recall` and `F-Decay`,
    means over the objects of all sequences.
"""


def _as_images(video: Iterable) -> list:
    """The frames as `datasets.Image` takes them: arrays are made images, which it would first turn
    into lists of numbers."""
    return [
        frame
        if isinstance(frame, str | Path | Image.Image)
        else Image.fromarray(as_ids(np.asarray(frame)))
        for frame in video
    ]


class RegionBoundary(evaluate.Metric):
    """`summarize` of the sequences added; they are kept as PNG files until then.

    `config_name`: "default" (`object_scores`), "semi-supervised" (`semi_supervised_scores`) or
    "unsupervised" (`unsupervised_scores`).
    """

    def _info(self) -> evaluate.MetricInfo:
        if self.config_name not in _PROTOCOLS:
            raise ValueError(
                f"config_name must be one of {', '.join(_PROTOCOLS)}, got {self.config_name!r}"
            )
        frames = datasets.List(datasets.Image())
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": frames, "references": frames}),
            reference_urls=["https://github.com/davisvideochallenge/davis2017-evaluation"],
        )

    def add(self, *, prediction, reference):
        """Add one sequence."""
        self.add_batch(predictions=[prediction], references=[reference])

    def add_batch(self, *, predictions, references):
        """Add sequences."""
        super().add_batch(
            predictions=[_as_images(video) for video in predictions],
            references=[_as_images(video) for video in references],
        )

    def _compute(self, predictions: list, references: list) -> dict[str, float]:
        score = _PROTOCOLS[self.config_name]
        return summarize(
            score(np.stack(prediction), np.stack(reference))
            for prediction, reference in zip(predictions, references, strict=True)
        )
