# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from proxyformer_hf.data.check import SplitCounts, check_data
from proxyformer_hf.data.records import DataError
from proxyformer_hf.masks import save_mask
from proxyformer_hf.video_io import VideoWriter

sys.path.append(str(Path(__file__).resolve().parents[1] / "scripts"))
from make_fixtures import write_fixture  # noqa: E402

COUNTS = {  # split, videos, expressions, objects, frames
    "ref-youtube-vos": [("train", 3, 12, 6, 17), ("valid", 3, 12, 6, 17), ("test", 2, 8, 0, 15)],
    "ref-davis17": [("train", 3, 36, 9, 24), ("valid", 3, 32, 8, 24)],
    "ref-davis17-converted": [("train", 3, 36, 9, 24), ("valid", 3, 32, 8, 24)],
    "jhmdb-sentences": [("test", 3, 9, 3, 21)],
    "mevis": [("train", 2, 8, 6, 14), ("valid_u", 2, 8, 6, 14), ("valid", 2, 8, 0, 14)],
}


@pytest.fixture
def fixture(tmp_path):
    def write(name: str) -> Path:
        write_fixture(name, tmp_path / name)
        return tmp_path / name

    return write


def problems(root: Path, *splits: str) -> list[str]:
    return check_data(root.name, root, splits or None).problems


def one_problem(root: Path, *splits: str) -> str:
    (problem,) = problems(root, *splits)
    return problem


@pytest.mark.parametrize("name", COUNTS)
def test_a_complete_data_set_has_counts_and_no_problems(fixture, name):
    report = check_data(name.removesuffix("-converted"), fixture(name))
    assert report.counts == [SplitCounts(*counts) for counts in COUNTS[name]]
    assert report.problems == []


def a2d_samples(root: Path, split: str) -> list[list]:
    path = root / f"a2d_sentences_single_frame_{split}_annotations.json"
    return json.loads(path.read_text())


def test_frames_of_a2d_are_counted_once_a_video(fixture):
    root = fixture("a2d-sentences")
    report = check_data("a2d-sentences", root)
    expected = []
    for split in ("train", "test"):
        samples = a2d_samples(root, split)
        objects = {(video, instance) for _, video, _, instance in samples}
        expected.append(SplitCounts(split, 2, len(samples), len(objects), frames=2 * 10))
    assert report.counts == expected
    assert report.problems == []


def test_only_the_splits_asked_for_are_checked(fixture):
    root = fixture("mevis")
    shutil.rmtree(root / "train")
    report = check_data("mevis", root, ["valid_u"])
    assert [counts.split for counts in report.counts] == ["valid_u"]
    assert report.problems == []


def test_a_missing_annotation_file_is_a_problem_and_other_splits_are_checked(fixture):
    root = fixture("mevis")
    (root / "train/meta_expressions.json").unlink()
    report = check_data("mevis", root)
    assert [counts.split for counts in report.counts] == ["valid_u", "valid"]
    (problem,) = report.problems
    assert problem.startswith(f"train: {root / 'train/meta_expressions.json'} is missing: expected")
    assert "MeViS" in report.download


def test_a_missing_folder_counts_once(fixture):
    root = fixture("ref-youtube-vos")
    shutil.rmtree(root / "train/JPEGImages/003234408d")
    shutil.rmtree(root / "test")
    assert problems(root) == [
        f"train: {root / 'train/JPEGImages/003234408d'} is missing (8 times)",
        f"test: {root / 'test'} is missing (15 times)",
    ]


@pytest.mark.parametrize(
    "path", ["train/JPEGImages/003234408d/00010.jpg", "train/Annotations/003234408d/00010.png"]
)
def test_missing_and_damaged_images_are_found(fixture, path):
    root = fixture("ref-youtube-vos")
    content = (root / path).read_bytes()
    (root / path).write_bytes(content[:-40])
    assert one_problem(root).startswith(f"train: {root / path} cannot be read")
    (root / path).unlink()
    assert one_problem(root) == f"train: {root / path} is missing"


def test_a_frame_of_davis_that_has_masks_alone_is_found(fixture):
    root = fixture("ref-davis17")  # whose annotations list no frames
    frame = min(root.glob("DAVIS/JPEGImages/480p/blackswan/*.jpg"))
    frame.unlink()
    assert one_problem(root, "valid") == f"valid: {frame} is missing"


def test_an_object_that_no_mask_shows_is_found(fixture):
    root = fixture("ref-youtube-vos")
    path = root / "meta_expressions/train/meta_expressions.json"
    meta = json.loads(path.read_text())
    meta["videos"]["0043f083b5"]["expressions"]["1"]["obj_id"] = "7"
    path.write_text(json.dumps(meta))
    folder = root / "train/Annotations/0043f083b5"
    assert one_problem(root) == f"train: {folder} never shows object 7 of expression 1"


def test_masks_of_another_size_than_the_frames_are_found(fixture):
    root = fixture("ref-davis17")
    folder = root / "DAVIS/Annotations_unsupervised/480p/blackswan"
    with Image.open(folder / "00003.png") as image:
        save_mask(folder / "00003.png", np.array(image)[:, :50])
    problem = one_problem(root)
    assert problem.startswith(f"valid: {folder}, frame 00003, is (64, 50)")
    assert "(64, 98)" in problem


def test_frames_of_several_sizes_are_found(fixture):
    root = fixture("mevis")
    folder = min((root / "valid/JPEGImages").iterdir())
    Image.new("RGB", (50, 40)).save(folder / "00002.jpg")
    assert one_problem(root) == (
        f"valid: {folder} holds frames of several sizes (height, width): [(40, 50), (64, 96)]"
    )


