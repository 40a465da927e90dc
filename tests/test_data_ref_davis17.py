# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from proxyformer_hf.data.decoding import read_object_map
from proxyformer_hf.data.load import load_rvos_dataset
from proxyformer_hf.data.records import DataError

sys.path.append(str(Path(__file__).resolve().parents[1] / "scripts"))
from make_fixtures import write_fixture  # noqa: E402

FILES = ("annot1", "annot1_full_video", "annot2", "annot2_full_video")


@pytest.fixture
def original(tmp_path) -> Path:
    write_fixture("ref-davis17", tmp_path / "original")
    return tmp_path / "original"


@pytest.fixture
def converted(tmp_path) -> Path:
    write_fixture("ref-davis17-converted", tmp_path / "converted")
    return tmp_path / "converted"


def load(root: Path, split: str = "valid") -> list[dict]:
    return list(load_rvos_dataset("ref-davis17", root, split, cache_dir=root.parent / "cache"))


def text_file(root: Path, number: int) -> Path:
    return root / f"davis_text_annotations/Davis17_{FILES[number]}.txt"


def semantics(root: Path) -> dict[str, dict[str, str]]:
    return json.loads((root / "DAVIS/davis_semantics.json").read_text())


def without_places(rows: list[dict]) -> list[dict]:
    return [row | {"media": None, "masks": row["masks"] | {"path": None}} for row in rows]


@pytest.mark.parametrize("split", ["train", "valid"])
def test_both_layouts_give_the_same_rows(original, converted, split):
    first, second = load(original, split), load(converted, split)
    assert len(first) > 0
    assert without_places(first) == without_places(second)
    for one, other in zip(first, second, strict=True):
        video = one["video_id"]
        assert one["media"] == f"DAVIS/JPEGImages/480p/{video}"
        assert one["masks"]["path"] == f"DAVIS/Annotations_unsupervised/480p/{video}"
        assert other["media"] == f"{split}/JPEGImages/{video}"
        assert other["masks"]["path"] == f"{split}/Annotations/{video}"
        indices = range(one["num_frames"])
        np.testing.assert_array_equal(
            read_object_map(original, one, indices), read_object_map(converted, other, indices)
        )


def test_expression_4k_a_is_the_kth_of_set_a_sorted_by_object(original):
    rows = {(row["video_id"], row["expression_id"]): row for row in load(original)}
    count = 0
    for a in range(4):
        encoding = "utf-8" if a < 2 else "latin-1"
        lines = re.findall(
            r'^(\S+) (\d+) "(.*)"$', text_file(original, a).read_text(encoding), re.M
        )
        for sequence in ("bike-packing", "blackswan", "dogs-jump"):
            texts = sorted((i, text) for name, i, text in lines if name == sequence)
            for k, (object_id, text) in enumerate(texts):
                row = rows[sequence, str(4 * k + a)]
                assert (row["expression"], row["object_ids"]) == (text, [int(object_id)])
                count += 1
    assert count == len(rows) > 0


def test_files_of_the_second_annotator_are_latin_1(original):
    texts = [row["expression"] for row in load(original) if int(row["expression_id"]) % 4 >= 2]
    assert any("it´s" in text for text in texts)


def test_a_latin_1_control_character_does_not_end_a_line(original):
    path = text_file(original, 2)
    content = path.read_bytes().replace(b"it\xb4s", b"it\x85s", 1)
    path.write_bytes(content)
    rows = load(original, "train")
    assert any(
        row["expression"].startswith("it s") for row in rows
    )  # a blank, as str.split takes it


def test_misspelt_sequences_get_their_names(original):
    assert "clasic-car" in text_file(original, 0).read_text()
    assert {row["video_id"] for row in load(original, "train")} == {
        "classic-car",
        "dogs-scale",
        "motorbike",
    }


def test_objects_are_sorted_as_text_and_the_longer_sets_cut(original):
    for a in range(4):
        lines = [f'blackswan {i} "object {i} of set {a}"\n' for i in (2, 10, 1)]
        if a == 3:
            lines.pop(0)
        others = [
            line
            for line in text_file(original, a).read_text("latin-1").splitlines(True)
            if not line.startswith("blackswan")
        ]
        text_file(original, a).write_text("".join(others + lines), "latin-1")
    rows = [row for row in load(original) if row["video_id"] == "blackswan"]
    assert [row["expression"] for row in rows] == [
        f"object {i} of set {a}" for i in (1, 10) for a in range(4)
    ]
    assert [row["categories"] for row in rows] == [[semantics(original)["blackswan"]["1"]]] * 4 + (
        [[]] * 4
    )


def test_blanks_within_a_text_become_one(original):
    path = text_file(original, 0)
    rows = load(original)
    path.write_text(path.read_text().replace(" ", " \t "))
    assert load(original) == rows


def test_objects_without_text_have_no_row_but_stay_in_the_map(original):
    rows = [row for row in load(original) if row["video_id"] == "dogs-jump"]
    assert {row["object_ids"][0] for row in rows} == {1, 2}
    assert read_object_map(original, rows[0], [0]).unique().tolist() == [0, 1, 3]


def test_categories_are_the_semantics(original):
    for row in load(original):
        (object_id,) = row["object_ids"]
        assert row["categories"] == [semantics(original)[row["video_id"]][str(object_id)]]


def test_semantics_may_be_absent(original):
    (original / "DAVIS/davis_semantics.json").unlink()
    assert all(row["categories"] == [] for row in load(original))


def test_every_frame_is_annotated(original):
    for row in load(original):
        assert row["annotated"] == list(range(row["num_frames"]))
        assert row["frames"] == [f"{index:05d}.jpg" for index in range(row["num_frames"])]


def test_converted_folder_is_read_with_and_without_davis_unzipped_again(original, converted):
    rows = load(converted)
    for name in ("DAVIS", "davis_text_annotations"):
        shutil.copytree(original / name, converted / name)
    assert load(converted) == rows
    shutil.rmtree(converted / "valid/Annotations")
    for row in load(converted):
        assert row["masks"]["path"] == f"DAVIS/Annotations_unsupervised/480p/{row['video_id']}"


def test_an_unknown_layout_names_the_files_of_both(tmp_path):
    with pytest.raises(DataError) as error:
        load(tmp_path)
    assert str(tmp_path / "DAVIS/ImageSets/2017/val.txt") in str(error.value)
    assert str(tmp_path / "meta_expressions/valid/meta_expressions.json") in str(error.value)
    assert "DAVIS-2017-Unsupervised-trainval-480p.zip" in str(error.value)


def test_a_sequence_without_text_is_named(original):
    path = text_file(original, 1)
    lines = path.read_text().splitlines(True)
    path.write_text("".join(line for line in lines if not line.startswith("dogs-jump")))
    with pytest.raises(DataError, match=f"{path} has no expression of dogs-jump"):
        load(original)


def test_a_sequence_without_frames_is_named(original):
    folder = original / "DAVIS/JPEGImages/480p/blackswan"
    shutil.rmtree(folder)
    with pytest.raises(DataError, match=f"{folder} holds no frames"):
        load(original)


def test_a_line_without_object_is_named(original):
    path = text_file(original, 0)
    path.write_text(path.read_text() + "blackswan\n")
    with pytest.raises(DataError, match=f"{path} .*'blackswan'"):
        load(original)
