# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""A data folder of data/sources.py with more written expressions for its images and videos.

    python scripts/add_expressions.py runs/data runs/written-data

expressions.json beside this script was written for this project, for training videos of DAVIS-2016
and images of COCO, PASCAL VOC and others. In such a file,

    "objects" is a list of {"image": "000000000309.jpg", "category": "teddy bear",
        "box": [x1, y1, x2, y2] in fractions of the image, "expressions": [...]}, so that it fits
        the image at any size and whatever numbers its objects have;
    "videos" has lists of expressions by name, each true of the object through the whole video.

What the folder does not have is left out, and counted.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from data_folder import DataFolder, box_iou, extended

WRITTEN = Path(__file__).with_name("expressions.json")
SAME_BOX = 0.85  # IoU: less, and it may be another object's

Objects = dict[tuple[str, str], list[tuple[dict[str, Any], np.ndarray]]]


def box_in_fractions(polygons: list[list[float]], image: dict[str, Any]) -> np.ndarray:
    """x1, y1, x2, y2 of COCO's polygons."""
    points = np.concatenate([np.reshape(polygon, (-1, 2)) for polygon in polygons])
    points = points / (image["width"], image["height"])
    return np.concatenate([points.min(0), points.max(0)])


def objects_of(coco: dict[str, Any]) -> Objects:
    """COCO's annotations and their boxes, by the image's file name and the category."""
    images = {image["id"]: image for image in coco["images"]}
    categories = {category["id"]: category["name"] for category in coco["categories"]}
    objects: Objects = {}
    for annotation in coco["annotations"]:
        image = images[annotation["image_id"]]
        key = Path(image["file_name"]).name, categories[annotation["category_id"]]
        box = box_in_fractions(annotation["segmentation"], image)
        objects.setdefault(key, []).append((annotation, box))
    return objects


def find_object(entry: dict[str, Any], objects: Objects) -> dict[str, Any] | None:
    """The annotation that has the entry's box."""

    def likeness(box: np.ndarray) -> float:
        corners = np.array(entry["box"]), box
        return box_iou(*((*corner[:2], *(corner[2:] - corner[:2])) for corner in corners))

    found = [
        (likeness(box), each) for each, box in objects.get((entry["image"], entry["category"]), [])
    ]
    iou, annotation = max(found, key=lambda pair: pair[0], default=(0, None))
    return annotation if iou >= SAME_BOX else None


def add_expressions(data: DataFolder, more: dict[str, Any]) -> int:
    """Adds those whose objects the folder has; returns how many objects and videos it has not."""
    objects, missing = objects_of(data.coco), 0
    for entry in more["objects"]:
        annotation = find_object(entry, objects)
        if annotation is None:
            missing += 1
            continue
        ids = {"image_id": annotation["image_id"], "annotation_id": annotation["id"]}
        data.written.extend(ids | {"expression": text} for text in entry["expressions"])
    for name, texts in more["videos"].items():
        if name not in data.videos["videos"]:
            missing += 1
            continue
        expressions = data.videos["videos"][name]["expressions"]
        first = max(map(int, expressions)) + 1
        expressions |= {str(k): {"exp": text} for k, text in enumerate(texts, first)}
    return missing


def main(
    source: Annotated[
        Path, typer.Argument(help="Data folder to add to; it stays as it is.", exists=True)
    ],
    output: Annotated[Path, typer.Argument(help="The new data folder, links to the images.")],
    expressions: Annotated[Path, typer.Option(help="File of expressions.", exists=True)] = WRITTEN,
) -> None:
    with extended(source, output) as data:
        try:
            more = json.loads(expressions.read_text())
            missing = add_expressions(data, more)
        except (AttributeError, ValueError, KeyError, TypeError) as error:
            raise typer.BadParameter(
                f"{expressions} is not a file of expressions: {type(error).__name__} {error}"
            ) from error
        number = len(more["objects"]) + len(more["videos"])
        typer.echo(f"{number - missing} of {number} objects and videos are in {source}")


if __name__ == "__main__":
    typer.run(main)
