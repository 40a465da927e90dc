# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
import json
import pickle
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle

from proxyformer_hf.data.check import SplitCounts, check_data
from proxyformer_hf.data.decoding import read_frames, read_masks
from proxyformer_hf.data.load import load_rvos_dataset
from proxyformer_hf.data.records import DataError

sys.path.append(str(Path(__file__).resolve().parents[1] / "scripts"))
from make_fixtures import write_fixture  # noqa: E402

SPLITS = [
    *(("refcoco", split) for split in ("train", "val", "testA", "testB")),
    *(("refcoco+", split) for split in ("train", "val", "testA", "testB")),
    *(("refcocog", split) for split in ("train", "val", "test")),
]


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("written")
    for name in ("refcoco", "refcoco-converted"):
        write_fixture(name, folder / name)
    return folder


@pytest.fixture
def root(written, tmp_path) -> Path:
    return shutil.copytree(written / "refcoco", tmp_path / "coco")


@pytest.fixture
def converted(written, tmp_path) -> Path:
    return shutil.copytree(written / "refcoco-converted", tmp_path / "coco-converted")


def load(root: Path, split: str, name: str = "refcoco") -> list[dict]:
    return list(load_rvos_dataset(name, root, split, cache_dir=root.parent / "cache"))


def read_refs(root: Path) -> list[dict]:
    return pickle.loads((root / "refcoco/refs(unc).p").read_bytes())


def write_refs(root: Path, refs: object) -> None:
    (root / "refcoco/refs(unc).p").write_bytes(pickle.dumps(refs))


def test_rows_are_the_sentences_with_their_objects(root):
    coco = json.loads((root / "refcoco/instances.json").read_text())
    annotations = {annotation["id"]: annotation for annotation in coco["annotations"]}
    names = {category["id"]: category["name"] for category in coco["categories"]}
    rows = load(root, "train")
    refs = [ref for ref in read_refs(root) if ref["split"] == "train"]
    expected = [(ref, sentence) for ref in refs for sentence in ref["sentences"]]
    assert len(rows) == len(expected) == 12
    for row in rows:
        ref, sentence = expected[int(row["expression_id"]) - 1]
        image = f"COCO_train2014_{ref['image_id']:012d}"
        assert row["video_id"] == image and row["frames"] == [f"{image}.jpg"]
        assert row["expression"] == sentence["sent"] != sentence["raw"]
        assert row["object_ids"] == [ref["ann_id"]]
        assert row["categories"] == [names[annotations[ref["ann_id"]]["category_id"]]]
        assert (row["num_frames"], row["annotated"]) == (1, [0])
    images = [row["video_id"] for row in rows]
    assert images == sorted(images, key=images.index)  # the rows of an image come together


@pytest.mark.parametrize(("name", "split"), SPLITS)
def test_both_layouts_give_the_same_rows(root, converted, name, split):
    original, after = load(root, split, name), load(converted, split, name)
    for rows in (original, after):
        for row in rows:
            assert Path(row["masks"].pop("path")).name.startswith("instances")
    assert original == after and original


def brute_force(polygon: list[float], height: int, width: int) -> np.ndarray:
    """Pixels whose centre is inside: a ray to the right crosses an odd number of edges."""
    points = list(zip(polygon[::2], polygon[1::2], strict=True))
    mask = np.zeros((height, width), bool)
    for row in range(height):
        for column in range(width):
            x, y, inside = column + 0.5, row + 0.5, False
            for (x1, y1), (x2, y2) in zip(points, points[1:] + points[:1], strict=True):
                if (y1 > y) != (y2 > y) and x < x1 + (y - y1) * (x2 - x1) / (y2 - y1):
                    inside = not inside
            mask[row, column] = inside
    return mask


def grown(mask: np.ndarray) -> np.ndarray:
    padded = np.pad(mask, 1)
    shifts = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    return np.any([np.roll(padded, shift, (0, 1)) for shift in shifts], 0)[1:-1, 1:-1]


def test_masks_are_the_filled_polygons(root):
    coco = json.loads((root / "refcoco/instances.json").read_text())
    annotations = {annotation["id"]: annotation for annotation in coco["annotations"]}
    filled = 0
    for row in load(root, "train"):
        annotation = annotations[row["object_ids"][0]]
        mask, annotated = read_masks(root, row, [0])
        frames = read_frames(root, row, [0])
        assert mask.shape == (1, *frames.shape[2:]) and annotated.tolist() == [True]
        if isinstance(annotation["segmentation"], list):
            (polygon,) = annotation["segmentation"]
            expected = brute_force(polygon, *frames.shape[2:])
            found, filled = mask[0].numpy().astype(bool), filled + 1
            # COCO's rounding may move the edge by a pixel.
            assert (found <= grown(expected)).all() and (expected <= grown(found)).all()
            assert abs(int(found.sum()) - int(expected.sum())) < 0.1 * expected.sum()
    assert filled == 10


