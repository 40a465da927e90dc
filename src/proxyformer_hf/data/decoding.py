# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""From a row to tensors: the frames and masks that a row of data/records.py refers to.

Plain functions without state: files are opened, read and closed, so that a worker's memory does
not grow.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import scipy.io
import torch
from PIL import Image
from pycocotools import mask as rle

from ..video_io import iter_frames, probe_video
from .moving_shapes import render_frames, render_masks, render_object_map
from .records import Row, data_error, frame_stems, reading


def read_frames(data_dir: str | Path | None, row: Row, indices: Sequence[int]) -> torch.Tensor:
    """Frames of a row's video.

    Args:
        data_dir: the folder that the row's paths are relative to; `None` for moving-shapes.
        row: a row of data/records.py.
        indices: frame indices, counted from 0, in any order, repeated or not; at least one.

    Returns:
        uint8 RGB `(T, 3, height, width)`. A video file that holds fewer frames than A2D's list
        tells repeats its last one, as the baselines do.

    Raises:
        DataError: a file is missing or cannot be decoded.
        IndexError: an index is outside the video.
    """
    _check_indices(row, indices)
    if row["masks"]["format"] == "moving-shapes":
        return render_frames(row, indices)
    media = Path(data_dir, row["media"])
    if row["frames"]:
        read = {i: _read_image(row, media / row["frames"][i], "RGB") for i in {*indices}}
        if len({frame.shape for frame in read.values()}) > 1:
            raise data_error(row["benchmark"], media, "holds frames of several sizes", "one size")
    else:
        read = _read_clip(row, media, indices)
    frames = np.stack([read[i] for i in indices])
    return torch.from_numpy(frames).permute(0, 3, 1, 2).contiguous()


