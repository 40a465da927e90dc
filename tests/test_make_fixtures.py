# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
import csv
import json
import re
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
from PIL import Image
from pycocotools import mask as rle
from typer.testing import CliRunner

from proxyformer_hf.masks import davis_palette
from proxyformer_hf.video_io import probe_video, read_video

sys.path.append(str(Path(__file__).resolve().parents[1] / "scripts"))
import make_fixtures  # noqa: E402
from make_fixtures import WRITERS, draw_clip, write_fixture  # noqa: E402


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Folder of each fixture, written once."""
    root = tmp_path_factory.mktemp("fixtures")

    def folder(name: str) -> Path:
        if not (root / name).exists():
            write_fixture(name, root / name)
        return root / name

    return folder


def read_json(*parts):
    return json.loads(Path(*parts).read_text())


def read_maps(folder: Path) -> dict[str, np.ndarray]:
    """Ids of palette images in the colours of DAVIS, by frame name."""
    maps = {}
    for path in sorted(folder.glob("*.png")):
        with Image.open(path) as image:
            assert image.mode == "P" and image.getpalette() == davis_palette()
            maps[path.stem] = np.array(image)
    return maps


def frame_size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        assert image.mode == "RGB"
        return image.height, image.width


def files(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("name", WRITERS)
def test_the_seed_decides_every_byte_but_those_of_video_files(data, name, tmp_path):
    write_fixture(name, tmp_path / "again")
    write_fixture(name, tmp_path / "other", seed=1)
    first, again = files(data(name)), files(tmp_path / "again")
    assert first.keys() == again.keys()
    differ = [path for path in first if first[path] != again[path]]
    assert all(path.endswith(".mp4") for path in differ)
    other = files(tmp_path / "other")
    pictures = [path for path in first if path.endswith((".jpg", ".png", ".mp4"))]
    assert all(first[path] != other.get(path) for path in pictures if "JPEGImages" in path)
    assert not list(tmp_path.rglob(".*"))  # no temporary files


def test_a_clip_has_an_object_that_enters():
    for seed in range(5):
        clip = draw_clip(np.random.default_rng(seed), 6)
        seen = [[(ids == i).any() for ids in clip.object_map] for i in (1, 2, 3)]
        assert all(seen[0]) and all(seen[2])
        assert not seen[1][0] and seen[1][-1]
        assert set(np.unique(clip.object_map)) == {0, 1, 2, 3}
        assert clip.frames.shape == (6, 64, 96, 3)
        assert all(len(texts) == 4 and all(texts) for texts in clip.texts.values())
        assert not {*clip.texts[1]} & {*clip.texts[2]} and not {*clip.texts[2]} & {*clip.texts[3]}


def test_ref_youtube_vos_has_its_listings(data):
    root = data("ref-youtube-vos")
    listings = {
        split: read_json(root, "meta_expressions", split, "meta_expressions.json")["videos"]
        for split in ("train", "valid", "test")
    }
    assert listings["test"].keys() < listings["valid"].keys()
    in_valid = {path.name for path in (root / "valid/JPEGImages").iterdir()}
    assert listings["valid"].keys() - listings["test"].keys() == in_valid
    assert {path.name for path in (root / "test/JPEGImages").iterdir()} == listings["test"].keys()
    for split, listing in listings.items():
        folder = "test" if split == "valid" else split
        for video, told in listing.items():
            assert list(told) == ["expressions", "frames"]
            assert list(told["expressions"]) == [str(i) for i in range(len(told["expressions"]))]
            keys = {"exp", "obj_id"} if split == "train" else {"exp"}
            assert all(said.keys() == keys for said in told["expressions"].values())
            found = [path.stem for path in (root / folder / "JPEGImages" / video).glob("*.jpg")]
            assert not found or sorted(found) == told["frames"]
    numbers = [[int(name) for name in told["frames"]] for told in listings["train"].values()]
    assert all(number % 5 == 0 for video in numbers for number in video)
    assert {np.diff(video).max() for video in numbers} == {5, 20}
    assert {video[0] for video in numbers} == {0, 20, 5}
    raw = (root / "meta_expressions/valid/meta_expressions.json").read_text()
    assert raw.startswith('{\n    "videos": {\n        "0062f687f1": {\n')


@pytest.mark.parametrize("split", ["train", "valid"])
def test_ref_youtube_vos_has_masks_of_more_objects_than_expressions(data, split):
    root = data("ref-youtube-vos")
    parts = (root, split, "meta_expressions.json")
    if split == "train":
        parts = (root, "meta_expressions", split, "meta_expressions.json")
    objects = read_json(root, split, "meta.json")["videos"]
    for video, told in read_json(*parts)["videos"].items():
        maps = read_maps(root / split / "Annotations" / video)
        assert list(maps) == told["frames"]
        size = frame_size(root / split / "JPEGImages" / video / f"{told['frames'][0]}.jpg")
        assert all(ids.shape == size for ids in maps.values())
        assert {said["obj_id"] for said in told["expressions"].values()} == {"1", "2"}
        assert objects[video]["objects"].keys() == {"1", "2", "3"}
        for i, tells in objects[video]["objects"].items():
            shown = [name for name, ids in maps.items() if (ids == int(i)).any()]
            assert tells["frames"] == shown
            assert (shown == told["frames"]) == (i != "2")


def read_expression_sets(root: Path) -> list[list[tuple[str, str, str]]]:
    names = ("annot1", "annot1_full_video", "annot2", "annot2_full_video")
    encodings = ("utf-8", "utf-8", "latin-1", "latin-1")
    sets = []
    for name, encoding in zip(names, encodings, strict=True):
        raw = (root / f"davis_text_annotations/Davis17_{name}.txt").read_bytes()
        lines = raw.decode(encoding).splitlines()
        sets.append([re.fullmatch(r'(\S+) +(\d+) +"(.+)"', line).groups() for line in lines])
        assert ("´" in raw.decode("latin-1")) == (encoding == "latin-1")
    return sets


def test_ref_davis17_is_davis_with_four_text_files(data):
    root = data("ref-davis17")
    sequences = [
        (root / f"DAVIS/ImageSets/2017/{split}.txt").read_text().split()
        for split in ("train", "val")
    ]
    assert sequences[0] == ["classic-car", "dogs-scale", "motorbike"] and len(sequences[1]) == 3
    semantics = read_json(root, "DAVIS/davis_semantics.json")
    assert [*semantics] == sum(sequences, [])
    for sequence in semantics:
        maps = read_maps(root / "DAVIS/Annotations_unsupervised/480p" / sequence)
        frames = sorted((root / "DAVIS/JPEGImages/480p" / sequence).glob("*.jpg"))
        assert (
            [path.stem for path in frames] == list(maps) == [f"{t:05d}" for t in range(len(maps))]
        )
        assert frame_size(frames[0]) == maps["00000"].shape
        first = maps["00000"]
        assert (first[first < 255]).max() == len(semantics[sequence]) == 3
        assert any((ids == 255).any() for ids in maps.values()) == (sequence == "blackswan")


def test_ref_davis17_texts_have_their_oddities(data):
    for lines in read_expression_sets(data("ref-davis17")):
        told = {(sequence, i) for sequence, i, _ in lines}
        assert {"clasic-car", "dog-scale", "motor-bike"} <= {sequence for sequence, _ in told}
        assert ("dogs-jump", "2") in told and ("dogs-jump", "3") not in told
        ids = [i for sequence, i, _ in lines if sequence == "blackswan"]
        assert ids == ["3", "2", "1"]
        assert all("  " in text for sequence, _, text in lines if sequence == "motor-bike")


def test_the_converted_layout_interleaves_the_four_sets(data):
    original, root = data("ref-davis17"), data("ref-davis17-converted")
    fixed = {"clasic-car": "classic-car", "dog-scale": "dogs-scale", "motor-bike": "motorbike"}
    sets = read_expression_sets(original)
    semantics = read_json(original, "DAVIS/davis_semantics.json")
    for split in ("train", "valid"):
        listing = read_json(root, "meta_expressions", split, "meta_expressions.json")["videos"]
        categories = read_json(root, split, "meta.json")["videos"]
        for sequence, told in listing.items():
            for a, lines in enumerate(sets):
                said = sorted(
                    (i, " ".join(text.split()))
                    for name, i, text in lines
                    if fixed.get(name, name) == sequence
                )
                for k, (i, text) in enumerate(said):
                    assert told["expressions"][str(4 * k + a)] == {"exp": text, "obj_id": i}
            assert len(told["expressions"]) == 4 * len(said)
            objects = {i: {"category": name} for i, name in semantics[sequence].items()}
            assert categories[sequence] == {"objects": objects}
            for kind, davis in (
                ("JPEGImages", "JPEGImages"),
                ("Annotations", "Annotations_unsupervised"),
            ):
                moved = files(root / split / kind / sequence)
                assert moved == files(original / "DAVIS" / davis / "480p" / sequence)
            assert told["frames"] == [name[:5] for name in files(root / split / kind / sequence)]


def read_csv(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


def read_h5(path: Path) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """instance -> mask (height, width) and box."""
    with h5py.File(path) as file:
        instances, masks = file["instance"][()].tolist(), file["reMask"][()]
        boxes = file["reBBox"][()]
    if len(instances) == 1:
        assert masks.ndim == 2 and boxes.shape == (4,)
        masks, boxes = masks[None], boxes[:, None]
    assert masks.shape[0] == boxes.shape[1] == len(instances)
    return {i: (masks[k].T, boxes[:, k]) for k, i in enumerate(instances)}


def test_a2d_videoset_tells_of_clips(data):
    root = data("a2d-sentences")
    rows = read_csv(root / "Release/videoset.csv")
    assert {len(row) for row in rows} == {9}
    assert {row[0][0] for row in rows} >= {"-", "_"} and {row[8] for row in rows} == {"0", "1"}
    clips = {path.stem for path in (root / "Release/clips320H").iterdir()}
    assert clips == {row[0] for row in rows}
    masks = root / "text_annotations/a2d_annotation_with_instances"
    for row in rows:
        info = probe_video(root / f"Release/clips320H/{row[0]}.mp4")
        assert info.num_frames == int(row[6])
        annotated = [*(masks / row[0]).glob("*.h5")]
        assert len(annotated) == int(row[7])
        assert all(1 <= int(path.stem) <= info.num_frames for path in annotated)
        for mask, _ in (pair for path in annotated for pair in read_h5(path).values()):
            assert mask.shape == (info.height, info.width)
    missed = (root / "text_annotations/a2d_missed_videos.txt").read_text()
    assert missed in clips and not (masks / missed).exists()


def test_a2d_clips_show_what_the_masks_tell(data, monkeypatch):
    """The masks belong to the frame of their number, counted from 1, and are not turned."""
    drawn = []
    monkeypatch.setattr(
        make_fixtures, "draw_clip", lambda *args: drawn.append(draw_clip(*args)) or drawn[-1]
    )
    root = data("a2d-sentences").parent / "watched"
    write_fixture("a2d-sentences", root)
    rows = read_csv(root / "Release/videoset.csv")
    for row, clip in zip(rows, drawn, strict=True):
        frames = read_video(root / f"Release/clips320H/{row[0]}.mp4")[0].astype(int)
        assert np.abs(frames - clip.frames).mean() < 8
        folder = root / "text_annotations/a2d_annotation_with_instances" / row[0]
        for path in folder.glob("*.h5"):
            for i, (mask, _) in read_h5(path).items():
                expected = clip.object_map[int(path.stem) - 1] == i + 1
                np.testing.assert_array_equal(mask, expected)


def test_a2d_texts_have_their_oddities(data):
    root = data("a2d-sentences")
    header, *rows = read_csv(root / "text_annotations/a2d_annotation.txt")
    assert header == ["video_id", "instance_id", "query"]
    assert [row[1] for row in rows if row[0] == "T6bNPuKV-wY"] == ["0", "1 (copy)", "1", "2"]
    assert any(query != query.strip() for *_, query in rows)
    assert any(query != query.lower() for *_, query in rows)
    assert "54DuhN4-Cj0" not in {row[0] for row in rows}
    assert not any("," in query or '"' in query for *_, query in rows)


def test_a2d_lists_are_the_annotated_pairs(data):
    root = data("a2d-sentences")
    subsets = {row[0]: row[8] for row in read_csv(root / "Release/videoset.csv")}
    rows = read_csv(root / "text_annotations/a2d_annotation.txt")[1:]
    coco = read_json(root, "a2d_sentences_test_annotations_in_coco_format.json")
    assert coco["categories"] == [{"id": 1, "name": "dummy_class"}]
    counts = []
    for split, subset in (("train", "0"), ("test", "1")):
        expected, images, annotations = [], [], []
        for video, instance, query in rows:
            if subsets[video] != subset or instance == "1 (copy)":
                continue
            folder = root / "text_annotations/a2d_annotation_with_instances" / video
            for path in sorted(folder.glob("*.h5")):
                shown = read_h5(path)
                counts.append(len(shown))
                if int(instance) in shown:
                    expected.append([query.lower(), video, int(path.stem), int(instance)])
                    mask, (x1, y1, x2, y2) = shown[int(instance)]
                    name = f"v_{video}_f_{int(path.stem)}_i_{instance}"
                    images.append({"id": name, "height": mask.shape[0], "width": mask.shape[1]})
                    annotations.append((name, mask, [x1, y1, x2 - x1, y2 - y1]))
        listed = read_json(root, f"a2d_sentences_single_frame_{split}_annotations.json")
        assert listed == expected
        if split == "test":
            check_coco(coco, images, annotations)
    assert {1, 2, 3} <= set(counts)


def check_coco(coco: dict, images: list[dict], annotations: list[tuple]) -> None:
    assert coco["images"] == images
    for number, (found, (name, mask, *box)) in enumerate(
        zip(coco["annotations"], annotations, strict=True), start=1
    ):
        assert (found["id"], found["image_id"], found["category_id"]) == (number, name, 1)
        np.testing.assert_array_equal(rle.decode(found["segmentation"]), mask)
        assert found["area"] == mask.sum() and found["iscrowd"] == 0
        assert [found["bbox"]] == box if box else "bbox" not in found


def test_jhmdb_has_masks_for_a_part_of_some_videos(data):
    root = data("jhmdb-sentences")
    header, *rows = read_csv(root / "jhmdb_annotation.txt")
    assert header == ["video_id", "query"]
    videos = {path.name: path for path in (root / "Rename_Images").glob("*/*")}
    assert {row[0] for row in rows} < videos.keys()
    lacking = 0
    for name, folder in videos.items():
        frames = sorted(path.name for path in folder.iterdir())
        assert frames == [f"{t:05d}.png" for t in range(1, len(frames) + 1)]
        mat = root / "puppet_mask" / folder.parent.name / name / "puppet_mask.mat"
        masks = scipy.io.loadmat(mat)["part_mask"]
        assert masks.shape[:2] == frame_size(folder / frames[0]) and masks.shape[2] <= len(frames)
        assert masks.dtype == np.uint8 and masks.max() == 1 and masks.any((0, 1)).all()
        lacking += masks.shape[2] < len(frames)
    assert lacking == 1


def test_jhmdb_samples_are_three_frames_of_each_video(data):
    root = data("jhmdb-sentences")
    rows = read_csv(root / "jhmdb_annotation.txt")[1:]
    samples = read_json(root, "jhmdb_sentences_samples_metadata.json")
    assert [(video, query) for video, *_, query in samples] == [
        tuple(row) for row in rows for _ in range(3)
    ]
    images, annotations = [], []
    for video, frame, mat, total, _ in samples:
        assert frame.startswith("./jhmdb_sentences/Rename_Images/")
        place = root / frame.removeprefix("./jhmdb_sentences/")
        masks = scipy.io.loadmat(root / mat.removeprefix("./jhmdb_sentences/"))["part_mask"]
        assert total == min(len([*place.parent.iterdir()]), masks.shape[2])
        assert place.is_file() and int(place.stem) <= total
        mask = masks[..., int(place.stem) - 1]
        images.append(
            {
                "id": f"v_{video}_f_{int(place.stem)}",
                "height": mask.shape[0],
                "width": mask.shape[1],
            }
        )
        annotations.append((images[-1]["id"], mask))
    assert len({image["id"] for image in images}) == len(images)
    check_coco(
        read_json(root, "jhmdb_sentences_gt_annotations_in_coco_format.json"), images, annotations
    )


@pytest.mark.parametrize("split", ["train", "valid_u"])
def test_mevis_annotations_are_codes_or_null(data, split):
    root = data("mevis")
    listing = read_json(root, split, "meta_expressions.json")["videos"]
    codes = read_json(root, split, "mask_dict.json")
    assert [*codes] == [str(i) for i in range(len(codes))]
    used, kinds = set(), set()
    for video, told in listing.items():
        frames = sorted((root / split / "JPEGImages" / video).glob("*.jpg"))
        assert [path.stem for path in frames] == told["frames"]
        for said in told["expressions"].values():
            assert len(said["obj_id"]) == len(said["anno_id"])
            kinds.add(len(said["anno_id"]))
            used.update(said["anno_id"])
            for i in said["anno_id"]:
                assert len(codes[str(i)]) == len(frames)
                for code in filter(None, codes[str(i)]):
                    assert rle.decode(code).shape == frame_size(frames[0])
                    assert rle.decode(code).any()
    assert 0 in used and used == set(range(len(codes))) and kinds == {1, 2}
    assert any(code is None for of_object in codes.values() for code in of_object)
    texts = [said["exp"] for told in listing.values() for said in told["expressions"].values()]
    assert any(text != text.lower() for text in texts)


def test_mevis_validation_set_is_not_public(data):
    root = data("mevis")
    assert not (root / "valid/mask_dict.json").exists()
    listing = read_json(root, "valid", "meta_expressions.json")["videos"]
    said = [said for told in listing.values() for said in told["expressions"].values()]
    assert said and all(expression.keys() == {"exp"} for expression in said)


def test_unknown_names_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no fixture 'davis': give one of ref-youtube-vos, "):
        write_fixture("davis", tmp_path)


def test_the_command_writes_what_the_function_does(data, tmp_path):
    app = make_fixtures.typer.Typer()
    app.command()(make_fixtures.main)
    result = CliRunner().invoke(app, ["mevis", str(tmp_path / "data")])
    assert result.exit_code == 0
    assert files(tmp_path / "data") == files(data("mevis"))
