# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""A data folder of data/sources.py, and more images with instances in COCO's JSON (polygons).

    python scripts/add_coco_images.py runs/data runs/more-data \
        --images street/images --instances street/instances_train2017.json \
        --images animals/train --instances animals/train/_annotations.coco.json

A category is known by its name, or a new one; those that a file does not list, and those of which
an image has a crowd or an object without a polygon, count as not labelled there. Images that are in
the folder already, by their file's name, copies of development images, and files that are missing
are left out.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from data_folder import FIRST_ID, DataFolder, extended
from tqdm import tqdm

MIN_POLYGON = 6  # coordinates


def polygon_area(polygon: list[float]) -> float:
    """In pixels, by the shoelace formula."""
    x, y = np.reshape(polygon, (-1, 2)).T
    return float(abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2)


def polygons_of(annotation: dict[str, Any]) -> list[list[float]]:
    """Empty where the object is not outlined: a crowd, or a run-length code."""
    polygons = annotation.get("segmentation")
    if annotation.get("iscrowd") or not isinstance(polygons, list):
        return []
    return [polygon for polygon in polygons if len(polygon) >= MIN_POLYGON]


def add_images(data: DataFolder, folder: Path, more: dict[str, Any]) -> None:
    """Adds to COCO's instances those of `more` whose images are in the folder."""
    coco = data.coco
    ids = {category["name"]: category["id"] for category in coco["categories"]}
    for image in coco["images"]:  # of the categories to come nobody looked there
        image.setdefault("labelled_categories", sorted(ids.values()))
    for category in more["categories"]:
        if category["name"] not in ids:
            ids[category["name"]] = max(ids.values()) + 1
            coco["categories"].append({"id": ids[category["name"]], "name": category["name"]})
    known = {category["id"]: ids[category["name"]] for category in more["categories"]}
    annotations: dict[int, list[dict[str, Any]]] = {}
    for annotation in more["annotations"]:
        annotations.setdefault(annotation["image_id"], []).append(annotation)
    names = {Path(image["file_name"]).name for image in coco["images"]}
    for image in tqdm(more["images"], desc=folder.name, unit="picture"):
        path = (folder / Path(image["file_name"]).name).resolve()
        if path.name in names or not path.is_file() or data.is_development(path):
            continue
        names.add(path.name)
        size = {side: image[side] for side in ("height", "width")}
        image_id, labelled = FIRST_ID + len(coco["images"]), set(known.values())
        for annotation in annotations.get(image["id"], []):
            category, polygons = known[annotation["category_id"]], polygons_of(annotation)
            if not polygons:
                labelled.discard(category)
                continue
            coco["annotations"].append(
                {
                    "id": FIRST_ID + len(coco["annotations"]),
                    "image_id": image_id,
                    "category_id": category,
                    "segmentation": polygons,
                    "area": sum(map(polygon_area, polygons)),
                }
            )
        added = {"id": image_id, "file_name": str(path), "labelled_categories": sorted(labelled)}
        coco["images"].append(added | size)


def main(
    source: Annotated[
        Path, typer.Argument(help="Data folder to add to; it stays as it is.", exists=True)
    ],
    output: Annotated[Path, typer.Argument(help="The new data folder, links to the images.")],
    images: Annotated[list[Path], typer.Option(help="Folder of pictures.", exists=True)],
    instances: Annotated[
        list[Path], typer.Option(help="Their instances, a file for each folder.", exists=True)
    ],
) -> None:
    if len(images) != len(instances):
        raise typer.BadParameter(
            f"{len(images)} --images and {len(instances)} --instances: give one file for each"
        )
    with extended(source, output) as data:
        for folder, file in zip(images, instances, strict=True):
            try:
                add_images(data, folder, json.loads(file.read_text()))
            except (ValueError, KeyError, TypeError) as error:
                raise typer.BadParameter(
                    f"{file} is not COCO's instances: {type(error).__name__} {error}"
                ) from error


if __name__ == "__main__":
    typer.run(main)
