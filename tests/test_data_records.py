# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
import pickle
from collections.abc import Iterator
from pathlib import Path

import datasets
import pytest

from proxyformer_hf.data.records import FEATURES, DataError, Row, RVOSBuilder, frame_stems


class OneFolder(RVOSBuilder):
    """A data set of the simplest layout: a text file of a video and its expressions a line."""

    benchmark = "mevis"  # for its download
    splits = ("train", "valid")
    form = "lines of: video: expression, ..."

    @property
    def annotations(self) -> Path:
        return self.root / f"{self.split}.txt"

    def digested_files(self) -> Iterator[Path]:
        yield self.annotations

    def dated_paths(self) -> Iterator[Path]:
        yield self.root / "masks"

    def videos(self) -> list[tuple[str, str]]:
        lines = self.read_text(self.annotations, self.form).splitlines()
        return [tuple(line.split(": ")) for line in lines]

    def rows(self, video_id: str, entry: str) -> Iterator[Row]:
        for index, text in enumerate(entry.split(", ")):
            yield self.row(video_id, str(index), text, media=video_id, num_frames=int(video_id[1:]))


@pytest.fixture
def root(tmp_path) -> Path:
    root = tmp_path / "data"
    root.mkdir()
    (root / "train.txt").write_text("v2: a dog, a cat\nv3: a cup\n")
    return root


def build(root: Path, split: str = "train", **options) -> OneFolder:
    return OneFolder(root, split, cache_dir=root.parent / "cache", **options)


def test_what_a_row_does_not_tell_is_empty(root):
    builder = build(root)
    builder.download_and_prepare()
    rows = builder.as_dataset("train")
    assert rows.features == FEATURES
    assert rows[1] == {
        "benchmark": "mevis",
        "video_id": "v2",
        "expression_id": "1",
        "expression": "a cat",
        "object_ids": [],
        "categories": [],
        "media": "v2",
        "frames": [],
        "num_frames": 2,
        "annotated": [],
        "masks": {"format": "none", "path": "", "keys": [], "spans": []},
    }


def test_the_digest_follows_contents_and_dates(root):
    digests = [build(root).config.digest]
    (root / "other.txt").write_text("no source")
    assert build(root).config.digest == digests[0]
    (root / "train.txt").write_text("v2: a dog, a cow\nv3: a cup\n")
    digests.append(build(root).config.digest)
    (root / "masks").mkdir()
    digests.append(build(root).config.digest)
    (root / "masks/v2").mkdir()
    digests.append(build(root).config.digest)
    (root / "train.txt").unlink()
    digests.append(build(root).config.digest)
    (root / "train.txt").write_text("")
    digests.append(build(root).config.digest)
    assert len(set(digests)) == len(digests)


def test_splits_and_folders_have_caches_of_their_own(root):
    (root / "valid.txt").write_text((root / "train.txt").read_text())
    other = root.parent / "other"
    other.mkdir()
    (other / "train.txt").write_text((root / "train.txt").read_text())
    folders = {b.cache_dir for b in (build(root), build(root, "valid"), build(other))}
    assert len(folders) == 3
    assert build(root).cache_dir in folders


def test_a_streamed_builder_reads_nothing_for_a_digest(root):
    (root / "train.txt").unlink()
    (root / "train.txt").mkdir()  # cannot be read
    assert build(root, streaming=True).config.digest == ""


def test_the_videos_are_the_shards_of_a_stream(root):
    stream = build(root, streaming=True).as_streaming_dataset("train")
    assert isinstance(stream, datasets.IterableDataset)
    assert stream.num_shards == 2
    assert [row["expression"] for row in stream] == ["a dog", "a cat", "a cup"]


def test_a_malformed_entry_names_file_video_and_form(root):
    (root / "train.txt").write_text("v2: a dog\nvx: a cup\n")
    builder = build(root)
    good, bad = builder.videos()
    assert [row["expression"] for row in builder.checked_rows(*good)] == ["a dog"]
    with pytest.raises(DataError) as error:
        list(builder.checked_rows(*bad))
    for part in (str(root / "train.txt"), "video vx", "ValueError", OneFolder.form, "MeViS"):
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "is missing"),
        (b"\xff", "cannot be read"),
    ],
)
def test_text_that_cannot_be_read_is_named(root, content, problem):
    path = root / "train.txt"
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(DataError, match=f"{path} {problem}.*expected {OneFolder.form}"):
        build(root).videos()


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("{", "cannot be read .JSONDecodeError"),
        ("[]", 'has no dictionary of "videos"'),
        ('{"videos": []}', "has no dict"),
    ],
)
def test_json_that_tells_no_videos_is_named(root, content, problem):
    path = root / "meta.json"
    path.write_text(content)
    with pytest.raises(DataError, match=f"{path} {problem}"):
        build(root).read_videos(path, "a form")


def test_categories_are_optional_but_not_malformed(root):
    path = root / "meta.json"
    builder = build(root)
    assert builder.read_categories(path) == {}
    path.write_text('{"videos": {"v": {"objects": {"1": {"category": "dog", "frames": []}}}}}')
    assert builder.read_categories(path) == {"v": {"1": "dog"}}
    path.write_text('{"videos": {"v": {"objects": ["dog"]}}}')
    with pytest.raises(DataError, match=f"{path} cannot be read"):
        builder.read_categories(path)


def test_csv_rows_come_without_header_and_blank_lines(root):
    path = root / "table.csv"
    builder = build(root)
    path.write_text('video_id,query\nv,"a, b"\n\nw,c\x0bd\n')
    assert builder.read_csv(path, "a form", (2,)) == [["v", "a, b"], ["w", "c\x0bd"]]
    path.write_text("v,a\n")
    assert builder.read_csv(path, "a form", (2,), header=False) == [["v", "a"]]
    with pytest.raises(DataError, match=f"{path} has no header"):
        builder.read_csv(path, "a form", (2,))
    path.write_text("video_id,query\nv,a,b\n")
    with pytest.raises(DataError, match=f"{path} has the row .*'v', 'a', 'b'"):
        builder.read_csv(path, "a form", (2,))
    assert builder.read_csv(path, "a form", (2, 3)) == [["v", "a", "b"]]


def test_a_data_error_survives_the_way_out_of_a_process():
    error = DataError("x.json is missing: expected x", "x.zip", Path("x.json"))
    copy = pickle.loads(pickle.dumps(error))
    assert str(copy) == "x.json is missing: expected x. Official download: x.zip"
    assert (copy.finding, copy.path) == (error.finding, error.path)


def test_a_split_with_nothing_in_it_is_an_error_and_not_an_empty_table(root):
    (root / "train.txt").write_text("")
    with pytest.raises(DataError, match="train.txt has nothing of the split train: expected lines"):
        build(root).download_and_prepare()


def test_frames_are_named_as_in_the_data_set():
    assert frame_stems({"frames": ["00005.jpg", "b.c.png"], "num_frames": 2}) == ["00005", "b.c"]
    assert frame_stems({"frames": [], "num_frames": 3}) == ["00000", "00001", "00002"]
