# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
import json
import shutil
import sys
from pathlib import Path

import pytest

from proxyformer_hf.data.decoding import read_masks
from proxyformer_hf.data.load import load_rvos_dataset
from proxyformer_hf.data.records import DataError
from proxyformer_hf.data.ref_youtube_vos import RefYoutubeVOS

sys.path.append(str(Path(__file__).resolve().parents[1] / "scripts"))
from make_fixtures import write_fixture  # noqa: E402

REAL = Path(__file__).resolve().parents[2] / "shared/data/annotations"


@pytest.fixture
def root(tmp_path) -> Path:
    write_fixture("ref-youtube-vos", tmp_path / "data")
    return tmp_path / "data"


def load(root: Path, split: str) -> list[dict]:
    return list(load_rvos_dataset("ref-youtube-vos", root, split, cache_dir=root.parent / "cache"))


def listing(root: Path, split: str) -> Path:
    return root / "meta_expressions" / split / "meta_expressions.json"


def read_videos(path: Path) -> dict:
    return json.loads(path.read_text())["videos"]


def write_videos(path: Path, videos: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"videos": videos}))


def test_training_rows_are_the_expressions_of_the_annotation_file(root):
    videos = read_videos(listing(root, "train"))
    objects = read_videos(root / "train/meta.json")
    rows = load(root, "train")
    assert len(rows) == sum(len(video["expressions"]) for video in videos.values())
    for row in rows:
        video = videos[row["video_id"]]
        told = video["expressions"][row["expression_id"]]
        assert isinstance(told["obj_id"], str)  # as in the official file
        object_id = told["obj_id"]
        assert row["expression"] == told["exp"]
        assert row["object_ids"] == [int(object_id)]
        assert row["categories"] == [objects[row["video_id"]]["objects"][object_id]["category"]]
        assert row["media"] == f"train/JPEGImages/{row['video_id']}"
        assert row["frames"] == [f"{name}.jpg" for name in video["frames"]]
        assert row["num_frames"] == len(video["frames"])
        assert row["masks"]["path"] == f"train/Annotations/{row['video_id']}"


def test_frame_names_may_start_above_0_and_have_gaps(root):
    frames = {row["video_id"]: row["frames"] for row in load(root, "train")}
    numbers = [int(name[:5]) for name in frames["0043f083b5"]]
    assert numbers == [20, 25, 30, 40, 45, 65, 70]


def test_frames_are_put_in_order(root):
    videos = read_videos(listing(root, "train"))
    expected = [f"{name}.jpg" for name in videos["003234408d"]["frames"]]
    videos["003234408d"]["frames"].reverse()
    write_videos(listing(root, "train"), videos)
    assert load(root, "train")[0]["frames"] == expected


def test_frames_without_the_object_are_kept_and_count_as_annotated(root):
    row = next(row for row in load(root, "train") if row["object_ids"] == [2])
    assert row["annotated"] == list(range(row["num_frames"]))
    masks, annotated = read_masks(root, row, row["annotated"])
    shown = masks.flatten(1).any(1)
    assert annotated.all() and not shown[0] and shown[-1]


def test_meta_json_may_be_absent(root):
    (root / "train/meta.json").unlink()
    assert all(row["categories"] == [] for row in load(root, "train"))


def test_validation_set_is_the_listed_videos_without_the_test_videos(root):
    listed = read_videos(listing(root, "valid"))
    test = read_videos(listing(root, "test"))
    assert test.keys() < listed.keys()
    videos = list(dict.fromkeys(row["video_id"] for row in load(root, "valid")))
    assert videos == sorted(listed.keys() - test.keys())
    assert {row["video_id"] for row in load(root, "test")} == test.keys()


@pytest.mark.skipif(not REAL.exists(), reason="the real annotation files are absent")
def test_real_validation_file_has_507_videos_and_leaves_202_without_305(tmp_path):
    real = (REAL / "ref_youtube_vos_valid_meta_expressions.json").read_text()
    videos = json.loads(real)["videos"]
    listing(tmp_path / "data", "valid").parent.mkdir(parents=True)
    listing(tmp_path / "data", "valid").write_text(real)
    write_videos(listing(tmp_path / "data", "test"), {})
    rows = load(tmp_path / "data", "valid")
    assert len({row["video_id"] for row in rows}) == 507
    assert len(rows) == 2096
    # The names of the 305 test videos are not public here: any 305 show the rule.
    test = dict(sorted(videos.items(), key=lambda item: item[0][::-1])[:305])
    write_videos(listing(tmp_path / "data", "test"), test)
    rows = load(tmp_path / "data", "valid")
    assert len({row["video_id"] for row in rows}) == 202
    assert len(rows) == 2096 - sum(len(video["expressions"]) for video in test.values())
    for row in rows:
        video = videos[row["video_id"]]
        assert row["expression"] == video["expressions"][row["expression_id"]]["exp"]
        assert row["frames"] == [f"{name}.jpg" for name in video["frames"]]
        assert row["object_ids"] == row["annotated"] == []


def test_posted_validation_masks_are_used(root):
    told = read_videos(root / "valid/meta_expressions.json")
    rows = load(root, "valid")
    for row in rows:
        object_id = told[row["video_id"]]["expressions"][row["expression_id"]]["obj_id"]
        assert row["object_ids"] == [int(object_id)]
        assert row["masks"]["format"] == "palette"
        assert row["masks"]["path"] == f"valid/Annotations/{row['video_id']}"
        assert row["annotated"] == list(range(row["num_frames"]))
    # The objects may as well stand in the listing itself.
    shutil.move(root / "valid/meta_expressions.json", listing(root, "valid"))
    assert load(root, "valid") == rows


@pytest.mark.parametrize("absent", ["valid/Annotations", "valid/meta_expressions.json"])
def test_validation_rows_without_masks_or_without_objects_have_neither(root, absent):
    path = root / absent
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    for row in load(root, "valid"):
        assert row["object_ids"] == row["categories"] == row["annotated"] == []
        assert row["masks"]["format"] == "none"


def test_masks_that_no_expression_names_contradict(root):
    builder = RefYoutubeVOS(root, "valid", streaming=True)
    assert list(builder.contradictions()) == []
    (root / "valid/meta_expressions.json").unlink()
    (told,) = builder.contradictions()
    assert str(root / "valid/Annotations") in told and "3 videos" in told and "obj_id" in told


def test_test_rows_have_no_masks(root):
    assert {row["masks"]["format"] for row in load(root, "test")} == {"none"}


@pytest.mark.parametrize(
    ("split", "missing"), [("train", "train"), ("valid", "valid"), ("valid", "test")]
)
def test_missing_listing_is_named_with_its_download(root, split, missing):
    listing(root, missing).unlink()
    with pytest.raises(DataError, match="meta_expressions.zip") as error:
        load(root, split)
    assert f"{listing(root, missing)} is missing" in str(error.value)


def test_expression_without_object_is_named(root):
    videos = read_videos(listing(root, "train"))
    del videos["01c88b5b60"]["expressions"]["1"]["obj_id"]
    write_videos(listing(root, "train"), videos)
    with pytest.raises(DataError, match="malformed at video 01c88b5b60 .*obj_id"):
        load(root, "train")
