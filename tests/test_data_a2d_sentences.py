# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
import json
import shutil
import sys
from pathlib import Path

import h5py
import pytest

from proxyformer_hf.data.a2d_sentences import A2DSentences
from proxyformer_hf.data.load import load_rvos_dataset
from proxyformer_hf.data.records import DataError

sys.path.append(str(Path(__file__).resolve().parents[1] / "scripts"))
from make_fixtures import write_fixture  # noqa: E402

REAL = Path(__file__).resolve().parents[2] / "shared/data/annotations"
TEXTS = "text_annotations/a2d_annotation.txt"
GROUND_TRUTH = "a2d_sentences_test_annotations_in_coco_format.json"


@pytest.fixture
def root(tmp_path) -> Path:
    write_fixture("a2d-sentences", tmp_path / "data")
    return tmp_path / "data"


def load(root: Path, split: str) -> list[dict]:
    return list(load_rvos_dataset("a2d-sentences", root, split, cache_dir=root.parent / "cache"))


def sample_list(root: Path, split: str) -> Path:
    return root / f"a2d_sentences_single_frame_{split}_annotations.json"


def remove_published(root: Path) -> None:
    (root / GROUND_TRUTH).unlink()
    for split in ("train", "test"):
        sample_list(root, split).unlink()


def identity(row: dict) -> tuple[str, int, int]:
    """Video, frame counted from 1, instance."""
    instance, frame = map(int, row["expression_id"].split("@"))
    assert row["object_ids"] == [instance] and row["annotated"] == [frame - 1]
    return row["video_id"], frame, instance


def test_test_rows_are_the_images_of_the_published_ground_truth(root):
    sample_list(root, "test").unlink()
    images = json.loads((root / GROUND_TRUTH).read_text())["images"]
    names = ["v_{}_f_{}_i_{}".format(*identity(row)) for row in load(root, "test")]
    assert sorted(names) == sorted(image["id"] for image in images)


@pytest.mark.parametrize("split", ["train", "test"])
def test_rows_are_the_published_samples(root, split):
    (root / GROUND_TRUTH).unlink()
    shutil.rmtree(root / "text_annotations/a2d_annotation_with_instances")  # is not needed
    samples = json.loads(sample_list(root, split).read_text())
    rows = {identity(row): row["expression"].lower() for row in load(root, split)}
    assert rows == {(video, frame, i): query for query, video, frame, i in samples}


@pytest.mark.parametrize("split", ["train", "test"])
def test_without_published_lists_the_h5_files_give_the_same_rows(root, split):
    published = load(root, split)
    remove_published(root)
    assert load(root, split) == published


def test_a_frame_that_does_not_show_the_instance_gives_no_row(root):
    remove_published(root)
    folder = root / "text_annotations/a2d_annotation_with_instances/T6bNPuKV-wY"
    with h5py.File(folder / "00001.h5") as file:
        assert 1 not in file["instance"][()]
    pairs = {identity(row)[1:] for row in load(root, "test") if row["video_id"] == "T6bNPuKV-wY"}
    assert pairs == {(frame, i) for frame in (1, 6, 10) for i in (0, 1, 2)} - {(1, 1)}


def test_a_frame_with_one_instance_gives_one_row(root):
    remove_published(root)
    path = root / "text_annotations/a2d_annotation_with_instances/_fTMYnVtUbo/00006.h5"
    with h5py.File(path, "w") as file:
        file["instance"] = [2]
    pairs = [identity(row)[1:] for row in load(root, "train") if row["video_id"] == "_fTMYnVtUbo"]
    assert pairs == [(6, 2)]


def test_the_video_without_instances_has_no_rows_and_any_other_is_an_error(root):
    published = load(root, "train")
    remove_published(root)
    with (root / TEXTS).open("a") as file:
        file.write("e7Kjy13woXg,0,a cat\n")
    with (root / "Release/videoset.csv").open("a") as file:
        file.write("e7Kjy13woXg,11,00:00,00:02,240,320,100,3,0\n")
    assert load(root, "train") == published
    shutil.rmtree(root / "text_annotations/a2d_annotation_with_instances/_fTMYnVtUbo")
    with pytest.raises(DataError, match="_fTMYnVtUbo holds no h5 files"):
        load(root, "train")


def test_missed_videos_and_the_copied_instance_are_left_out(root):
    assert "1 (copy)" in (root / TEXTS).read_text()
    assert "54DuhN4-Cj0" in (root / "text_annotations/a2d_missed_videos.txt").read_text()
    with (root / TEXTS).open("a") as file:
        file.write("54DuhN4-Cj0,0,something missed\n")
    remove_published(root)
    assert {row["video_id"] for row in load(root, "train")} == {"--h5fAKYurM", "_fTMYnVtUbo"}
    rows = [row for row in load(root, "test") if row["video_id"] == "T6bNPuKV-wY"]
    lines = [line.split(",") for line in (root / TEXTS).read_text().splitlines()]
    told = {int(i): query for video, i, query in lines if video == "T6bNPuKV-wY" and i in "012"}
    assert {row["object_ids"][0]: row["expression"] for row in rows} == told
    assert told[0].startswith(" ") and told[0] != told[0].lower()


