# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image

from proxyformer_hf.data.sources import load_images, load_videos, rasterize
from tests.toy_data import make_data_folder

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.append(str(REPOSITORY / "scripts"))
import add_voc_images as script  # noqa: E402

CAT, DOG, SOFA = (script.CLASSES.index(name) + 1 for name in ("cat", "dog", "sofa"))


def disc(x: float, y: float, radius: float, height: int = 90, width: int = 120) -> np.ndarray:
    ys, xs = np.mgrid[:height, :width]
    return (xs - x) ** 2 + (ys - y) ** 2 <= radius**2


def masks_of(coco_polygons: list[list[float]], height: int = 90, width: int = 120) -> np.ndarray:
    return rasterize([np.reshape(p, (-1, 2)) for p in coco_polygons], height, width)


@pytest.mark.parametrize("x", [60, 3])  # inside, and cut by the border
def test_outlines_are_those_of_the_mask(x: int):
    mask = disc(x, 40, 25) | disc(100, 70, 8)
    drawn = masks_of(script.polygons_of(mask))
    assert (drawn & mask).sum() / (drawn | mask).sum() > 0.97


def test_pieces_go_to_the_box_that_holds_them():
    left, right, far = disc(25, 40, 15), disc(80, 40, 25), disc(80, 75, 5)
    boxes = [script.box_of(left), script.box_of(right | far)]
    shares = script.share_pieces(left | right | far, boxes)
    assert (shares[0] == left).all() and (shares[1] == right | far).all()


def test_pieces_in_two_boxes_go_to_the_smaller_one():
    inner, outer = disc(60, 45, 5), disc(60, 45, 40) & ~disc(60, 45, 10)
    shares = script.share_pieces(inner | outer, [script.box_of(outer), script.box_of(inner)])
    assert (shares[0] == outer).all() and (shares[1] == inner).all()


@pytest.mark.parametrize(
    "boxes", [[(10, 10, 30, 40), (40, 10, 30, 40)], [(10, 10, 60, 70)], [(80, 50, 20, 20)]]
)
def test_what_touches_or_disagrees_is_refused(boxes: list[script.Box]):
    mask = np.zeros((90, 120), bool)
    mask[10:50, 10:70] = True  # one piece of 60x40
    assert script.share_pieces(mask, boxes) is None


def test_a_class_without_a_box_or_a_mask_is_refused():
    mask = np.where(disc(40, 40, 20), CAT, 0)
    box = script.box_of(mask > 0)
    assert [name for name, _ in script.outline(mask, {"cat": [box]})] == ["cat"]
    assert script.outline(mask, {"dog": [box]}) is None
    assert script.outline(mask, {"cat": [box], "dog": [box]}) is None
    assert script.outline(mask, {}) is None


def test_the_new_folder_holds_the_old_images_and_the_outlined_ones(tmp_path: Path):
    source, voc = make_data_folder(tmp_path / "data"), tmp_path / "voc"
    coco = json.loads((source / "coco_small/instances.json").read_text())
    for i, name in enumerate([script.COCO_NAMES.get(name, name) for name in script.CLASSES]):
        if name not in ("cat", "dog"):
            coco["categories"].append({"id": 10 + i, "name": name})
    (source / "coco_small/instances.json").write_text(json.dumps(coco))

    drawn = {  # "b": of another size than its mask; "c": without a box; "d": without a mask
        "a": np.where(disc(30, 40, 20), DOG, 0) + np.where(disc(90, 40, 25), SOFA, 0),
        "b": np.where(disc(30, 40, 20), CAT, 0)[:50],
        "c": np.where(disc(30, 40, 20), CAT, 0),
    }
    drawn["a"][0, :20] = script.UNSURE
    for folder in ("images", "masks"):
        (voc / folder).mkdir(parents=True)
    for stem in "abcd":
        Image.new("RGB", (120, 90)).save(voc / f"images/{stem}.jpg")
    for stem, values in drawn.items():
        Image.fromarray(values.astype(np.uint8)).save(voc / f"masks/{stem}.png")
    annotations = [
        {"image_id": 1, "category_id": 7, "bbox": script.box_of(drawn["a"] == DOG)},
        {"image_id": 1, "category_id": 8, "bbox": script.box_of(drawn["a"] == SOFA)},
        {"image_id": 2, "category_id": 7, "bbox": (10, 20, 41, 41)},
        {"image_id": 4, "category_id": 7, "bbox": (10, 20, 41, 41)},
    ]
    boxes = {
        "categories": [{"id": 7, "name": "dog"}, {"id": 8, "name": "sofa"}],
        "images": [{"id": k + 1, "file_name": f"{stem}.jpg"} for k, stem in enumerate("abcd")],
        "annotations": annotations,
    }
    (voc / "boxes.json").write_text(json.dumps(boxes, default=int))

    script.main(source, tmp_path / "new", [voc / "images"], voc / "masks", [voc / "boxes.json"])

    before, after = load_images(source), load_images(tmp_path / "new")
    assert [image.image_id for image in after[:-1]] == [image.image_id for image in before]
    assert [len(image.instances) for image in after[:-1]] == [len(i.instances) for i in before]
    assert len(load_videos(tmp_path / "new")) == len(load_videos(source))
    new = after[-1]
    assert new.pixels.shape == (90, 120, 3) and not new.unlabelled & {"dog", "couch", "cat"}
    for instance in new.instances:
        expected = drawn["a"] == {"dog": DOG, "couch": SOFA}[instance.category]
        outline = rasterize(instance.polygons, 90, 120)
        assert (outline & expected).sum() / (outline | expected).sum() > 0.95
        assert instance.area == pytest.approx(expected.mean())
    assert sorted(instance.category for instance in new.instances) == ["couch", "dog"]


def test_a_folder_that_is_there_is_left_alone(tmp_path: Path):
    with pytest.raises(typer.BadParameter, match="exists: remove it first"):
        script.main(tmp_path, tmp_path, [tmp_path], tmp_path, [])
