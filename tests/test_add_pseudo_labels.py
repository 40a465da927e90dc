# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from proxyformer_hf.data.sources import load_images, rasterize
from tests.tiny_model import perturb, save_tiny_checkpoint, tiny_model, tiny_processor
from tests.toy_data import make_data_folder

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.append(str(REPOSITORY / "scripts"))
import add_pseudo_labels as script  # noqa: E402

CAT, DOG = (script.CLASSES.index(name) + 1 for name in ("cat", "dog"))
YS, XS = np.mgrid[:90, :120]
LEFT = (abs(XS - 35) < 26) & (abs(YS - 45) < 30) & (XS < 60)
RIGHT = (abs(XS - 85) < 26) & (abs(YS - 45) < 30) & (XS >= 60)  # it touches the left one
BOXES = [script.box_of(LEFT), script.box_of(RIGHT)]


class KnowsSides(script.Teacher):
    """Knows the left one from the right one, and is asked for nothing else."""

    def __init__(self, checkpoint: Path):
        self.asked: list[str] = []

    def logits(self, pixels: np.ndarray, texts: list[str]) -> np.ndarray:
        self.asked += texts
        assert all(("left" in text) != ("right" in text) for text in texts)
        return np.stack([np.where(LEFT if "left" in text else RIGHT, 3.0, -3.0) for text in texts])


def test_pixels_in_two_boxes_go_where_the_answers_say():
    wide = [(10, 16, 62, 59), (48, 16, 63, 59)]
    answers = [np.where(LEFT, 1.0, 0.0), np.where(RIGHT, 1.0, 0.0)]
    left, right = script.share_by_answers(LEFT | RIGHT, wide, answers)
    assert (left == LEFT).all() and (right == RIGHT).all()


def test_pixels_in_one_box_are_that_object_s_whatever_the_answers_are():
    wrong = [np.where(RIGHT, 9.0, -9.0), np.where(LEFT, 9.0, -9.0)]
    left, right = script.share_by_answers(LEFT | RIGHT, BOXES, wrong)
    assert (left & ~LEFT).sum() + (right & ~RIGHT).sum() <= 2 * 4 * 60  # the boxes' common border
    assert left[:, :57].sum() == LEFT[:, :57].sum()


@pytest.mark.parametrize("boxes", [[BOXES[0], BOXES[0]], [BOXES[0], (0, 0, 120, 90)]])
def test_boxes_that_the_shares_do_not_fill_are_refused(boxes):
    answers = [np.where(LEFT, 1.0, 0.0), np.where(RIGHT, 1.0, 0.0)]
    assert script.share_by_answers(LEFT | RIGHT, boxes, answers) is None


def test_touching_objects_are_told_apart_by_their_place():
    mask, teacher = np.where(LEFT | RIGHT, DOG, 0), KnowsSides(Path())
    pixels = np.zeros((90, 120, 3), np.uint8)
    objects = script.tell_apart(pixels, mask, {"dog": BOXES}, teacher)
    assert [name for name, _ in objects] == ["dog", "dog"]
    assert (objects[0][1] == LEFT).all() and (objects[1][1] == RIGHT).all()
    assert all("dog" in text or "puppy" in text for text in teacher.asked)


def test_what_no_place_tells_apart_or_boxes_do_not_fit_is_left_out():
    mask, pixels = np.where(LEFT | RIGHT, DOG, 0), np.zeros((90, 120, 3), np.uint8)
    teacher = KnowsSides(Path())
    for boxes in ({"dog": [BOXES[0]]}, {"cat": BOXES}, {"dog": [BOXES[0]] * 2}, {}):
        assert script.tell_apart(pixels, mask, boxes, teacher) is None


@torch.no_grad()
def test_a_teacher_answers_at_the_picture_s_size(tmp_path: Path):
    save_tiny_checkpoint(tmp_path)
    teacher = script.Teacher(tmp_path)
    teacher.model = perturb(tiny_model())
    pixels = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    logits = teacher.logits(pixels, ["a dog", "a cat"])
    assert logits.shape == (2, 64, 96)
    inputs = tiny_processor()(videos=pixels[None], text=["a dog", "a cat"], return_tensors="pt")
    answers = tiny_processor().post_process_referring_segmentation(
        teacher.model(**inputs), [(64, 96)] * 2
    )
    for ours, theirs in zip(logits > 0, answers, strict=True):
        assert (ours == theirs["masks"][0].numpy()).mean() > 0.97  # they are resized otherwise


def test_the_new_folder_has_the_pictures_that_touch_and_no_others(tmp_path: Path, monkeypatch):
    source, voc = make_data_folder(tmp_path / "data"), tmp_path / "voc"
    coco = json.loads((source / "coco_small/instances.json").read_text())
    known = {category["name"] for category in coco["categories"]}
    for i, name in enumerate(script.COCO_NAMES.get(name, name) for name in script.CLASSES):
        if name not in known:
            coco["categories"].append({"id": 50 + i, "name": name})
    (source / "coco_small/instances.json").write_text(json.dumps(coco))
    for folder in ("images", "masks"):
        (voc / folder).mkdir(parents=True)
    drawn = {"touching": LEFT | RIGHT, "apart": LEFT & (XS < 50) | RIGHT}
    annotations = []
    for k, (stem, mask) in enumerate(drawn.items()):
        Image.new("RGB", (120, 90)).save(voc / f"images/{stem}.jpg")
        Image.fromarray(np.where(mask, CAT, 0).astype(np.uint8)).save(voc / f"masks/{stem}.png")
        boxes = [script.box_of(mask & side) for side in (LEFT, RIGHT)]
        annotations += [{"image_id": k, "category_id": 8, "bbox": box} for box in boxes]
    images = [{"id": k, "file_name": f"{stem}.jpg"} for k, stem in enumerate(drawn)]
    boxes = {
        "categories": [{"id": 8, "name": "cat"}],
        "images": images,
        "annotations": annotations,
    }
    (voc / "boxes.json").write_text(json.dumps(boxes, default=int))
    monkeypatch.setattr(script, "Teacher", KnowsSides)

    script.main(
        source, tmp_path / "new", [voc / "images"], voc / "masks", [voc / "boxes.json"], tmp_path
    )

    (added,) = load_images(tmp_path / "new")[len(load_images(source)) :]
    assert [instance.category for instance in added.instances] == ["cat", "cat"]
    from_left = sorted(added.instances, key=lambda instance: instance.polygons[0][:, 0].min())
    for instance, side in zip(from_left, (LEFT, RIGHT), strict=True):
        outline = rasterize(instance.polygons, 90, 120)
        assert (outline & side).sum() / (outline | side).sum() > 0.95
