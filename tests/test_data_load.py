# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
import json
import os
import shutil
import sys
from pathlib import Path

import h5py
import pytest
from torch.utils.data import DataLoader

import proxyformer_hf
from proxyformer_hf.data import mevis
from proxyformer_hf.data.load import BUILDERS, builder_class, load_rvos_dataset
from proxyformer_hf.data.records import FEATURES, DataError, RVOSBuilder

sys.path.append(str(Path(__file__).resolve().parents[1] / "scripts"))
from make_fixtures import write_fixture  # noqa: E402

SPLITS = [
    ("ref-youtube-vos", "train"),
    ("ref-youtube-vos", "valid"),
    ("ref-davis17", "valid"),
    ("ref-davis17-converted", "valid"),
    ("a2d-sentences", "test"),
    ("jhmdb-sentences", "test"),
    ("mevis", "valid_u"),
    ("refcoco", "train"),
    ("refcoco-converted", "testA"),
    ("folder", "train"),
    ("folder", "valid"),
]


@pytest.fixture
def fixture(tmp_path):
    """Writes a data set in miniature; "(unlisted)" after its name: without MTTR's lists."""

    def write(name: str) -> Path:
        root = tmp_path / name
        write_fixture(name.removesuffix(" (unlisted)"), root)
        if name.endswith("(unlisted)"):
            for path in root.glob("*_sentences_*.json"):
                path.unlink()
        return root

    return write


def load(name: str, root: Path, split: str, **options):
    name = name.removesuffix(" (unlisted)").removesuffix("-converted")
    return load_rvos_dataset(name, root, split, cache_dir=root.parent / "cache", **options)


def test_the_package_offers_the_function():
    assert proxyformer_hf.load_rvos_dataset is load_rvos_dataset


@pytest.mark.parametrize(("name", "split"), SPLITS)
def test_all_benchmarks_share_one_schema_cached_and_streamed(fixture, name, split):
    root = fixture(name)
    cached = load(name, root, split)
    streamed = load(name, root, split, streaming=True)
    assert len(cached) > 0
    assert cached.features == streamed.features == FEATURES
    assert list(streamed) == list(cached)
    keys = [(row["video_id"], row["expression_id"]) for row in cached]
    assert len(set(keys)) == len(keys)
    assert {row["benchmark"] for row in cached} == {name.removesuffix("-converted")}


def test_data_dir_may_be_relative(fixture, monkeypatch):
    root = fixture("mevis")
    monkeypatch.chdir(root.parent)
    assert list(load("mevis", Path("mevis"), "train")) == list(load("mevis", root, "train"))


def test_an_unchanged_folder_is_served_from_the_cache(fixture, monkeypatch):
    root = fixture("ref-youtube-vos")
    rows = list(load("ref-youtube-vos", root, "train"))
    monkeypatch.delattr(builder_class("ref-youtube-vos"), "videos")
    assert list(load("ref-youtube-vos", root, "train")) == rows


def replace(old: str, new: str):
    def change(path: Path) -> None:
        content = path.read_bytes()
        assert old.encode() in content
        path.write_bytes(content.replace(old.encode(), new.encode()))

    return change


def add_file(folder: Path) -> None:
    last = max(folder.iterdir())
    shutil.copy(last, last.with_stem("99999"))


def drop_first(path: Path) -> None:
    """Remove the first file of a folder, the first sample of a list, the first video."""
    if path.is_dir():
        min(path.iterdir()).unlink()
        return
    content = json.loads(path.read_text())
    if isinstance(content, list):
        content = content[1:]
    elif "images" in content:
        content["images"] = content["images"][1:]
    else:
        content["videos"].pop(next(iter(content["videos"])))
    path.write_text(json.dumps(content))


def drop_instance(path: Path) -> None:
    """Rewrite a file of A2D without its first instance, in its place."""
    with h5py.File(path, "r+") as file:
        instances = file["instance"][1:]
        del file["instance"]
        file["instance"] = instances


def drop_last_frames(folder: Path) -> None:
    for path in sorted(folder.iterdir())[4:]:
        path.unlink()