def test_videos_tell_their_split_and_number_of_frames(root):
    lines = (root / "Release/videoset.csv").read_text().splitlines()
    told = {line.split(",")[0]: line.split(",")[6:9:2] for line in lines}
    for split, subset in (("train", "0"), ("test", "1")):
        for row in load(root, split):
            assert told[row["video_id"]] == [str(row["num_frames"]), subset]
            assert row["media"] == f"Release/clips320H/{row['video_id']}.mp4"
            assert row["frames"] == []


def test_a_copy_with_a_fourth_column_gives_the_same_rows(root):
    rows = load(root, "train")
    header, *lines = (root / TEXTS).read_text().splitlines()
    lines = [f"{header},short_query", *(f"{line},short" for line in lines)]
    (root / TEXTS).write_text("\n".join(lines) + "\n")
    assert load(root, "train") == rows


@pytest.mark.skipif(not REAL.exists(), reason="the real annotation files are absent")
def test_real_text_file_has_6655_rows_of_3754_videos_one_of_them_bad(tmp_path):
    root = tmp_path / "data"
    for folder in ("text_annotations", "Release"):
        (root / folder).mkdir(parents=True)
    shutil.copy(REAL / "a2d_annotation.txt", root / TEXTS)
    shutil.copy(REAL / "a2d_missed_videos.txt", root / "text_annotations")
    rows = [line.split(",") for line in (root / TEXTS).read_text().splitlines()[1:]]
    assert len(rows) == 6655
    missed = (REAL / "a2d_missed_videos.txt").read_text().split()
    videos = sorted({row[0] for row in rows} | set(missed))
    assert len(videos) == 3782  # as many as videoset.csv has rows
    videoset = [f"{video},11,00:00,00:02,240,320,100,3,{k % 2}" for k, video in enumerate(videos)]
    (root / "Release/videoset.csv").write_text("\n".join(videoset))
    for split in ("train", "test"):
        subset = {line.split(",")[0] for line in videoset if line.endswith("01"[split == "test"])}
        samples = [
            [query.lower(), video, 1, int(instance)]
            for video, instance, query in rows
            if video in subset and instance != "1 (copy)"
        ]
        sample_list(root, split).write_text(json.dumps(samples))
    loaded = load(root, "train") + load(root, "test")
    assert len(loaded) == 6654
    assert len({row["video_id"] for row in loaded}) == 3754
    assert {row["object_ids"][0] for row in loaded} == set(range(16))
    texts = {(row["video_id"], str(row["object_ids"][0])): row["expression"] for row in loaded}
    # Neither stripped nor lower-cased: the file's own edge blanks and capitals.
    assert texts == {(video, i): query for video, i, query in rows if i != "1 (copy)"}
    assert any(text != text.strip() for text in texts.values())
    assert any(text != text.lower() for text in texts.values())


def test_queries_of_an_unlisted_video_contradict(root):
    assert list(A2DSentences(root, "test", streaming=True).contradictions()) == []
    with (root / TEXTS).open("a") as file:
        file.write("unlisted,0,a thing\n")
    (told,) = A2DSentences(root, "test", streaming=True).contradictions()
    assert "unlisted" in told and str(root / "Release/videoset.csv") in told


def test_published_videos_of_another_split_contradict(root):
    samples = json.loads(sample_list(root, "train").read_text())
    (video,) = {video for _, video, *_ in samples} - {"--h5fAKYurM"}
    lines = (root / "Release/videoset.csv").read_text()
    (root / "Release/videoset.csv").write_text(lines.replace("10,1,0", "10,1,1"))
    (told,) = A2DSentences(root, "train", streaming=True).contradictions()
    assert video in told and "train" in told


@pytest.mark.parametrize(
    "path", [TEXTS, "Release/videoset.csv", "text_annotations/a2d_missed_videos.txt"]
)
def test_missing_file_is_named_with_its_download(root, path):
    (root / path).unlink()
    with pytest.raises(DataError, match="kgavrilyuk.github.io") as error:
        load(root, "train")
    assert f"{root / path} is missing" in str(error.value)


def test_missing_or_damaged_h5_files_are_named(root):
    remove_published(root)
    folder = root / "text_annotations/a2d_annotation_with_instances/_fTMYnVtUbo"
    (folder / "00006.h5").write_bytes(b"no h5")
    with pytest.raises(DataError, match=f"{folder / '00006.h5'} cannot be read"):
        load(root, "train")
    shutil.rmtree(folder)
    with pytest.raises(DataError, match=f"{folder} holds no h5 files"):
        load(root, "train")


@pytest.mark.parametrize(
    ("path", "content"),
    [
        (TEXTS, "video_id,instance_id,query\nlonely\n"),
        (TEXTS, "video_id,instance_id,query\nT6bNPuKV-wY,two,a thing\n"),
        (TEXTS, ""),
        ("Release/videoset.csv", "too,few\n"),
        (GROUND_TRUTH, '{"images": [{"id": "v_x"}]}'),
        (GROUND_TRUTH, "{"),
    ],
)
def test_malformed_file_is_named(root, path, content):
    (root / path).write_text(content)
    with pytest.raises(DataError, match=str(root / path)):
        load(root, "test")


def test_a_published_pair_without_query_is_named(root):
    samples = json.loads(sample_list(root, "train").read_text())
    samples.append(["a thing", "_fTMYnVtUbo", 6, 9])
    sample_list(root, "train").write_text(json.dumps(samples))
    with pytest.raises(DataError, match=f"{TEXTS} is malformed at video _fTMYnVtUbo .*9"):
        load(root, "train")
