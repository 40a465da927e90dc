# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""The masks of miniature benchmarks, read from their files without the package's own loaders, and
predictions made of them."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as rle

sys.path.append(str(Path(__file__).resolve().parents[1] / "scripts"))
from make_fixtures import write_fixture  # noqa: E402

Masks = dict[tuple[str, str], dict[str, np.ndarray]]  # (video, expression) -> frame -> mask

SPLIT = {"ref-youtube-vos": "valid", "ref-davis17-converted": "valid", "mevis": "valid_u"}


def make_benchmark(name: str, root: Path) -> Path:
    write_fixture(name, root)
    return root


def expression_masks(name: str, root: Path) -> Masks:
    """bool (height, width) of every expression of the split that papers report on."""
    split = SPLIT[name]
    folder = root / split if name != "ref-davis17-converted" else root / "meta_expressions" / split
    videos = json.loads((folder / "meta_expressions.json").read_text())["videos"]
    codes = {}
    if name == "mevis":
        codes = json.loads((root / split / "mask_dict.json").read_text())
    masks = {}
    for video, told in videos.items():
        for expression, said in told["expressions"].items():
            frames = masks[video, expression] = {}
            for index, frame in enumerate(told["frames"]):
                if name == "mevis":
                    found = [codes[str(key)][index] for key in said["anno_id"]]
                    found = [rle.decode(code) for code in found if code]
                    blank = np.zeros((64, 96), np.uint8)
                    frames[frame] = np.any([blank, *found], axis=0)
                else:
                    path = root / split / "Annotations" / video / f"{frame}.png"
                    frames[frame] = np.array(Image.open(path)) == int(said["obj_id"])
    return masks


def frame_masks(root: Path) -> dict[tuple[str, str], np.ndarray]:
    """uint8 (height, width) of A2D's or JHMDB's published ground truth, by our row's names."""
    (path,) = root.glob("*_annotations_in_coco_format.json")
    masks = {}
    for annotation in json.loads(path.read_text())["annotations"]:
        video, frame, instance = re.fullmatch(
            r"v_(.+)_f_(\d+)(?:_i_(\d+))?", annotation["image_id"]
        ).groups()
        key = video, frame if instance is None else f"{instance}@{frame}"
        masks[key] = rle.decode(annotation["segmentation"])
    return masks


def save_grey(path: Path, mask: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask.astype(np.uint8) * 255).save(path)


def write_masks(masks: Masks, root: Path, change: Callable = lambda mask: mask) -> None:
    for (video, expression), frames in masks.items():
        for frame, mask in frames.items():
            save_grey(root / "Annotations" / video / expression / f"{frame}.png", change(mask))


def write_davis_maps(data: Path, root: Path, change: Callable = lambda ids: ids) -> None:
    """The ground truth of the validation sequences without void, as every annotator's map."""
    davis = data / "DAVIS"
    for sequence in (davis / "ImageSets/2017/val.txt").read_text().split():
        for path in (davis / "Annotations_unsupervised/480p" / sequence).iterdir():
            ids = np.array(Image.open(path))
            for annotator in range(4):
                target = root / f"anno_{annotator}" / sequence / path.name
                target.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(change(np.where(ids == 255, 0, ids))).save(target)


def encode(mask: np.ndarray) -> dict:
    code = rle.encode(np.asfortranarray(mask, np.uint8))
    return {"size": code["size"], "counts": code["counts"].decode()}


def write_detections(root: Path, detections: dict[tuple[str, str], list[tuple]]) -> None:
    """`detections`: (video, expression) -> (score, mask) pairs."""
    root.mkdir(parents=True, exist_ok=True)
    with (root / "predictions.jsonl").open("w") as file:
        for (video, expression), queries in detections.items():
            scores, masks = zip(*queries, strict=True)
            entry = {"video_id": video, "expression_id": expression, "scores": scores}
            file.write(json.dumps(entry | {"masks": [encode(mask) for mask in masks]}) + "\n")
