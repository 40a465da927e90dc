# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
import json
import shutil
import sys
from pathlib import Path

import pytest

from proxyformer_hf.data.load import load_rvos_dataset
from proxyformer_hf.data.records import DataError

sys.path.append(str(Path(__file__).resolve().parents[1] / "scripts"))
from make_fixtures import write_fixture  # noqa: E402

REAL = Path(__file__).resolve().parents[2] / "shared/data/annotations"
SHORT = "11_4_08ErikaRecurveBack_shoot_bow_u_nm_np1_ba_med_0"  # 9 frames, 6 masks


@pytest.fixture
def root(tmp_path) -> Path:
    write_fixture("jhmdb-sentences", tmp_path / "data")
    return tmp_path / "data"


def load(root: Path, **options) -> list[dict]:
    cache = root.parent / "cache"
    return list(load_rvos_dataset("jhmdb-sentences", root, "test", cache_dir=cache, **options))


def sample_list(root: Path) -> Path:
    return root / "jhmdb_sentences_samples_metadata.json"


def test_rows_are_the_published_samples(root):
    samples = json.loads(sample_list(root).read_text())
    told = {(video, int(Path(frame).stem)): rest for video, frame, *rest in samples}
    rows = load(root)
    assert {(row["video_id"], int(row["expression_id"])) for row in rows} == told.keys()
    for row in rows:
        frame = int(row["expression_id"])
        masks, num_frames, query = told[row["video_id"], frame]
        assert row["annotated"] == [frame - 1]
        assert (row["expression"], row["num_frames"]) == (query, num_frames)
        assert row["frames"] == [f"{number:05d}.png" for number in range(1, num_frames + 1)]
        assert f"./jhmdb_sentences/{row['masks']['path']}" == masks
        assert (root / row["media"] / row["frames"][frame - 1]).is_file()
        assert (root / row["masks"]["path"]).is_file()


def test_ground_truth_images_are_the_rows(root):
    path = root / "jhmdb_sentences_gt_annotations_in_coco_format.json"
    images = [image["id"] for image in json.loads(path.read_text())["images"]]
    names = [f"v_{row['video_id']}_f_{row['expression_id']}" for row in load(root)]
    assert sorted(names) == sorted(images)


def test_without_the_published_list_three_frames_of_a_video_are_drawn(root):
    published = {row["video_id"]: row for row in load(root)}
    sample_list(root).unlink()
    rows = load(root)
    assert len(rows) == 3 * len(published)
    for video, told in published.items():
        drawn = [row for row in rows if row["video_id"] == video]
        frames = [int(row["expression_id"]) for row in drawn]
        assert frames == sorted(set(frames)) and len(frames) == 3
        assert min(frames) >= 1 and max(frames) <= told["num_frames"]
        for row, frame in zip(drawn, frames, strict=True):
            own = {"expression_id": str(frame), "annotated": [frame - 1]}
            assert row == told | own


def test_the_draw_depends_on_the_seed_alone(root):
    sample_list(root).unlink()
    first = load(root, seed=3)
    streamed = load_rvos_dataset("jhmdb-sentences", root, "test", streaming=True, seed=3)
    assert list(streamed) == first
    assert load(root, seed=4) != first
    text = root / "jhmdb_annotation.txt"
    header, *lines = text.read_text().splitlines()
    text.write_text("\n".join([header, *reversed(lines)]))
    assert sorted(load(root, seed=3), key=str) == sorted(first, key=str)


def test_the_draw_is_uniform(root):
    sample_list(root).unlink()
    counts = dict.fromkeys(range(1, 7), 0)
    for seed in range(120):
        rows = load_rvos_dataset("jhmdb-sentences", root, "test", streaming=True, seed=seed)
        for row in rows:
            if row["video_id"] == SHORT:
                counts[int(row["expression_id"])] += 1
    assert sum(counts.values()) == 360
    assert all(40 <= count <= 80 for count in counts.values())  # 60 expected, deviation 5.5


def test_frames_without_mask_at_the_end_do_not_count(root):
    assert len(list((root / "Rename_Images/shoot_bow" / SHORT).iterdir())) == 9
    for publish in (True, False):
        if not publish:
            sample_list(root).unlink()
        (num_frames,) = {row["num_frames"] for row in load(root) if row["video_id"] == SHORT}
        assert num_frames == 6


def test_masks_beyond_the_last_frame_do_not_count(root):
    sample_list(root).unlink()
    folder = root / "Rename_Images/shoot_bow" / SHORT
    for number in range(5, 10):
        (folder / f"{number:05d}.png").unlink()
    rows = [row for row in load(root) if row["video_id"] == SHORT]
    assert {row["num_frames"] for row in rows} == {4}


def test_videos_without_text_are_left_out(root):
    assert (root / "Rename_Images/kick_ball/Goal_1_kick_ball_f_cm_np1_ba_med_5").is_dir()
    sample_list(root).unlink()
    assert len({row["video_id"] for row in load(root)}) == 3


@pytest.mark.skipif(not REAL.exists(), reason="the real annotation files are absent")
def test_real_text_file_has_928_videos_and_so_2784_samples(tmp_path):
    root = tmp_path / "data"
    root.mkdir()
    shutil.copy(REAL / "jhmdb_annotation.txt", root)
    lines = (root / "jhmdb_annotation.txt").read_text().splitlines()[1:]
    queries = dict(line.split(",") for line in lines)
    samples = [
        [video, f"./jhmdb_sentences/Rename_Images/a/{video}/{frame:05d}.png", "m.mat", 15, query]
        for video, query in queries.items()
        for frame in (4, 9, 12)
    ]
    sample_list(root).write_text(json.dumps(samples))
    rows = load(root)
    assert len(rows) == 2784
    assert {row["video_id"]: row["expression"] for row in rows} == queries
    assert len(queries) == 928


def test_missing_text_file_is_named_with_its_download(root):
    (root / "jhmdb_annotation.txt").unlink()
    with pytest.raises(DataError, match="jhmdb_annotation.txt is missing.*kgavrilyuk.github.io"):
        load(root)


def test_missing_folders_and_damaged_masks_are_named(root):
    sample_list(root).unlink()
    masks = root / "puppet_mask/shoot_bow" / SHORT / "puppet_mask.mat"
    masks.write_bytes(b"no masks")
    with pytest.raises(DataError, match=f"{masks} cannot be read"):
        load(root)
    masks.unlink()
    with pytest.raises(DataError, match=f"{masks} is missing"):
        load(root)
    shutil.rmtree(root / "Rename_Images/shoot_bow")
    with pytest.raises(DataError, match=f"Rename_Images has no video {SHORT}"):
        load(root)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("jhmdb_annotation.txt", "video_id,query\nlonely\n"),
        ("jhmdb_sentences_samples_metadata.json", '[["v", "f"]]'),
        ("jhmdb_sentences_samples_metadata.json", "["),
    ],
)
def test_malformed_file_is_named(root, name, content):
    (root / name).write_text(content)
    with pytest.raises(DataError, match=str(root / name)):
        load(root)