def test_run_length_codes_start_with_the_background_and_run_down_the_columns(root):
    coco = json.loads((root / "refcoco/instances.json").read_text())
    (annotation,) = [a for a in coco["annotations"] if isinstance(a["segmentation"], dict)]
    counts, (height, width) = annotation["segmentation"].values()
    values = np.concatenate([np.full(count, k % 2) for k, count in enumerate(counts)])
    expected = values.reshape(width, height).T
    row = next(row for row in load(root, "train") if row["object_ids"] == [annotation["id"]])
    masks, _ = read_masks(root, row, [0, 0])
    assert masks.any()
    for mask in masks:
        np.testing.assert_array_equal(mask, expected)
    code = rle.encode(np.asfortranarray(expected, np.uint8))
    code = {"size": code["size"], "counts": code["counts"].decode()}
    told = json.dumps({"size": [height, width], "segmentation": code})
    compressed = row | {"masks": row["masks"] | {"keys": [told]}}
    np.testing.assert_array_equal(read_masks(root, compressed, [0])[0][0], expected)


def test_several_polygons_are_one_object(root):
    path = root / "refcoco/instances.json"
    coco = json.loads(path.read_text())
    two = [[2.0, 2.0, 12.0, 2.0, 12.0, 8.0, 2.0, 8.0], [30.0, 20.0, 50.0, 20.0, 50.0, 40.0]]
    for annotation in coco["annotations"]:
        annotation["segmentation"] = two
    path.write_text(json.dumps(coco))
    row = load(root, "val")[0]
    mask = read_masks(root, row, [0])[0][0].numpy()
    expected = brute_force(two[0], *mask.shape) | brute_force(two[1], *mask.shape)
    assert mask[5, 7] and mask[25, 45] and not mask[30, 10]
    assert (mask <= grown(expected)).all() and (expected <= grown(mask)).all()


def test_images_of_the_validation_set_are_sought_in_their_folder(root):
    path = root / "refcoco/instances.json"
    path.write_text(path.read_text().replace("COCO_train2014_", "COCO_val2014_"))
    (root / "val2014").mkdir()
    for image in (root / "train2014").iterdir():
        image.rename(root / "val2014" / image.name.replace("train", "val"))
    row = load(root, "val")[0]
    assert row["media"] == "val2014"
    assert read_frames(root, row, [0]).shape[0] == 1


def python_2_pickle(value: object) -> bytes:
    """The opcodes of protocol 0 as Python 2 writes them, where text is bytes."""
    if isinstance(value, dict):
        items = [python_2_pickle(k) + python_2_pickle(v) + b"s" for k, v in value.items()]
        return b"(d" + b"".join(items)
    if isinstance(value, list):
        return b"(l" + b"".join(python_2_pickle(item) + b"a" for item in value)
    if isinstance(value, str):
        return b"S" + repr(value.encode()).encode()[1:] + b"\n"
    return b"I%d\n" % value


def test_pickles_of_python_2_are_read(root):
    rows, refs = load(root, "train"), read_refs(root)
    refs[0]["sentences"][0]["raw"] = "Café"
    content = python_2_pickle(refs) + b"."
    assert b"Caf\\xc3" in content
    (root / "refcoco/refs(unc).p").write_bytes(content)
    assert load(root, "train") == rows


class Harmful:
    def __reduce__(self):
        return (Path.touch, (Path("harmed"),))


def test_a_pickle_of_anything_but_plain_values_is_refused(root, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    write_refs(root, [Harmful()])
    with pytest.raises(DataError, match=r"refs\(unc\).p cannot be read .*holds a pathlib"):
        load(root, "train")
    assert not (tmp_path / "harmed").exists()


def test_files_that_are_missing_or_at_odds_are_named(root):
    refs = read_refs(root)
    write_refs(root, [ref | {"ann_id": 7} for ref in refs])
    with pytest.raises(DataError, match=r"refs\(unc\).p cannot be read \(KeyError: 7\)"):
        load(root, "train")
    write_refs(root, {"no": "list"})
    with pytest.raises(DataError, match=r"refs\(unc\).p cannot be read .*expected a pickled list"):
        load(root, "train")
    (root / "refcoco/refs(unc).p").unlink()
    with pytest.raises(DataError, match="is missing: .*instances_refcoco_train.json.*lichengunc"):
        load(root, "train")


def test_an_annotation_without_outline_is_named(converted):
    path = converted / "refcoco/instances_refcoco_train.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["segmentation"] = [[1.0, 2.0]]
    path.write_text(json.dumps(content))
    row = next(row for row in load(converted, "train") if row["expression_id"] == "1")
    with pytest.raises(DataError, match="instances_refcoco_train.json cannot be read.*polygons"):
        read_masks(converted, row, [0])


@pytest.mark.parametrize("layout", ["root", "converted"])
def test_a_complete_data_set_has_no_problems(request, layout):
    report = check_data("refcocog", request.getfixturevalue(layout))
    assert report.problems == []
    assert report.counts == [
        SplitCounts("train", 3, 12, 6, 3),
        SplitCounts("val", 1, 4, 2, 1),
        SplitCounts("test", 2, 6, 3, 2),
    ]


def test_missing_and_other_images_are_found(root):
    first, second, *_ = sorted({row["frames"][0] for row in load(root, "train")})
    (root / "train2014" / first).unlink()
    Image.new("RGB", (50, 40)).save(root / "train2014" / second)
    problems = check_data("refcoco", root, ["train"]).problems
    assert f"train: {root / 'train2014' / first} is missing" in problems
    sizes = [problem for problem in problems if "the frames [(40, 50)]" in problem]
    assert len(sizes) == 4 and len(problems) == 5
