# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from proxyformer_hf.cli import app
from proxyformer_hf.data.check import SplitCounts, check_data
from proxyformer_hf.data.decoding import read_frames, read_masks
from proxyformer_hf.data.load import load_rvos_dataset
from proxyformer_hf.data.records import DataError
from proxyformer_hf.data.referring_clips import ReferringClips
from proxyformer_hf.evaluation.protocols import find_protocol
from proxyformer_hf.evaluation.scoring import score
from proxyformer_hf.masks import save_mask
from proxyformer_hf.video_io import VideoWriter

sys.path.append(str(Path(__file__).resolve().parents[1] / "scripts"))
from make_fixtures import write_fixture  # noqa: E402

HEADER = "video,object_id,expression\n"


def load(root: Path, split: str = "train") -> list[dict]:
    return list(load_rvos_dataset("folder", root, split, cache_dir=root.parent / "cache"))


def write_table(root: Path, text: str) -> None:
    (root / "expressions.csv").write_text(text)


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("written") / "data"
    write_fixture("folder", folder)
    return folder


@pytest.fixture
def root(written, tmp_path) -> Path:
    return shutil.copytree(written, tmp_path / "data")


@pytest.fixture
def boxes(tmp_path) -> tuple[Path, np.ndarray, np.ndarray]:
    """A folder written by hand, its frames and its object ids, (T, height, width)."""
    root, rng = tmp_path / "boxes", np.random.default_rng(0)
    frames = rng.integers(0, 256, (4, 20, 30, 3), np.uint8)
    ids = np.zeros((4, 20, 30), np.uint8)
    for t in range(4):
        ids[t, 2 + t : 8 + t, 3:9] = 1
        ids[t, 10:15, 20 - t : 25 - t] = 7
    for folder in ("frames/a", "masks/a"):
        (root / folder).mkdir(parents=True)
    for t in range(4):
        Image.fromarray(frames[t]).save(root / f"frames/a/{t}.png")
        save_mask(root / f"masks/a/{t}.png", ids[t])
    write_table(root, HEADER + "a,1,the upper one\na,7,the lower one\na,1 7,both\n")
    return root, frames, ids


def test_what_is_read_is_what_was_written(boxes):
    root, frames, ids = boxes
    first, second, both = load(root)
    assert [row["expression"] for row in (first, second, both)] == [
        "the upper one",
        "the lower one",
        "both",
    ]
    assert [row["expression_id"] for row in (first, second, both)] == ["0", "1", "2"]
    for row, expected in ((first, ids == 1), (second, ids == 7), (both, ids > 0)):
        found = read_frames(root, row, range(4)).permute(0, 2, 3, 1)
        np.testing.assert_array_equal(found, frames)
        masks, annotated = read_masks(root, row, range(4))
        assert annotated.all()
        np.testing.assert_array_equal(masks, expected)


def test_a_table_of_a_spreadsheet_is_read(root):
    raw = (root / "expressions.csv").read_bytes()
    assert raw.startswith(b"\xef\xbb\xbfvideo") and raw.count(b"\r\n") == 7
    rows = load(root)
    assert [row["video_id"] for row in rows] == ["pond"] * 3 + ["kitchen"]
    assert rows[-1]["expression"].endswith(", seen from above")
    assert rows[-1]["object_ids"] == [] and rows[0]["object_ids"] == [1]
    valid = load(root, "valid")
    assert [row["object_ids"] for row in valid] == [[1], [1, 3]]
    assert valid[0]["media"] == "videos/street.mp4" and valid[0]["frames"] == []


def test_columns_may_come_in_any_order_and_blank_lines_do_not_count(boxes):
    root, *_ = boxes
    write_table(root, "Split, expression ,video,object_id\n,one,a,1\n\n,,,\nvalid,two,a,7\n")
    assert [row["expression"] for row in load(root)] == ["one"]
    (row,) = load(root, "valid")
    assert (row["expression"], row["object_ids"], row["expression_id"]) == ("two", [7], "1")


def test_frames_without_mask_are_not_annotated(root):
    row = load(root)[0]
    masks, annotated = read_masks(root, row, range(row["num_frames"]))
    assert row["annotated"] == [0, 2, 4, 6] and masks[0].any()
    assert annotated.tolist() == [True, False] * 4 and not masks[~annotated].any()


