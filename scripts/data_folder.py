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

import numpy as np
import typer
from PIL import Image

from proxyformer_hf.data.sources import DEV_IMAGES

FRAME_FOLDERS = ("JPEGImages", "Annotations")
META = "davis16_train_240p/meta_expressions.json"
FIRST_ID = 10_000_000  # of images and annotations, beyond COCO's
SIDE = 16  # pixels, of thumbnails
SAME_PICTURE = 0.93  # correlation of thumbnails; other pictures, of 4,700, stay below

Box = tuple[float, float, float, float]  # x, y, width, height


@dataclass
class DataFolder:
    """What a data folder holds besides pictures: COCO's instances, written expressions (a list of
    {image_id, annotation_id, expression}), and videos with theirs (in Ref-YouTube-VOS form)."""

    coco: dict[str, Any]
    written: list[dict[str, Any]]
    videos: dict[str, Any]
    development: np.ndarray  # thumbnails (n, SIDE, SIDE) of the development images

    def is_development(self, path: Path) -> bool:
        """Whether a picture is a development image (data/sources.py) by another name, maybe
        mirrored: public collections hold copies of COCO's."""
        picture = thumbnail(path)
        both = np.stack([picture, picture[:, ::-1]])
        return bool((np.tensordot(self.development, both, ((1, 2), (1, 2))) > SAME_PICTURE).any())


def thumbnail(path: Path) -> np.ndarray:
    """Grey values (SIDE, SIDE) whose product with another's is their correlation."""
    with Image.open(path) as picture:
        picture.draft("L", (4 * SIDE, 4 * SIDE))  # JPEGs are decoded as small as they may be
        small = picture.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
    values = np.asarray(small, float) - np.mean(small)
    return values / max(np.linalg.norm(values), 1.0)


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
    coco, written, videos = (json.loads((source / name).read_text()) for name in files)
    pictures = source / "coco_small/images"
    held_out = [i["file_name"] for i in coco["images"] if i["id"] in DEV_IMAGES]
    development = [thumbnail(pictures / name) for name in held_out]
    data = DataFolder(coco, written, videos, np.reshape(development, (-1, SIDE, SIDE)))
    yield data
    partial = output.with_name(output.name + ".new")
    shutil.rmtree(partial, ignore_errors=True)
    (partial / "coco_small/images").mkdir(parents=True)
    clips = Path(META).parent
    for kind in FRAME_FOLDERS:
        (partial / clips / kind).mkdir(parents=True)
    for image in data.coco["images"]:
        path = pictures / image["file_name"]  # itself where it is whole
        image["file_name"] = path.name
        os.symlink(path.resolve(), partial / "coco_small/images" / path.name)
    for name, video in data.videos["videos"].items():
        root = Path(video.pop("root", source / clips))
        for kind in FRAME_FOLDERS:
            os.symlink((root / kind / name).resolve(), partial / clips / kind / name)
    for name, content in zip(files, (data.coco, data.written, data.videos), strict=True):
        (partial / name).write_text(json.dumps(content))
    partial.rename(output)
    counts = len(data.coco["images"]), len(data.videos["videos"]), len(data.written)
    typer.echo("{}: {} pictures, {} videos, {} expressions".format(output, *counts))


def box_iou(a: Box, b: Box) -> float:
    width, height = (min(a[k] + a[k + 2], b[k] + b[k + 2]) - max(a[k], b[k]) for k in (0, 1))
    overlap = max(width, 0) * max(height, 0)
    return overlap / (a[2] * a[3] + b[2] * b[3] - overlap)