RENAME = replace('"category": "', '"category": "other ')
LISTING = "meta_expressions/valid/meta_expressions.json"
TEST_LISTING = "meta_expressions/test/meta_expressions.json"
TEXTS = "davis_text_annotations/Davis17_annot2.txt"
QUERIES = "text_annotations/a2d_annotation.txt"
MISSED = "text_annotations/a2d_missed_videos.txt"
H5 = "text_annotations/a2d_annotation_with_instances/--h5fAKYurM"
TRAIN_LIST = "a2d_sentences_single_frame_train_annotations.json"
GROUND_TRUTH = "a2d_sentences_test_annotations_in_coco_format.json"
SAMPLES = "jhmdb_sentences_samples_metadata.json"
PULLUP = "Rename_Images/pullup/100_pullups_pullup_f_nm_np1_fr_med_1"
EDITS = [  # data set, split, path, what is done to it
    ("ref-youtube-vos", "train", "meta_expressions/train/meta_expressions.json", drop_first),
    (
        "ref-youtube-vos",
        "train",
        "train/meta.json",
        RENAME,
    ),
    ("ref-youtube-vos", "valid", LISTING, drop_first),
    ("ref-youtube-vos", "valid", TEST_LISTING, replace('"00917dcfc4"', '"0062f687f1"')),
    ("ref-youtube-vos", "valid", "valid/meta_expressions.json", Path.unlink),
    ("ref-youtube-vos", "valid", "valid/Annotations", shutil.rmtree),
    ("ref-davis17", "valid", "DAVIS/ImageSets/2017/val.txt", replace("blackswan\n", "")),
    ("ref-davis17", "valid", "DAVIS/davis_semantics.json", replace('"1": "', '"1": "other ')),
    ("ref-davis17", "valid", TEXTS, replace(' "', ' "other ')),
    ("ref-davis17", "valid", "DAVIS/JPEGImages/480p/blackswan", add_file),
    ("ref-davis17", "valid", "DAVIS/Annotations_unsupervised/480p/blackswan", add_file),
    ("ref-davis17-converted", "valid", LISTING, drop_first),
    (
        "ref-davis17-converted",
        "valid",
        "valid/meta.json",
        RENAME,
    ),
    ("ref-davis17-converted", "valid", "valid/Annotations", shutil.rmtree),
    ("a2d-sentences", "train", TRAIN_LIST, drop_first),
    ("a2d-sentences", "test", GROUND_TRUTH, drop_first),
    ("a2d-sentences (unlisted)", "train", QUERIES, replace(",0,", ",0,other ")),
    ("a2d-sentences (unlisted)", "train", MISSED, replace("54DuhN4-Cj0", "_fTMYnVtUbo")),
    ("a2d-sentences (unlisted)", "train", "Release/videoset.csv", replace(",10,3,0", ",9,3,0")),
    ("a2d-sentences (unlisted)", "train", H5, drop_first),
    ("a2d-sentences (unlisted)", "train", f"{H5}/00002.h5", drop_instance),
    ("jhmdb-sentences", "test", "jhmdb_annotation.txt", replace(",", ",other ")),
    ("jhmdb-sentences", "test", SAMPLES, drop_first),
    ("jhmdb-sentences (unlisted)", "test", PULLUP, drop_last_frames),
    ("mevis", "train", "train/meta_expressions.json", drop_first),
    ("mevis", "train", "train/mask_dict.json", replace('"0": ', '   "0": ')),
    ("refcoco", "val", "refcoco/instances.json", replace("COCO_train2014", "COCO_val2014")),
    ("refcoco", "val", "refcoco/refs(unc).p", replace("the ", "one ")),
    ("refcoco-converted", "val", "refcoco/instances_refcoco_val.json", replace("the ", "one ")),
    ("folder", "train", "expressions.csv", replace("the ", "one ")),
    ("folder", "train", "masks/pond", drop_first),
    ("folder", "train", "frames/kitchen", add_file),
]


@pytest.mark.parametrize(("name", "split", "path", "change"), EDITS)
def test_a_changed_source_is_never_served_from_the_cache(fixture, name, split, path, change):
    root = fixture(name)
    before = list(load(name, root, split))
    change(root / path)
    after = list(load(name, root, split))
    assert after != before
    assert after == list(load(name, root, split, streaming=True))


