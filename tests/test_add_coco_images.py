# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image, ImageDraw, ImageOps

from proxyformer_hf.data.sources import load_images, rasterize
from tests.toy_data import box_polygon, make_data_folder

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.append(str(REPOSITORY / "scripts"))
import add_coco_images as script  # noqa: E402
import data_folder  # noqa: E402

SHARED_DATA = REPOSITORY.parent / "shared/data"

DOG_BOX, TIGER_BOX = (10, 10, 50, 40), (60, 20, 90, 70)


def make_more(folder: Path) -> Path:
    """Images "a" (a dog, a tiger and a crowd of cats) and "gone" (not there); one that is known."""
    folder.mkdir()
    for name in ("a.jpg", "9001.png"):
        Image.new("RGB", (100, 80)).save(folder / name)
    size = {"height": 80, "width": 100}
    names = ("a.jpg", "gone.jpg", "9001.png")
    more = {
        "categories": [
            {"id": 5, "name": "dog"},
            {"id": 1, "name": "tiger"},
            {"id": 2, "name": "cat"},
        ],
        "images": [{"id": k, "file_name": name, **size} for k, name in enumerate(names)],
        "annotations": [
            {"image_id": 0, "category_id": 5, "segmentation": [box_polygon(DOG_BOX)]},
            {"image_id": 0, "category_id": 1, "segmentation": [box_polygon(TIGER_BOX)]},
            {"image_id": 0, "category_id": 2, "segmentation": {"counts": [1]}, "iscrowd": 1},
            {"image_id": 1, "category_id": 5, "segmentation": [box_polygon(DOG_BOX)]},
        ],
    }
    file = folder / "instances.json"
    file.write_text(json.dumps(more))
    return file


def test_area_is_that_of_the_drawn_polygon():
    polygon = [10, 10, 70, 15, 60, 50, 20, 60]
    drawn = Image.new("1", (1000, 1000))
    ImageDraw.Draw(drawn).polygon([10 * x for x in polygon], fill=1)
    assert script.polygon_area(polygon) == pytest.approx(np.asarray(drawn).sum() / 100, rel=0.01)


def test_the_new_folder_holds_the_old_images_and_those_with_outlines(tmp_path: Path):
    source, file = make_data_folder(tmp_path / "data"), make_more(tmp_path / "more")
    script.main(source, tmp_path / "new", [file.parent], [file])

    before, after = load_images(source), load_images(tmp_path / "new")
    assert [image.image_id for image in after[:-1]] == [image.image_id for image in before]
    new = after[-1]
    assert new.path.resolve() == file.parent / "a.jpg" and new.pixels.shape == (80, 100, 3)
    assert new.unlabelled == {"cat"}  # of which there is a crowd
    assert all(image.unlabelled == {"tiger"} for image in after[:-1])  # nobody looked for one there
    assert [instance.category for instance in new.instances] == ["tiger", "dog"]
    for instance, (x1, y1, x2, y2) in zip(new.instances, (TIGER_BOX, DOG_BOX), strict=True):
        assert rasterize(instance.polygons, 80, 100)[y1:y2, x1:x2].all()
        assert instance.area == pytest.approx((x2 - x1) * (y2 - y1) / 8000)


def test_a_folder_can_be_added_to_again(tmp_path: Path):
    source, file = make_data_folder(tmp_path / "data"), make_more(tmp_path / "more")
    script.main(source, tmp_path / "once", [file.parent], [file])
    script.main(tmp_path / "once", tmp_path / "twice", [file.parent], [file])
    once, twice = load_images(tmp_path / "once"), load_images(tmp_path / "twice")
    assert [image.path.resolve() for image in once] == [image.path.resolve() for image in twice]


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_copy_of_a_development_image_is_left_out(tmp_path: Path, monkeypatch, mirrored: bool):
    monkeypatch.setattr(data_folder, "DEV_IMAGES", {9002})
    source, file = make_data_folder(tmp_path / "data"), make_more(tmp_path / "more")
    for copied, name in ((9002, "gone.jpg"), (9003, "a.jpg")):
        with Image.open(source / f"coco_small/images/{copied}.png") as picture:
            copy = ImageOps.mirror(picture) if mirrored else picture
            copy.resize((160, 120)).save(file.parent / name, quality=60)
    script.main(source, tmp_path / "new", [file.parent], [file])
    *_, new = load_images(tmp_path / "new")
    assert new.path.resolve().name == "a.jpg"  # of a training image


@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="needs the data beside the project")
def test_no_training_image_is_taken_for_a_development_image():
    images, development = load_images(SHARED_DATA), load_images(SHARED_DATA, dev=True)
    thumbnails = np.stack([data_folder.thumbnail(image.path) for image in development])
    data = data_folder.DataFolder({}, [], {}, thumbnails)
    assert all(data.is_development(image.path) for image in development)
    assert not any(data.is_development(image.path) for image in images)


@pytest.mark.parametrize("text", ["[]", "{", '{"images": [], "annotations": []}'])
def test_what_is_not_coco_is_named_and_nothing_is_written(tmp_path: Path, text: str):
    source, file = make_data_folder(tmp_path / "data"), tmp_path / "broken.json"
    file.write_text(text)
    with pytest.raises(typer.BadParameter, match="broken.json is not COCO's instances"):
        script.main(source, tmp_path / "new", [tmp_path], [file])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken.json", "data"]


def test_every_folder_needs_its_instances(tmp_path: Path):
    with pytest.raises(typer.BadParameter, match="2 --images and 1 --instances"):
        script.main(tmp_path, tmp_path / "new", [tmp_path, tmp_path], [tmp_path])
