# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as rle

from proxyformer_hf.data import mevis
from proxyformer_hf.data.decoding import read_masks
from proxyformer_hf.data.load import load_rvos_dataset
from proxyformer_hf.data.records import DataError

sys.path.append(str(Path(__file__).resolve().parents[1] / "scripts"))
from make_fixtures import write_fixture  # noqa: E402


@pytest.fixture
def root(tmp_path) -> Path:
    write_fixture("mevis", tmp_path / "data")
    return tmp_path / "data"


def load(root: Path, split: str) -> list[dict]:
    return list(load_rvos_dataset("mevis", root, split, cache_dir=root.parent / "cache"))


def read(root: Path, split: str, name: str) -> dict:
    return json.loads((root / split / name).read_text())


def write(root: Path, split: str, name: str, content: dict, **options) -> None:
    (root / split / name).write_text(json.dumps(content, **options))


@pytest.mark.parametrize("split", ["train", "valid_u"])
def test_rows_are_the_expressions_with_all_their_objects_and_annotations(root, split):
    videos = read(root, split, "meta_expressions.json")["videos"]
    rows = load(root, split)
    assert len(rows) == sum(len(video["expressions"]) for video in videos.values())
    assert {len(row["object_ids"]) for row in rows} == {1, 2}
    for row in rows:
        video = videos[row["video_id"]]
        told = video["expressions"][row["expression_id"]]
        assert row["expression"] == told["exp"]  # its capitals kept
        assert row["object_ids"] == told["obj_id"]
        assert row["masks"]["keys"] == [str(i) for i in told["anno_id"]]
        assert row["frames"] == [f"{name}.jpg" for name in video["frames"]]
        assert row["annotated"] == list(range(len(video["frames"])))


def test_masks_are_the_union_of_the_annotations(root):
    codes = read(root, "train", "mask_dict.json")
    assert any(code is None for frames in codes.values() for code in frames)
    for row in load(root, "train"):
        expected = np.zeros((row["num_frames"], 64, 96), bool)
        for key in row["masks"]["keys"]:
            for mask, code in zip(expected, codes[key], strict=True):
                if code is not None:
                    mask |= rle.decode(code) > 0
        masks, annotated = read_masks(root, row, range(row["num_frames"]))
        np.testing.assert_array_equal(masks, expected)
        assert annotated.all()


def test_the_validation_set_has_neither_objects_nor_masks(root):
    for row in load(root, "valid"):
        assert row["object_ids"] == row["annotated"] == row["masks"]["keys"] == []
        assert row["masks"]["format"] == "none"


@pytest.mark.parametrize("options", [{}, {"indent": 2}, {"separators": (",", ":")}])
@pytest.mark.parametrize("chunk", [70, 1000, 1 << 24])
def test_annotations_are_found_whatever_the_chunks_and_blanks(root, monkeypatch, chunk, options):
    monkeypatch.setattr(mevis, "CHUNK", chunk)
    codes = read(root, "train", "mask_dict.json")
    write(root, "train", "mask_dict.json", codes, **options)
    path = root / "train/mask_dict.json"
    spans = mevis.find_annotations(path)
    assert spans.keys() == codes.keys()
    for key, (start, stop) in spans.items():
        text = path.read_bytes()[start:stop].decode()
        value, end = json.JSONDecoder().raw_decode(text)
        assert value == codes[key]
        assert text[end:].strip(" ,\n") in ("", "}")


def test_codes_with_brackets_do_not_mislead(tmp_path):
    codes = {"7": [{"size": [9, 9], "counts": "a]b[1]\\`2"}, None], "12": [None], "3": []}
    (tmp_path / "mask_dict.json").write_text(json.dumps(codes))
    content = (tmp_path / "mask_dict.json").read_text()
    for key, (start, stop) in mevis.find_annotations(tmp_path / "mask_dict.json").items():
        assert json.JSONDecoder().raw_decode(content[start:stop])[0] == codes[key]


def test_an_empty_mask_dict_has_no_annotations(tmp_path):
    for content in ("", "{}"):
        (tmp_path / "mask_dict.json").write_text(content)
        assert mevis.find_annotations(tmp_path / "mask_dict.json") == {}


def test_a_missing_mask_dict_is_named_with_its_download(root):
    (root / "valid_u/mask_dict.json").unlink()
    with pytest.raises(DataError, match="valid_u/mask_dict.json is missing.*henghuiding/MeViS"):
        load(root, "valid_u")


def test_a_missing_annotation_is_named(root):
    codes = read(root, "train", "mask_dict.json")
    del codes["4"]
    write(root, "train", "mask_dict.json", codes)
    with pytest.raises(DataError, match="train/mask_dict.json lacks the annotations 4 of video"):
        load(root, "train")


def test_a_malformed_expression_is_named(root):
    meta = read(root, "train", "meta_expressions.json")
    video = next(iter(meta["videos"]))
    meta["videos"][video]["expressions"]["1"] = "a text alone"
    write(root, "train", "meta_expressions.json", meta)
    with pytest.raises(DataError, match=f"train/meta_expressions.json is malformed.*{video}"):
        load(root, "train")
