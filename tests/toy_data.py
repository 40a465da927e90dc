# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""A data folder of data/sources.py in small: coloured boxes, read as dogs and cats."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

RED, BLUE = (230, 30, 30), (30, 60, 230)
BOXES = {  # image id -> (category, box x1 y1 x2 y2, colour, written expression)
    9001: (
        ("dog", (8, 30, 40, 60), RED, "the dog on the left"),
        ("dog", (60, 30, 92, 60), BLUE, None),
    ),
    9002: (("dog", (10, 10, 40, 50), RED, None), ("cat", (55, 20, 90, 60), BLUE, "the blue cat")),
    9003: (("cat", (20, 20, 70, 60), RED, None),),
}
VIDEOS = {"boat": RED, "elephant": BLUE, "bus": RED}  # names that data/sources.py knows


def box_polygon(box: tuple[int, int, int, int]) -> list[float]:
    x1, y1, x2, y2 = box
    return [x1, y1, x2, y1, x2, y2, x1, y2]


def draw(height: int, width: int, boxes, rng) -> np.ndarray:
    pixels = rng.integers(90, 130, (height, width, 1)).repeat(3, axis=2).astype(np.uint8)
    for (x1, y1, x2, y2), color in boxes:
        pixels[y1:y2, x1:x2] = color
    return pixels


def make_data_folder(root: Path) -> Path:
    rng = np.random.default_rng(0)
    images, annotations, written = [], [], []
    (root / "coco_small/images").mkdir(parents=True)
    for image_id, objects in BOXES.items():
        # The third image is portrait.
        height, width = (96, 72) if image_id == 9003 else (72, 96)
        pixels = draw(height, width, [(box, color) for _, box, color, _ in objects], rng)
        Image.fromarray(pixels).save(root / f"coco_small/images/{image_id}.png")
        images.append(
            {"id": image_id, "file_name": f"{image_id}.png", "height": height, "width": width}
        )
        for category, box, _, text in objects:
            annotation = {"id": len(annotations) + 1, "image_id": image_id, "area": area(box)}
            annotation["category_id"] = {"dog": 1, "cat": 2}[category]
            annotation["segmentation"] = [box_polygon(box)]
            annotations.append(annotation)
            if text:
                entry = {
                    "image_id": image_id,
                    "annotation_id": annotation["id"],
                    "expression": text,
                }
                written.append(entry)
    categories = [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}]
    coco = {"images": images, "annotations": annotations, "categories": categories}
    (root / "coco_small/instances.json").write_text(json.dumps(coco))
    (root / "coco_small/expressions.json").write_text(json.dumps(written))
    make_videos(root / "davis16_train_240p", rng)
    return root


def area(box: tuple[int, int, int, int]) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])


def make_videos(root: Path, rng) -> None:
    meta = {}
    for name, color in VIDEOS.items():
        frames = [f"{k:05d}" for k in range(12)]
        for kind in ("JPEGImages", "Annotations"):
            (root / kind / name).mkdir(parents=True)
        for k, frame in enumerate(frames):
            box = (10 + 3 * k, 20, 40 + 3 * k, 45)
            pixels = draw(60, 107, [(box, color)], rng)
            Image.fromarray(pixels).save(root / f"JPEGImages/{name}/{frame}.jpg", quality=95)
            mask = np.zeros((60, 107), np.uint8)
            mask[box[1] : box[3], box[0] : box[2]] = 1
            Image.fromarray(mask).save(root / f"Annotations/{name}/{frame}.png")
        texts = (
            "the {} on the left",
            "a {} over there",
            "a {} moving to the right",
            "the {}",
            "a {}",
        )
        expressions = {str(i): {"exp": text.format(name)} for i, text in enumerate(texts)}
        meta[name] = {"frames": frames, "expressions": expressions}
    (root / "meta_expressions.json").write_text(json.dumps({"videos": meta}))
