# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
import torch
from PIL import Image

from proxyformer_hf.data.decoding import read_frames, read_masks, read_object_map
from proxyformer_hf.data.load import load_rvos_dataset
from proxyformer_hf.data.records import DataError
from proxyformer_hf.video_io import VideoWriter, read_video

sys.path.append(str(Path(__file__).resolve().parents[1] / "scripts"))
from make_fixtures import write_fixture  # noqa: E402

SPLITS = {
    "ref-youtube-vos": "train",
    "ref-davis17": "valid",
    "a2d-sentences": "test",
    "jhmdb-sentences": "test",
    "mevis": "train",
}


@pytest.fixture
def load(tmp_path):
    """Writes a data set in miniature; returns its folder and rows."""

    def write(name: str, split: str | None = None) -> tuple[Path, list[dict]]:
        root = tmp_path / name
        write_fixture(name, root)
        split = split or SPLITS[name]
        return root, list(load_rvos_dataset(name, root, split, cache_dir=tmp_path / "cache"))

    return write


@pytest.mark.parametrize("name", ["ref-youtube-vos", "ref-davis17", "jhmdb-sentences", "mevis"])
def test_frames_are_the_images_of_the_folder(load, name):
    root, rows = load(name)
    row = rows[0]
    indices = [3, 0, 3, row["num_frames"] - 1]
    frames = read_frames(root, row, indices)
    assert frames.dtype == torch.uint8 and frames.is_contiguous()
    for frame, index in zip(frames, indices, strict=True):
        with Image.open(root / row["media"] / row["frames"][index]) as image:
            np.testing.assert_array_equal(frame.permute(1, 2, 0), np.asarray(image.convert("RGB")))


def test_frames_are_those_of_the_video_file(load):
    root, rows = load("a2d-sentences")
    expected = read_video(root / rows[0]["media"])[0]
    indices = [9, 2, 2, 0]
    frames = read_frames(root, rows[0], indices)
    np.testing.assert_array_equal(frames.permute(0, 2, 3, 1), expected[indices])


def test_a_file_shorter_than_listed_repeats_its_last_frame(load):
    root, rows = load("a2d-sentences")
    expected = read_video(root / rows[0]["media"])[0]
    row = rows[0] | {"num_frames": 13}
    frames = read_frames(root, row, [12, 8, 10])
    np.testing.assert_array_equal(frames.permute(0, 2, 3, 1), expected[[9, 8, 9]])
    np.testing.assert_array_equal(read_frames(root, row, [11])[0].permute(1, 2, 0), expected[9])


@pytest.mark.parametrize("name", ["ref-youtube-vos", "ref-davis17"])
def test_palette_masks_are_the_pixels_of_the_object(load, name):
    root, rows = load(name)
    for row in rows:
        indices = range(row["num_frames"])[::-1]
        masks, annotated = read_masks(root, row, indices)
        assert masks.dtype == torch.uint8 and annotated.all()
        for mask, index in zip(masks, indices, strict=True):
            path = (root / row["masks"]["path"] / row["frames"][index]).with_suffix(".png")
            with Image.open(path) as image:
                assert image.mode == "P"
                expected = np.asarray(image) == row["object_ids"][0]
            np.testing.assert_array_equal(mask, expected)


def test_object_maps_keep_all_objects_and_void(load):
    root, rows = load("ref-davis17")
    row = next(row for row in rows if row["video_id"] == "blackswan")
    maps = read_object_map(root, row, [0, 7])
    assert maps.dtype == torch.uint8 and maps.shape[0] == 2
    with Image.open(root / row["masks"]["path"] / "00007.png") as image:
        np.testing.assert_array_equal(maps[1], np.asarray(image))
    assert maps[1].unique().tolist() == [0, 1, 2, 3, 255]


def test_grey_images_of_ids_are_read_as_ids(load):
    root, rows = load("ref-youtube-vos")
    row = rows[0]
    expected, _ = read_masks(root, row, [5])
    path = root / row["masks"]["path"] / row["frames"][5].replace("jpg", "png")
    with Image.open(path) as image:
        ids = np.array(image)
    Image.fromarray(ids).save(path)  # mode L
    assert torch.equal(read_masks(root, row, [5])[0], expected) and expected.any()


def test_h5_masks_are_transposed_and_lie_in_the_annotated_frame(load):
    root, rows = load("a2d-sentences")
    _, train_rows = load("a2d-sentences", "train")
    dimensions = set()
    for row in rows + train_rows:
        (index,) = row["annotated"]
        masks, annotated = read_masks(root, row, range(row["num_frames"]))
        assert annotated.nonzero().tolist() == [[index]]
        assert masks.shape[1:] == read_frames(root, row, [0]).shape[2:]
        with h5py.File(root / row["masks"]["path"] / f"{index + 1:05d}.h5") as file:
            dimensions.add(file["reMask"].ndim)
            instances = file["instance"][()].tolist()
            planes = file["reMask"][()] if len(instances) > 1 else file["reMask"][()][None]
            place = instances.index(row["object_ids"][0])
            np.testing.assert_array_equal(masks[index], planes[place].T)
        assert masks[index].any() and not masks[~annotated].any()
    assert dimensions == {2, 3}  # 2 where a frame has one instance