def test_masks_follow_frames_in_natural_order(root):
    row = load(root)[-1]
    assert row["frames"] == [f"{t}.png" for t in range(6, 14)]
    masks, _ = read_masks(root, row, [3, 4])
    for name, mask in (("9", masks[0]), ("10", masks[1])):
        with Image.open(root / f"masks/kitchen/{name}.png") as image:
            assert image.mode == "L"
            np.testing.assert_array_equal(mask, np.asarray(image) == 255)


def test_masks_of_a_video_file_are_named_by_frame_number(root):
    row = load(root, "valid")[1]
    assert row["num_frames"] == 8 and row["annotated"] == list(range(8))
    masks, _ = read_masks(root, row, [5])
    with Image.open(root / "masks/street/00005.png") as image:
        np.testing.assert_array_equal(masks[0], np.isin(np.asarray(image), (1, 3)))
    assert read_frames(root, row, [5]).shape[2:] == masks.shape[1:]


def test_bilevel_masks_are_read(boxes):
    root, _, ids = boxes
    for t in range(4):
        Image.fromarray(ids[t] == 1).save(root / f"masks/a/{t}.png")
    write_table(root, HEADER + "a,,one\n")
    (row,) = load(root)
    np.testing.assert_array_equal(read_masks(root, row, range(4))[0], ids == 1)
    assert check_data("folder", root).problems == []


TABLES = [  # what stands in the table, and what is said of it
    ("", "begins with the line ''"),
    ("video,expression\na,x\n", "begins with the line 'video,expression'.*video,object_id,expr"),
    ("video;object_id;expression\na;1;x\n", "begins with the line 'video;object_id;expression'"),
    ("video,object_id,expression,spilt\n", "begins with .*spilt"),
    ("video,object_id,expression,video\n", "begins with .*video'"),
    (HEADER + "b,1,x\n", r"\(line 2: frames/ and videos/ hold no video 'b', but a\)"),
    (HEADER + "a.png,1,x\n", "no video 'a.png', but a"),
    (HEADER + "a,1,x\na,1, \n", "line 3: the expression is empty"),
    (HEADER + "a,first,x\n", "line 2: the object_id 'first' is no number"),
    (HEADER + "a,0,x\n", "object_id '0' is no number from 1 to 255"),
    (HEADER + "a,256,x\n", "object_id '256' is no number from 1 to 255"),
    (HEADER + "a,1,x, and y\n", "line 2: it has 4 cells and the header 3 .*double quotes"),
    (HEADER + "a,1\n", "line 2: it has 2 cells"),
    ("video,object_id,expression,split\na,1,x,dev\n", "the split 'dev' is none of train, valid"),
    (HEADER + "b,1,x\n" * 7, r"line 6: .*; and 2 more\)"),
    (HEADER, "expressions.csv has nothing of the split train"),
]


@pytest.mark.parametrize(("table", "message"), TABLES)
def test_a_wrong_table_is_one_error(boxes, table, message):
    root, *_ = boxes
    write_table(root, table)
    with pytest.raises(DataError, match=message) as error:
        load(root)
    assert str(root / "expressions.csv") in str(error.value)
    assert "Official download" not in str(error.value)


def test_a_table_of_another_encoding_or_none_is_named(boxes):
    root, *_ = boxes
    (root / "expressions.csv").write_bytes(f"{HEADER}a,1,café\n".encode("latin-1"))
    with pytest.raises(DataError, match="expressions.csv cannot be read .*Unicode.*UTF-8"):
        load(root)
    (root / "expressions.csv").unlink()
    with pytest.raises(DataError, match="expressions.csv is missing: expected a table"):
        load(root)


def test_the_other_lines_are_checked_where_some_are_wrong(boxes):
    root, *_ = boxes
    write_table(
        root,
        "video,object_id,expression,split\nb,1,x,\na,1,,valid\na,1,x,test\na,5,y,train\na,1,z,no\n",
    )
    report = check_data("folder", root)
    table = root / "expressions.csv"
    assert report.problems == [
        f"train: {table}, line 2: frames/ and videos/ hold no video 'b', but a",
        f"train: {table}, line 6: the split 'no' is none of train, valid, test",
        f"train: {root / 'masks/a'} never shows object 5 of expression 1",
        f"valid: {table}, line 3: the expression is empty",
    ]
    assert report.counts == [
        SplitCounts("train", 1, 1, 1, 4),
        SplitCounts("valid"),
        SplitCounts("test", 1, 1, 1, 4),
    ]


def two_media(root: Path) -> None:
    with VideoWriter(root / "videos/a.mp4", fps=4, height=20, width=30) as writer:
        writer.write(np.zeros((20, 30, 3), np.uint8))


