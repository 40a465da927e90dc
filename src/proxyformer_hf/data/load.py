# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""One function for all benchmarks of referring video object segmentation."""

import importlib
from pathlib import Path
from typing import Any

from datasets import Dataset, IterableDataset
from datasets.exceptions import DatasetGenerationError

from .records import DataError, RVOSBuilder

BUILDERS = {  # name -> module, class
    "ref-youtube-vos": ("ref_youtube_vos", "RefYoutubeVOS"),
    "ref-davis17": ("ref_davis17", "RefDavis17"),
    "a2d-sentences": ("a2d_sentences", "A2DSentences"),
    "jhmdb-sentences": ("jhmdb_sentences", "JHMDBSentences"),
    "mevis": ("mevis", "MeViS"),
    "moving-shapes": ("moving_shapes", "MovingShapes"),
    "refcoco": ("refcoco", "RefCOCO"),
    "refcoco+": ("refcoco", "RefCOCOPlus"),
    "refcocog": ("refcoco", "RefCOCOg"),
    "folder": ("folder", "VideoFolder"),
}


def builder_class(name: str) -> type[RVOSBuilder]:
    """The builder of a benchmark."""
    if name not in BUILDERS:
        raise ValueError(f"there is no data set {name!r}: give one of {', '.join(BUILDERS)}")
    module, builder = BUILDERS[name]
    return getattr(importlib.import_module(f".{module}", __package__), builder)


def load_rvos_dataset(
    name: str,
    data_dir: str | Path | None = None,
    split: str = "train",
    streaming: bool = False,
    **options: Any,
) -> Dataset | IterableDataset:
    """The rows of a benchmark's split, one per expression (see data/records.py).

    Only annotation files are read, and, where a layout leaves no other way, the folders of one
    video at a time; data/decoding.py reads frames and masks when they are needed. The index is
    cached, and made again when what it was made of has changed.

    Args:
        name: "ref-youtube-vos", "ref-davis17", "a2d-sentences", "jhmdb-sentences", "mevis",
            "moving-shapes", "refcoco", "refcoco+", "refcocog", or "folder", of one's own videos.
        data_dir: the folder with the unzipped official download, laid out as the builder's
            docstring shows; moving-shapes needs none.
        split: "train", "valid" or "test" as the benchmark has them; MeViS: "train", "valid_u"
            (with masks) or "valid"; RefCOCO/+/g: "train", "val" and their tests.
        streaming: return an `IterableDataset`, which makes its rows as they are asked for and
            caches nothing.
        options: `cache_dir`, and what the builder of the benchmark takes, such as `seed` (JHMDB-
            Sentences, moving-shapes).

    Raises:
        DataError: a folder or file is missing or malformed. Names the path, what was expected and
            which official download holds it.
        ValueError: there is no such data set or split.
    """
    builder = builder_class(name)(data_dir, split, streaming=streaming, **options)
    if streaming:
        return builder.as_streaming_dataset(split)
    try:
        builder.download_and_prepare()
    except DatasetGenerationError as error:
        if isinstance(error.__cause__, DataError):
            raise error.__cause__ from None
        raise
    return builder.as_dataset(split)
