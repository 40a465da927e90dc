# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""A data folder of data/sources.py, and PASCAL VOC's images with the outlines of their objects.

    python scripts/add_voc_images.py ../shared/data runs/data --images JPEGImages \
        --masks SegmentationClassAug --boxes pascal_train2012.json --boxes pascal_val2012.json

VOC has a mask of each class in a picture and a box of each object (here in COCO's JSON): the pieces
of a class's mask are those of the box that they lie in. Pictures where objects of a class touch, or
whose boxes and masks disagree, and copies of development images are left out. It needs
`pip install scikit-image`.
"""

import json
from collections import defaultdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from data_folder import FIRST_ID, Box, box_iou, extended
from PIL import Image
from scipy import ndimage
from skimage.measure import approximate_polygon, find_contours
from tqdm import tqdm

CLASSES = (  # VOC's, in the order of the values of its masks from 1 on
    "aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike "
    "person pottedplant sheep sofa train tvmonitor"
).split()
COCO_NAMES = {
    "aeroplane": "airplane",
    "diningtable": "dining table",
    "motorbike": "motorcycle",
    "pottedplant": "potted plant",
    "sofa": "couch",
    "tvmonitor": "tv",
}
UNSURE = 255  # the value of the border around an object
INSIDE = 0.9  # of a piece's pixels: it belongs to the box
AGREEMENT = 0.7  # IoU of an object's box with that of its pieces

# arguments of a script that reads VOC
Images = Annotated[list[Path], typer.Option(help="Folder of VOC's pictures, ID.jpg.", exists=True)]
Masks = Annotated[Path, typer.Option(help="Folder of the class masks, ID.png.", exists=True)]
Boxes = Annotated[list[Path], typer.Option(help="VOC's boxes in COCO's JSON.", exists=True)]


def box_of(mask: np.ndarray) -> Box:
    ys, xs = np.nonzero(mask)
    return xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1


def share_pieces(mask: np.ndarray, boxes: list[Box]) -> list[np.ndarray] | None:
    """The mask of each box of a class, from the class's mask, bool (height, width); None where they
    do not agree."""
    pieces, count = ndimage.label(mask, np.ones((3, 3)))
    shares = [np.zeros_like(mask) for _ in boxes]
    by_area = sorted(range(len(boxes)), key=lambda i: boxes[i][2] * boxes[i][3])
    for number in range(1, count + 1):
        piece = pieces == number
        for i in by_area:
            x, y, width, height = boxes[i]
            top, left = max(int(y) - 1, 0), max(int(x) - 1, 0)
            held = piece[top : int(y + height) + 2, left : int(x + width) + 2].sum()
            if held >= INSIDE * piece.sum():
                shares[i] |= piece
                break
    agree = all(
        share.any() and box_iou(box, box_of(share)) >= AGREEMENT
        for box, share in zip(boxes, shares, strict=True)
    )
    return shares if agree else None


def polygons_of(mask: np.ndarray) -> list[list[float]]:
    """Outlines x1, y1, x2, ... of a mask, in pixels, as COCO writes them."""
    outlines = [
        approximate_polygon(contour, tolerance=0.7)[:-1]
        for contour in find_contours(np.pad(mask, 1).astype(float), 0.5)
    ]
    return [(outline[:, ::-1] - 0.5).ravel().tolist() for outline in outlines if len(outline) > 2]


def outline(mask: np.ndarray, boxes: dict[str, list[Box]]) -> list[tuple[str, np.ndarray]] | None:
    """Class and mask of each object of a picture; None where masks and boxes do not agree."""
    shown = [CLASSES[value - 1] for value in np.unique(mask) if value not in (0, UNSURE)]
    if not boxes or set(shown) != set(boxes):
        return None
    objects = []
    for name, own in boxes.items():
        shares = share_pieces(mask == CLASSES.index(name) + 1, own)
        if shares is None:
            return None
        objects += [(name, share) for share in shares]
    return objects


def read_boxes(paths: list[Path]) -> dict[str, dict[str, list[Box]]]:
    """Boxes by the stem of a picture's file and class."""
    boxes: dict[str, dict[str, list[Box]]] = {}
    for path in paths:
        coco = json.loads(path.read_text())
        names = {category["id"]: category["name"] for category in coco["categories"]}
        stems = {image["id"]: Path(image["file_name"]).stem for image in coco["images"]}
        for annotation in coco["annotations"]:
            picture = boxes.setdefault(stems[annotation["image_id"]], defaultdict(list))
            picture[names[annotation["category_id"]]].append(tuple(annotation["bbox"]))
    return boxes


def add_picture(
    coco: dict[str, Any], path: Path, height: int, width: int, objects: list[tuple[str, np.ndarray]]
) -> None:
    """Adds a picture and its objects to COCO's instances."""
    ids = {category["name"]: category["id"] for category in coco["categories"]}
    image_id = FIRST_ID + len(coco["images"])
    labelled = sorted(ids[COCO_NAMES.get(name, name)] for name in CLASSES)
    image = {"id": image_id, "file_name": str(path.resolve()), "height": height, "width": width}
    coco["images"].append(image | {"labelled_categories": labelled})
    for name, mask in objects:
        coco["annotations"].append(
            {
                "id": FIRST_ID + len(coco["annotations"]),
                "image_id": image_id,
                "category_id": ids[COCO_NAMES.get(name, name)],
                "segmentation": polygons_of(mask),
                "area": int(mask.sum()),
            }
        )


def main(
    source: Annotated[
        Path, typer.Argument(help="Data folder to add to; it stays as it is.", exists=True)
    ],
    output: Annotated[Path, typer.Argument(help="The new data folder, links to the images.")],
    images: Images,
    masks: Masks,
    boxes: Boxes,
) -> None:
    known = read_boxes(boxes)
    pictures = {path.stem: path for folder in images for path in sorted(folder.glob("*.jpg"))}
    with extended(source, output) as data:
        for stem, path in tqdm(pictures.items(), unit="picture"):
            if stem not in known or not (masks / f"{stem}.png").is_file():
                continue
            if data.is_development(path):
                continue
            mask = np.asarray(Image.open(masks / f"{stem}.png"))
            with Image.open(path) as picture:
                size = picture.height, picture.width
            objects = outline(mask, known[stem]) if mask.shape == size else None
            if objects is not None:
                add_picture(data.coco, path, *size, objects)


if __name__ == "__main__":
    typer.run(main)