def cropped_mask(root: Path) -> None:
    save_mask(root / "masks/a/2.png", np.ones((20, 29), np.uint8))


def empty_masks(root: Path) -> None:
    write_table(root, HEADER + "a,,x\n")
    for t in range(4):
        save_mask(root / f"masks/a/{t}.png", np.zeros((20, 30), np.uint8))


FOLDERS = [  # what is done to the folder, and the problem that check-data finds
    (lambda root: shutil.rmtree(root / "masks"), "{root}/masks is missing"),
    (lambda root: (root / "masks/a/9.png").touch(), "{root}/masks/a/9.png belongs to no frame"),
    (lambda root: (root / "frames/a/1.png").unlink(), "{root}/masks/a/1.png belongs to no frame"),
    (lambda root: Image.new("L", (9, 9)).save(root / "frames/a/1.jpg"), "two frames of one name"),
    (cropped_mask, "frame 2, is (20, 29) (height, width), the frames [(20, 30)]"),
    (lambda root: (root / "masks/a/0.png").write_bytes(b"?"), "masks/a/0.png cannot be read"),
    (
        lambda root: write_table(root, HEADER + "a,,x\n"),
        "{root}/masks/a shows several objects (1, 7), and expression 0 does not say which",
    ),
    (empty_masks, "{root}/masks/a never shows the object of expression 0"),
    (
        lambda root: Image.new("RGB", (30, 20)).save(root / "masks/a/0.png"),
        "its mode is RGB): expected a palette image",
    ),
]


@pytest.mark.parametrize(("change", "message"), FOLDERS)
def test_a_wrong_folder_is_one_finding(boxes, change, message):
    root, *_ = boxes
    write_table(root, HEADER + "a,1,x\n")
    change(root)
    (problem,) = check_data("folder", root, ["train"]).problems
    assert message.format(root=root) in problem


def test_videos_of_one_name_and_empty_folders_are_named(boxes):
    root, *_ = boxes
    (root / "videos").mkdir()
    two_media(root)
    with pytest.raises(DataError, match="several videos 'a': frames/a, videos/a.mp4"):
        load(root)
    shutil.rmtree(root / "videos")
    for path in (root / "masks/a").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="masks/a holds no PNG files: expected a PNG .*0.png"):
        load(root)
    for path in (root / "frames/a").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="the folder .*frames/a holds no frames"):
        load(root)


def test_masks_of_another_size_end_training_with_one_error(boxes):
    root, *_ = boxes
    for t in range(4):
        save_mask(root / f"masks/a/{t}.png", np.ones((10, 15), np.uint8))
    rows = load_rvos_dataset("folder", root, cache_dir=root.parent / "cache")
    with pytest.raises(DataError, match=r"masks/a holds masks of \(10, 15\).*frames/a's \(20"):
        ReferringClips(rows, root, 2)[0]


def test_a_complete_folder_has_no_problems(root):
    result = CliRunner().invoke(app, ["check-data", "folder", str(root)])
    assert result.exit_code == 0 and "no problems" in result.output, result.output
    assert check_data("folder", root).counts == [
        SplitCounts("train", 2, 4, 3, 16),
        SplitCounts("valid", 1, 2, 2, 8),
        SplitCounts("test"),
    ]
    shutil.rmtree(root / "masks/pond")
    result = CliRunner().invoke(app, ["check-data", "folder", str(root)])
    assert result.exit_code == 1
    assert result.output.splitlines()[-1] == "problems: 1"


def test_clips_of_a_folder_hold_an_annotated_frame(root):
    rows = load_rvos_dataset("folder", root, cache_dir=root.parent / "cache")
    clips = ReferringClips(rows, root, 3, expressions=3)
    assert len(clips) == 2 + 3  # 4 and 8 annotated frames by 3
    for index in range(len(clips)):
        sample = clips[index]
        assert sample["masks"][:, sample["annotated"]].any()
        assert not sample["masks"][:, ~sample["annotated"]].any()


def test_perfect_predictions_score_full_marks(boxes, tmp_path):
    root, _, ids = boxes
    write_table(root, "video,object_id,expression,split\na,7,x,valid\na,1 7,y,valid\n")
    for expression, masks in (("0", ids == 7), ("1", ids > 0)):
        folder = tmp_path / "predictions/a" / expression
        folder.mkdir(parents=True)
        for t in range(4):
            save_mask(folder / f"{t}.png", masks[t])
    evaluation = score(find_protocol("folder"), root, tmp_path / "predictions")
    assert evaluation.scores["J&F-Mean"] == 100.0
    assert len(evaluation.items) == 2