def read_masks(
    data_dir: str | Path | None, row: Row, indices: Sequence[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Masks of what a row's expression means: the union of its objects.

    Args: see [`read_frames`].

    Returns:
        `masks`: uint8 `(T, height, width)` of 0 and 1; 0 throughout where the object is not shown
            and where the frame is not annotated.
        `annotated`: bool `(T,)`, which of the two.

    Raises:
        DataError: a file is missing or cannot be decoded.
        IndexError: an index is outside the video.
    """
    _check_indices(row, indices)
    if row["masks"]["format"] == "moving-shapes":
        return render_masks(row, indices)
    known = set(row["annotated"])
    annotated = torch.tensor([i in known for i in indices])
    if not annotated.any():
        masks = torch.zeros(len(indices), *_frame_size(data_dir, row), dtype=torch.uint8)
        return masks, annotated
    read = READERS[row["masks"]["format"]]
    found = torch.from_numpy(read(data_dir, row, [i for i in indices if i in known]))
    masks = torch.zeros(len(indices), *found.shape[1:], dtype=torch.uint8)
    masks[annotated] = found.to(torch.uint8)
    return masks, annotated


def read_object_map(data_dir: str | Path | None, row: Row, indices: Sequence[int]) -> torch.Tensor:
    """All objects of a video, whatever the row's expression means.

    Args: see [`read_frames`].

    Returns:
        uint8 `(T, height, width)` of object ids: 0 is the background, 255 (void) is kept.

    Raises:
        DataError: a file is missing or cannot be decoded.
        ValueError: the masks of the benchmark are not maps of objects.
    """
    _check_indices(row, indices)
    if row["masks"]["format"] == "moving-shapes":
        return render_object_map(row, indices)
    if row["masks"]["format"] != "palette":
        raise ValueError(f"the {row['masks']['format']} masks of {row['benchmark']} are no maps")
    return torch.from_numpy(_object_maps(data_dir, row, indices))


def _object_maps(data_dir: str | Path, row: Row, indices: Sequence[int]) -> np.ndarray:
    folder, stems = Path(data_dir, row["masks"]["path"]), frame_stems(row)
    maps = [_read_image(row, folder / f"{stems[i]}.png") for i in indices]
    if len({ids.shape for ids in maps}) > 1:
        raise data_error(row["benchmark"], folder, "holds masks of several sizes", "one size")
    return np.stack(maps)


def _palette_masks(data_dir: str | Path, row: Row, indices: Sequence[int]) -> np.ndarray:
    maps = _object_maps(data_dir, row, indices)
    return np.isin(maps, row["object_ids"]) if row["object_ids"] else maps > 0


def _h5_masks(data_dir: str | Path, row: Row, indices: Sequence[int]) -> np.ndarray:
    masks = []
    for i in indices:
        path = Path(data_dir, row["masks"]["path"], f"{i + 1:05d}.h5")
        with (
            reading(row["benchmark"], path, "an h5 file with instance and reMask"),
            h5py.File(path) as file,
        ):
            instances = file["instance"][()].reshape(-1)
            # (n, width, height), or (width, height) where the frame has one instance.
            planes = file["reMask"][()].reshape(len(instances), *file["reMask"].shape[-2:])
            meant = np.isin(instances, row["object_ids"])
            masks.append(planes[meant].any(0).T)
    return np.stack(masks)


def _mat_masks(data_dir: str | Path, row: Row, indices: Sequence[int]) -> np.ndarray:
    path = Path(data_dir, row["masks"]["path"])
    with reading(row["benchmark"], path, "a MATLAB file with part_mask (height, width, frames)"):
        with path.open("rb") as file:
            return scipy.io.loadmat(file)["part_mask"].transpose(2, 0, 1)[list(indices)] > 0


def _rle_masks(data_dir: str | Path, row: Row, indices: Sequence[int]) -> np.ndarray:
    path = Path(data_dir, row["masks"]["path"])
    with reading(
        row["benchmark"], path, "a code or null for each frame at the places that the index tells"
    ):
        codes = []
        with path.open("rb") as file:
            for start, stop in row["masks"]["spans"]:
                file.seek(start)
                of_annotation = json.loads(file.read(stop - start).rstrip(b" \t\r\n,}"))
                codes.append([of_annotation[i] for i in indices])
        sizes = [code["size"] for frames in codes for code in frames if code]
        masks = np.zeros((len(indices), *(sizes[0] if sizes else _frame_size(data_dir, row))), bool)
        for frames in codes:
            for mask, code in zip(masks, frames, strict=True):
                if code:
                    mask |= rle.decode(code).astype(bool)
    return masks


def _coco_masks(data_dir: str | Path, row: Row, indices: Sequence[int]) -> np.ndarray:
    """The one mask of an image, as often as it is asked for."""
    path = Path(data_dir, row["masks"]["path"])
    expected = "a segmentation of COCO's form: polygons, or a run-length code"
    with reading(row["benchmark"], path, expected):
        annotation = json.loads(row["masks"]["keys"][0])
        code = annotation["segmentation"]
        if isinstance(code, list) or isinstance(code["counts"], list):  # else it is compressed
            code = rle.frPyObjects(code, *annotation["size"])
        mask = rle.decode(rle.merge(code) if isinstance(code, list) else code)
    return np.repeat(mask[None], len(indices), axis=0)


READERS = {  # format -> bool (T, height, width) of annotated frames
    "palette": _palette_masks,
    "h5": _h5_masks,
    "mat": _mat_masks,
    "rle": _rle_masks,
    "coco": _coco_masks,
}


def _check_indices(row: Row, indices: Sequence[int]) -> None:
    outside = [i for i in indices if not 0 <= i < row["num_frames"]]
    if outside:
        raise IndexError(
            f"video {row['video_id']} has {row['num_frames']} frames: {outside} are outside"
        )


def _read_image(row: Row, path: Path, mode: str | None = None) -> np.ndarray:
    """RGB pixels, or without `mode` the values of a palette or grey image as they stand."""
    expected = "an RGB frame" if mode else "a palette image of object ids"
    with reading(row["benchmark"], path, expected), Image.open(path) as image:
        if mode is None and image.mode not in ("P", "L", "1"):
            raise ValueError(f"its mode is {image.mode}")
        return np.array(image.convert(mode) if mode else image, dtype=np.uint8)


def _read_clip(row: Row, path: Path, indices: Sequence[int]) -> dict[int, np.ndarray]:
    with reading(row["benchmark"], path, "a video file"):
        frames = dict(iter_frames(path, frame_indices=sorted(set(indices))))
        beyond = set(indices) - frames.keys()
        if beyond:
            last = probe_video(path).num_frames - 1
            frames |= dict.fromkeys(beyond, next(iter_frames(path, frame_indices=[last]))[1])
    return frames


def _frame_size(data_dir: str | Path, row: Row) -> tuple[int, int]:
    """(height, width)."""
    if not row["frames"]:
        return read_frames(data_dir, row, [0]).shape[-2:]
    path = Path(data_dir, row["media"], row["frames"][0])
    with reading(row["benchmark"], path, "an RGB frame"), Image.open(path) as image:
        return image.height, image.width