def test_an_instance_that_the_frame_lacks_has_an_empty_mask(load):
    root, rows = load("a2d-sentences")
    masks, annotated = read_masks(root, rows[0] | {"object_ids": [14]}, rows[0]["annotated"])
    assert annotated.all() and not masks.any()


def test_mat_masks_are_transposed(load):
    root, rows = load("jhmdb-sentences")
    for row in rows:
        masks, annotated = read_masks(root, row, range(row["num_frames"]))
        (index,) = row["annotated"]
        part_mask = scipy.io.loadmat(root / row["masks"]["path"])["part_mask"]  # (H, W, T)
        np.testing.assert_array_equal(masks[index], part_mask[:, :, index])
        assert masks[index].any() and annotated.sum() == annotated[index] == 1


def test_run_length_codes_without_any_object_take_the_size_of_the_frames(load):
    root, rows = load("mevis")
    row = next(row for row in rows if row["object_ids"] == [2])
    shown = read_masks(root, row, range(row["num_frames"]))[0].flatten(1).any(1)
    (absent,) = (~shown).nonzero()[0].tolist()
    masks, annotated = read_masks(root, row, [absent])
    assert masks.shape == (1, *read_frames(root, row, [0]).shape[2:])
    assert annotated.all() and not masks.any()


@pytest.mark.parametrize("name", ["ref-youtube-vos", "a2d-sentences"])
def test_rows_without_masks_have_frames_without_annotation(load, name):
    root, rows = load(name, "test")
    row = rows[0] | {"annotated": []}
    masks, annotated = read_masks(root, row, [1, 2, 3])
    assert masks.shape == (3, *read_frames(root, row, [1]).shape[2:])
    assert not masks.any() and annotated.tolist() == [False] * 3


def test_maps_are_refused_where_masks_are_no_maps(load):
    root, rows = load("mevis")
    with pytest.raises(ValueError, match="rle masks of mevis are no maps"):
        read_object_map(root, rows[0], [0])


@pytest.mark.parametrize("read", [read_frames, read_masks, read_object_map])
@pytest.mark.parametrize("index", [-1, 8])
def test_indices_outside_the_video_are_refused(load, read, index):
    root, rows = load("ref-youtube-vos")
    with pytest.raises(IndexError, match="003234408d has 8 frames"):
        read(root, rows[0], [0, index])


@pytest.mark.parametrize("damage", ["missing", "cannot be read"])
@pytest.mark.parametrize("name", SPLITS)
def test_missing_and_damaged_files_are_named(load, name, damage):
    root, rows = load(name)
    row = next(row for row in rows if row["annotated"])
    index = row["annotated"][0]
    masks = root / row["masks"]["path"]
    if row["masks"]["format"] == "palette":
        masks = masks / row["frames"][index].replace("jpg", "png")
    elif row["masks"]["format"] == "h5":
        masks = masks / f"{index + 1:05d}.h5"
    media = root / row["media"] / row["frames"][index] if row["frames"] else root / row["media"]
    for path, read in ((masks, read_masks), (media, read_frames)):
        path.unlink() if damage == "missing" else path.write_bytes(path.read_bytes()[:40])
        with pytest.raises(DataError, match=f"{path.name} .*{damage}.*expected.*Official download"):
            read(root, row, [index])


def test_colour_images_are_no_maps(load):
    root, rows = load("ref-youtube-vos")
    path = root / rows[0]["masks"]["path"] / "00000.png"
    Image.new("RGB", (96, 64)).save(path)
    with pytest.raises(DataError, match="00000.png cannot be read .*RGB.*palette image"):
        read_masks(root, rows[0], [0])


def test_frames_of_several_sizes_are_named(load):
    root, rows = load("ref-youtube-vos")
    Image.new("RGB", (10, 10)).save(root / rows[0]["media"] / "00005.jpg")
    with pytest.raises(DataError, match="003234408d holds frames of several sizes"):
        read_frames(root, rows[0], [0, 1])


def test_clips_of_any_frame_rate_are_counted_in_frames(load):
    root, rows = load("a2d-sentences")
    frames = read_video(root / rows[0]["media"])[0]
    with VideoWriter(root / rows[0]["media"], fps=7, height=64, width=112) as writer:
        for frame in frames:
            writer.write(frame)
    frame = read_frames(root, rows[0], [6])[0].permute(1, 2, 0).numpy()
    distances = np.abs(frames.astype(int) - frame).mean((1, 2, 3))
    assert distances.argmin() == 6