def test_run_length_codes_are_checked_one_annotation_at_a_time(fixture):
    root = fixture("mevis")
    path = root / "train/mask_dict.json"
    codes = json.loads(path.read_text())
    codes["0"] = [None] * 7  # of a video's expressions 0 and, with another object, 2
    codes["1"] = codes["1"][:5]
    codes["2"] = [code and code | {"size": [96, 64]} for code in codes["2"]]
    path.write_text(json.dumps(codes))
    empty, short, turned = problems(root)
    assert "annotation 0 of video" in empty and "is empty: the object never appears" in empty
    assert short.startswith(f"train: {path} cannot be read (IndexError")
    assert "annotation 2 of video" in turned and "is (96, 64)" in turned and "(64, 96)" in turned


def test_annotation_ids_without_annotation_are_found(fixture):
    root = fixture("mevis")
    path = root / "valid_u/mask_dict.json"
    codes = json.loads(path.read_text())
    del codes["1"]
    path.write_text(json.dumps(codes))
    assert one_problem(root).startswith(f"valid_u: {path} lacks the annotations 1 of video")


def test_clips_and_masks_of_a2d_are_checked(fixture):
    root = fixture("a2d-sentences")
    clip = root / "Release/clips320H/--h5fAKYurM.mp4"
    with VideoWriter(clip, fps=25, height=64, width=80) as writer:
        for _ in range(8):
            writer.write(np.zeros((64, 80, 3), np.uint8))
    masks = root / "text_annotations/a2d_annotation_with_instances/_fTMYnVtUbo/00006.h5"
    masks.write_bytes(b"")
    length, *sizes, damaged = problems(root, "train")
    assert length == f"train: {clip} holds 8 frames, not 10 as listed"
    videos = [video for _, video, *_ in a2d_samples(root, "train")]
    assert len(sizes) == videos.count("--h5fAKYurM")
    assert all("is (64, 96) (height, width), the frames [(64, 80)]" in problem for problem in sizes)
    assert damaged.startswith(f"train: {masks} cannot be read")
    times = videos.count("_fTMYnVtUbo")
    assert damaged.endswith(f"({times} times)") == (times > 1)


def test_a_clip_that_is_missing_or_no_video_is_found(fixture):
    root = fixture("a2d-sentences")
    clip = root / "Release/clips320H/T6bNPuKV-wY.mp4"
    clip.write_bytes(b"no video")
    assert one_problem(root).startswith(f"test: {clip} cannot be read")
    clip.unlink()
    assert one_problem(root) == f"test: {clip} is missing"


def test_a_published_pair_that_the_masks_do_not_show_is_found(fixture):
    root = fixture("a2d-sentences")
    video, frame, missing = "_fTMYnVtUbo", 6, 7
    with (root / "text_annotations/a2d_annotation.txt").open("a") as file:
        file.write(f"{video},{missing},a thing\n")
    samples = [*a2d_samples(root, "train"), ["a thing", video, frame, missing]]
    path = root / "a2d_sentences_single_frame_train_annotations.json"
    path.write_text(json.dumps(samples))
    problem = one_problem(root)
    assert f"expression 7@6 of video {video}, is empty: the object never appears" in problem


def test_an_annotated_frame_beyond_the_end_is_found(fixture):
    root = fixture("jhmdb-sentences")
    path = root / "jhmdb_sentences_samples_metadata.json"
    (video, frame, masks, num_frames, query), *samples = json.loads(path.read_text())
    frame = str(Path(frame).with_name("00012.png"))
    path.write_text(json.dumps([[video, frame, masks, num_frames, query], *samples]))
    assert one_problem(root) == (
        f"test: expression 12 of video {video} is annotated in frame 12 of {num_frames}"
    )


def test_missing_masks_of_jhmdb_are_found(fixture):
    root = fixture("jhmdb-sentences")
    shutil.rmtree(root / "puppet_mask/pullup")
    assert one_problem(root) == f"test: {root / 'puppet_mask/pullup'} is missing (3 times)"


def test_contradictions_of_the_annotation_files_are_problems(fixture):
    root = fixture("ref-youtube-vos")
    (root / "valid/meta_expressions.json").unlink()
    assert one_problem(root).startswith(f"valid: {root / 'valid/Annotations'} is not used")


def test_a_malformed_video_leaves_the_others_checked(fixture):
    root = fixture("ref-youtube-vos")
    path = root / "meta_expressions/train/meta_expressions.json"
    meta = json.loads(path.read_text())
    del meta["videos"]["0043f083b5"]["frames"]
    path.write_text(json.dumps(meta))
    report = check_data("ref-youtube-vos", root, ["train"])
    assert report.counts == [SplitCounts("train", 3, 8, 4, 10)]
    (problem,) = report.problems
    assert f"{path} is malformed at video 0043f083b5" in problem


def test_wrong_names_and_folders_are_refused(fixture, tmp_path):
    with pytest.raises(
        ValueError, match="no benchmark 'moving-shapes': give one of ref-youtube-vos"
    ):
        check_data("moving-shapes", tmp_path)
    with pytest.raises(ValueError, match="mevis has no split 'test'"):
        check_data("mevis", tmp_path, ["test"])
    with pytest.raises(DataError, match="nowhere is no folder"):
        check_data("mevis", tmp_path / "nowhere")
