# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""A data folder of data/sources.py, and those of VOC's pictures that scripts/add_voc_images.py has
to leave out because objects of a class touch: a checkpoint tells them apart.

    python scripts/add_pseudo_labels.py runs/data runs/more-data --images JPEGImages \
        --masks SegmentationClassAug --boxes pascal_train2012.json --boxes pascal_val2012.json

The checkpoint is asked for each object by its place among those of its class ("the second dog from
the left"), which its box tells. A pixel of the class's mask becomes part of the object whose answer
has the highest logit there, among those whose boxes hold the pixel. So the class's mask and the
boxes stay true; the border between objects that touch is the checkpoint's. It needs
`pip install scikit-image`.
"""

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
import typer
from add_voc_images import (
    AGREEMENT,
    CLASSES,
    COCO_NAMES,
    INSIDE,
    UNSURE,
    Boxes,
    Images,
    Masks,
    add_picture,
    box_of,
    outline,
    read_boxes,
    share_pieces,
)
from data_folder import Box, box_iou, extended
from PIL import Image
from tqdm import tqdm

from proxyformer_hf.data.expressions import Seen, facts, phrase
from proxyformer_hf.modeling_proxyformer import ProxyFormerForReferringSegmentation
from proxyformer_hf.pipeline_referring_video_segmentation import DEFAULT_CHECKPOINT
from proxyformer_hf.processing_proxyformer import ProxyFormerProcessor

MAX_EXPRESSIONS = 3  # of an object

Labels = list[tuple[str, np.ndarray]]


class Teacher:
    """A checkpoint that is asked for mask logits."""

    def __init__(self, checkpoint: Path):
        self.model = ProxyFormerForReferringSegmentation.from_pretrained(checkpoint).eval()
        self.model.config.single_region = False  # it keeps one region's logits alone
        self.processor = ProxyFormerProcessor.from_pretrained(checkpoint)

    @torch.no_grad()
    def logits(self, pixels: np.ndarray, texts: list[str]) -> np.ndarray:
        """Mask logits (len(texts), height, width) of a picture uint8 (height, width, 3)."""
        inputs = self.processor(videos=pixels[None], text=texts, return_tensors="pt")
        masks = F.interpolate(self.model(**inputs).referred_masks, scale_factor=4, mode="bilinear")
        rows, columns = (int(inputs["pixel_mask"][0].any(axis).sum()) for axis in (1, 0))
        real = masks[..., :rows, :columns]
        return F.interpolate(real, pixels.shape[:2], mode="bilinear")[:, 0].numpy()


def inside(box: Box, shape: tuple[int, int]) -> np.ndarray:
    """The pixels of a box, bool (height, width)."""
    x, y, width, height = box
    mask = np.zeros(shape, bool)
    mask[max(int(y) - 1, 0) : int(y + height) + 2, max(int(x) - 1, 0) : int(x + width) + 2] = True
    return mask


def share_by_answers(
    mask: np.ndarray, boxes: list[Box], answers: list[np.ndarray]
) -> list[np.ndarray] | None:
    """The mask of each box of a class, from the class's mask, bool (height, width), and from the
    logits (height, width) that answer to each box's object; None where they do not agree."""
    held = np.stack([inside(box, mask.shape) for box in boxes])
    if (held.any(0) & mask).sum() < INSIDE * mask.sum():
        return None
    owner = np.where(held, np.stack(answers), -np.inf).argmax(0)
    shares = [mask & held[i] & (owner == i) for i in range(len(boxes))]
    agree = all(
        share.any() and box_iou(box, box_of(share)) >= AGREEMENT
        for box, share in zip(boxes, shares, strict=True)
    )
    return shares if agree else None


def tell_apart(
    pixels: np.ndarray, mask: np.ndarray, boxes: dict[str, list[Box]], teacher: Teacher
) -> Labels | None:
    """Class and mask of each object of a picture; None where one cannot be described by its place,
    or where masks, boxes and answers do not agree."""
    shown = [CLASSES[value - 1] for value in np.unique(mask) if value not in (0, UNSURE)]
    if not boxes or set(shown) != set(boxes):
        return None
    of_class = {name: mask == CLASSES.index(name) + 1 for name in boxes}
    owners = [(name, box) for name, own in boxes.items() for box in own]
    scene = [
        Seen.from_mask(COCO_NAMES.get(name, name), of_class[name] & inside(box, mask.shape), {})
        for name, box in owners
    ]
    if None in scene:
        return None
    objects: Labels = []
    for name, own in boxes.items():
        shares = share_pieces(of_class[name], own)
        if shares is None:
            answers = []
            for index in (i for i, (other, _) in enumerate(owners) if other == name):
                rng = np.random.default_rng(index)
                found = sorted(facts(scene, index))
                if len(own) == 1 or not found:
                    return None
                texts = [phrase(fact, scene[index], rng) for fact in found[:MAX_EXPRESSIONS]]
                answers.append(teacher.logits(pixels, texts).mean(0))
            shares = share_by_answers(of_class[name], own, answers)
        if shares is None:
            return None
        objects += [(name, share) for share in shares]
    return objects


def main(
    source: Annotated[
        Path, typer.Argument(help="Data folder to add to; it stays as it is.", exists=True)
    ],
    output: Annotated[Path, typer.Argument(help="The new data folder, links to the images.")],
    images: Images,
    masks: Masks,
    boxes: Boxes,
    checkpoint: Annotated[
        Path, typer.Option(help="Folder of the checkpoint that is asked.", exists=True)
    ] = DEFAULT_CHECKPOINT,
) -> None:
    teacher, known = Teacher(checkpoint), read_boxes(boxes)
    pictures = {path.stem: path for folder in images for path in sorted(folder.glob("*.jpg"))}
    with extended(source, output) as data:
        for stem, path in tqdm(pictures.items(), unit="picture"):
            if stem not in known or not (masks / f"{stem}.png").is_file():
                continue
            mask = np.asarray(Image.open(masks / f"{stem}.png"))
            with Image.open(path) as picture:
                pixels = np.asarray(picture.convert("RGB"))
            if mask.shape != pixels.shape[:2] or data.is_development(path):
                continue
            if outline(mask, known[stem]) is None:  # else add_voc_images.py has taken it
                objects = tell_apart(pixels, mask, known[stem], teacher)
                if objects is not None:
                    add_picture(data.coco, path, *mask.shape, objects)


if __name__ == "__main__":
    typer.run(main)
