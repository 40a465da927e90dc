# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""Data folders of data/sources.py, and how the scripts named add_* make larger ones of them."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

FRAME_FOLDERS = ("JPEGImages", "Annotations")
META = "davis16_train_240p/meta_expressions.json"
FIRST_ID = 10_000_000  # of images and annotations, beyond COCO's

Box = tuple[float, float, float, float]  # x, y, width, height


@dataclass
class DataFolder:
    """What a data folder holds besides pictures: COCO's instances, written expressions (a list of
    {image_id, annotation_id, expression}), and videos with theirs (in Ref-YouTube-VOS form)."""

    coco: dict[str, Any]
    written: list[dict[str, Any]]
    videos: dict[str, Any]


@contextmanager
def extended(source: Path, output: Path) -> Iterator[DataFolder]:
    """A data folder of links to what `source` holds, and to what is added: a new image has its
    whole path as file name, a new video that of the folder of its JPEGImages as "root". It is there
    whole or not at all.

    Raises:
        typer.BadParameter: there is such a folder already.
    """
    if output.exists():
        raise typer.BadParameter(f"{output} exists: remove it first")
    files = ("coco_small/instances.json", "coco_small/expressions.json", META)
    data = DataFolder(*(json.loads((source / name).read_text()) for name in files))
    yield data
    partial = output.with_name(output.name + ".new")
    shutil.rmtree(partial, ignore_errors=True)
    (partial / "coco_small/images").mkdir(parents=True)
    videos = Path(META).parent
    for kind in FRAME_FOLDERS:
        (partial / videos / kind).mkdir(parents=True)
    for image in data.coco["images"]:
        path = source / "coco_small/images" / image["file_name"]  # itself where it is whole
        image["file_name"] = path.name
        os.symlink(path.resolve(), partial / "coco_small/images" / path.name)
    for name, video in data.videos["videos"].items():
        root = Path(video.pop("root", source / videos))
        for kind in FRAME_FOLDERS:
            os.symlink((root / kind / name).resolve(), partial / videos / kind / name)
    for name, content in zip(files, (data.coco, data.written, data.videos), strict=True):
        (partial / name).write_text(json.dumps(content))
    partial.rename(output)
    pictures, clips = len(data.coco["images"]), len(data.videos["videos"])
    typer.echo(f"{output}: {pictures} pictures, {clips} videos, {len(data.written)} expressions")


def box_iou(a: Box, b: Box) -> float:
    width, height = (min(a[k] + a[k + 2], b[k] + b[k + 2]) - max(a[k], b[k]) for k in (0, 1))
    overlap = max(width, 0) * max(height, 0)
    return overlap / (a[2] * a[3] + b[2] * b[3] - overlap)
