# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from proxyformer_hf.data import sources
from proxyformer_hf.data.sources import (
    DEV_IMAGES,
    DEV_IMAGES_WRITTEN,
    DEV_VIDEOS,
    VIDEO_CONTENT,
    Instance,
    load_images,
    load_videos,
    rasterize,
    without_duplicates,
)
from tests.toy_data import BOXES, VIDEOS, box_polygon, make_data_folder

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.exists(), reason="needs the training data")
SAME_SCENE = ((318219, 554625), (547503, 475546))


def instance(i, box, category="dog", written=()) -> Instance:
    area = (box[2] - box[0]) * (box[3] - box[1]) / 10000
    return Instance(i, category, [np.reshape(box_polygon(box), (-1, 2))], area, list(written))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_data_folder(tmp_path_factory.mktemp("data"))


def test_rectangle_covers_its_pixels():
    mask = rasterize([np.array([[2.0, 1.0], [6.0, 1.0], [6.0, 4.0], [2.0, 4.0]])], 6, 8)
    expected = np.zeros((6, 8), bool)
    expected[1:4, 2:6] = True
    assert (mask == expected).all()


def test_polygons_agree_with_winding_of_pixel_centres():
    rng = np.random.default_rng(0)
    ys, xs = np.mgrid[:80, :100] + 0.5
    for _ in range(10):
        angles = np.sort(rng.uniform(0, 2 * np.pi, 9))
        radius = rng.uniform(15, 35, 9)
        polygon = np.stack([50 + radius * np.cos(angles), 40 + radius * np.sin(angles)], 1)
        inside = np.zeros((80, 100), bool)
        for (x1, y1), (x2, y2) in zip(polygon, np.roll(polygon, -1, 0), strict=True):
            crosses = (y1 > ys) != (y2 > ys)
            inside ^= crosses & (xs < (x2 - x1) * (ys - y1) / (y2 - y1 + 1e-12) + x1)
        assert (rasterize([polygon], 80, 100) == inside).all()
        # The same polygon moved beyond the borders is cut, not wrapped.
        assert (rasterize([polygon - (40, 30)], 30, 35) == inside[30:60, 40:75]).all()


def test_union_of_polygons():
    left, right = (np.reshape(box_polygon((x, 2, x + 4, 8)), (-1, 2)) for x in (1, 12))
    both = rasterize([left, right], 10, 20)
    assert (both == (rasterize([left], 10, 20) | rasterize([right], 10, 20))).all()


def test_duplicates_go_and_written_ones_stay():
    large, same = instance(1, (0, 0, 80, 80)), instance(2, (4, 0, 80, 80), written=["it"])
    cat, apart = instance(3, (0, 0, 80, 80), "cat"), instance(4, (0, 0, 60, 60))
    kept = without_duplicates([large, same, cat, apart], 100, 100)
    assert {i.annotation_id for i in kept} == {2, 3, 4}  # the last overlaps by 0.56


def test_images_of_a_folder(folder):
    images = load_images(folder)
    assert [image.image_id for image in images] == list(BOXES)
    assert images[0].pixels.shape == (72, 96, 3) and images[2].pixels.shape == (96, 72, 3)
    left, right = sorted(images[0].instances, key=lambda i: i.annotation_id)
    assert (left.category, left.written, right.written) == ("dog", ["the dog on the left"], [])
    assert left.area == 32 * 30 / (72 * 96)
    assert list(images[0].look_alikes()) == ["dog"] and not images[1].look_alikes()


def test_categories_that_were_not_looked_for_are_told(tmp_path):
    folder = make_data_folder(tmp_path)
    path = folder / "coco_small/instances.json"
    coco = json.loads(path.read_text())
    coco["images"][1]["labelled_categories"] = [2]
    path.write_text(json.dumps(coco))
    assert [set(image.unlabelled) for image in load_images(folder)] == [set(), {"dog"}, set()]


def test_development_images_and_videos_are_kept_out(folder, monkeypatch):
    monkeypatch.setattr(sources, "DEV_IMAGES", {9002})
    assert [image.image_id for image in load_images(folder)] == [9001, 9003]
    assert [image.image_id for image in load_images(folder, dev=True)] == [9002]
    assert {video.name for video in load_videos(folder)} == set(VIDEOS) - {"bus"}


def test_video_frames_and_masks(folder):
    (video,) = load_videos(folder, ["boat"])
    pixels, mask = video.frame(2)
    assert len(video) == 12 and pixels.shape == (60, 107, 3)
    expected = np.zeros((60, 107), bool)
    expected[20:45, 16:46] = True
    assert (mask == expected).all()
    assert pixels[mask].mean(0) == pytest.approx((230, 30, 30), abs=8)
    assert video.expressions[0] == "the boat on the left"
    assert video.frame(2)[0] is pixels


@needs_data
def test_split_keeps_enough_look_alikes_and_no_scene_on_both_sides():
    dev, training = load_images(DATA, dev=True), load_images(DATA)
    assert len(dev) == 60 and len(dev) + len(training) == 571
    assert all(image.look_alikes() for image in dev)
    written = [any(i.written for i in image.instances) for image in dev]
    assert sum(written) == len(DEV_IMAGES_WRITTEN) == 35
    assert sum(any(i.written for i in image.instances) for image in training) == 109 - 35
    for image in dev:
        if image.image_id in DEV_IMAGES_WRITTEN:
            told = Counter(i.category for i in image.instances if i.written)
            assert max(told.values()) > 1
    assert all((a in DEV_IMAGES) == (b in DEV_IMAGES) for a, b in SAME_SCENE)


def test_other_videos_say_what_they_show(tmp_path: Path):
    root = make_data_folder(tmp_path)
    file = root / "davis16_train_240p/meta_expressions.json"
    meta = json.loads(file.read_text())
    video = meta["videos"]["my-pony"] = meta["videos"].pop("boat")
    file.write_text(json.dumps(meta))
    with pytest.raises(ValueError, match='what my-pony shows is not known: .* "content"'):
        load_videos(root)
    assert [video.name for video in load_videos(root, ["elephant"])] == ["elephant"]

    video["content"] = [["horse"], ["person", "dog"]]
    file.write_text(json.dumps(meta))
    (pony,) = load_videos(root, ["my-pony"])
    assert pony.targets == {"horse"} and pony.shown == {"horse", "person", "dog"}


@needs_data
def test_every_video_has_its_content_and_six_are_for_development():
    training = load_videos(DATA)
    assert len(training) == 24 and len(set(DEV_VIDEOS)) == 6
    assert {video.name for video in training} | set(DEV_VIDEOS) == set(VIDEO_CONTENT)