def test_an_index_that_other_code_made_is_not_served(fixture, monkeypatch, tmp_path):
    root = fixture("mevis")
    before = load("mevis", root, "train")
    changed = tmp_path / "mevis.py"
    changed.write_text(Path(mevis.__file__).read_text() + "# changed\n")
    monkeypatch.setattr(mevis, "__file__", str(changed))
    after = load("mevis", root, "train")
    assert list(after) == list(before)
    assert after.cache_files != before.cache_files


LISTED = [  # data set, split, folders that the first row may list
    ("ref-youtube-vos", "train", set()),
    ("ref-youtube-vos", "valid", set()),
    (
        "ref-davis17",
        "valid",
        {f"DAVIS/{kind}/480p/bike-packing" for kind in ("JPEGImages", "Annotations_unsupervised")},
    ),
    ("ref-davis17-converted", "valid", set()),
    ("a2d-sentences", "train", set()),
    ("a2d-sentences (unlisted)", "train", {H5}),
    ("jhmdb-sentences", "test", set()),
    ("jhmdb-sentences (unlisted)", "test", {"Rename_Images", PULLUP}),
    ("mevis", "train", set()),
    ("refcoco", "train", set()),
    ("folder", "train", {"frames", "videos", "frames/pond", "masks/pond"}),
]


@pytest.mark.parametrize(("name", "split", "allowed"), LISTED)
def test_streaming_lists_no_more_than_the_folders_of_the_video(
    fixture, monkeypatch, name, split, allowed
):
    root = fixture(name)
    listed = set()

    def watch(function):
        def watched(path=".", *rest):
            listed.add(Path(path))
            return function(path, *rest)

        return watched

    for function in ("listdir", "scandir"):
        monkeypatch.setattr(os, function, watch(getattr(os, function)))
    next(iter(load(name, root, split, streaming=True)))
    inside = {str(path.relative_to(root)) for path in listed if path.is_relative_to(root)}
    assert inside == allowed


def test_streaming_is_divided_among_workers(fixture):
    root = fixture("ref-youtube-vos")
    streamed = load("ref-youtube-vos", root, "train", streaming=True)
    assert streamed.num_shards == 3  # its videos
    loader = DataLoader(streamed, batch_size=None, num_workers=2)
    rows = sorted(loader, key=lambda row: (row["video_id"], row["expression_id"]))
    assert rows == list(load("ref-youtube-vos", root, "train"))


def test_a_folder_that_is_missing_is_named_with_its_download(tmp_path):
    with pytest.raises(DataError, match="meta_expressions.zip") as error:
        load_rvos_dataset("ref-youtube-vos", tmp_path / "nowhere", "train")
    assert f"{tmp_path / 'nowhere'} is no folder" in str(error.value)


def test_a_folder_is_asked_for():
    with pytest.raises(DataError, match="needs data_dir.*henghuiding/MeViS"):
        load_rvos_dataset("mevis", split="train")


def test_unknown_names_and_splits_list_the_known_ones(tmp_path):
    with pytest.raises(ValueError, match="no data set 'davis'.*ref-davis17.*moving-shapes.*folder"):
        load_rvos_dataset("davis", tmp_path, "train")
    with pytest.raises(ValueError, match="jhmdb-sentences has no split 'train': give one of test"):
        load_rvos_dataset("jhmdb-sentences", tmp_path, "train")


def test_errors_while_indexing_are_not_wrapped_and_nothing_is_cached(fixture):
    name = "a2d-sentences (unlisted)"
    root = fixture(name)
    rows = list(load(name, root, "train", streaming=True))
    path = min((root / H5).iterdir())
    content = path.read_bytes()
    path.write_bytes(b"")
    for streaming in (False, True):
        with pytest.raises(DataError, match=f"{path.name} cannot be read"):
            list(load(name, root, "train", streaming=streaming))
    path.write_bytes(content)
    assert list(load(name, root, "train")) == rows


def test_every_name_has_a_builder_of_that_name():
    for name in BUILDERS:
        builder = builder_class(name)
        assert issubclass(builder, RVOSBuilder) and builder.benchmark == name
