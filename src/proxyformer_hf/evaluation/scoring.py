# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""Scores of predictions on disk, whoever made them. Neither a model nor its code is needed."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ..data.decoding import read_masks, read_object_map
from ..data.records import Row, frame_stems
from ..metrics.mask_map import Detections, mask_map
from ..metrics.mask_precision import best_query, intersection_and_union, mask_precision
from ..metrics.region_boundary import (
    SequenceScores,
    object_scores,
    score_sequences,
    summarize,
    unsupervised_scores,
)
from .predictions import (
    INDEX,
    annotator_folder,
    decode_mask,
    encode_mask,
    expression_folder,
    key_of,
    load_rows,
    masks_folder,
    read_ids,
    read_index,
)
from .protocols import ExpressionMasks, FrameDetections, MergedObjects, Protocol

MAX_NAMES = 10  # of missing predictions in a message
NO_EXPRESSION = {"expression_id": "", "expression": ""}


class MasksNotPublic(ValueError):
    """A split cannot be scored here."""


@dataclass
class Item:
    """One of what a benchmark averages: an expression; on Ref-DAVIS17 an object of an annotator.

    Attributes:
        row: of the expression.
        scores: in percent; the first one tells good from bad.
        annotator: from 0; `None` for an expression.
        object_id: in the ground truth; `None` for an expression.
    """

    row: Row
    scores: dict[str, float]
    annotator: int | None = None
    object_id: int | None = None


@dataclass
class Evaluation:
    """A benchmark's scores, in percent as papers give them.

    Attributes:
        protocol, split: what was scored and how.
        scores: by name.
        items: what they are means of.
        absent: videos without predictions, which scored 0.
    """

    protocol: Protocol
    split: str
    scores: dict[str, float]
    items: list[Item]
    absent: Sequence[str] = ()


def score(
    protocol: Protocol,
    data_dir: str | Path | None,
    predictions_dir: str | Path,
    split: str | None = None,
    num_workers: int = 0,
) -> Evaluation:
    """Score the predictions of a split.

    Args:
        protocol: one of protocols.py.
        data_dir: the benchmark's folder (`None` for moving-shapes).
        predictions_dir: laid out as predictions.py tells.
        split: default: the protocol's.
        num_workers: processes that share the sequences; 0: this one does all.

    Raises:
        MasksNotPublic: the split has no masks.
        ValueError: predictions are missing, which are named, or are no masks of the videos' size.
    """
    root, split = Path(predictions_dir), split or protocol.split
    rows = rows_with_masks(protocol, data_dir, split)
    if not root.is_dir():
        raise ValueError(f"{root} is no folder: expected predictions for {protocol.benchmark}")
    absent = []
    if isinstance(protocol, FrameDetections):
        scores, items = score_detections(protocol, data_dir, root, rows)
    elif isinstance(protocol, MergedObjects):
        scores, items = score_object_maps(protocol, data_dir, root, rows, num_workers)
    else:
        masks = masks_folder(root)
        if protocol.absent_video_is_zero:
            absent = absent_videos(masks, rows)
        scores, items = score_masks(data_dir, masks, rows, absent, num_workers)
    return Evaluation(protocol, split, percent(scores), items, absent)


def rows_with_masks(protocol: Protocol, data_dir: str | Path | None, split: str) -> list[Row]:
    rows = load_rows(protocol, data_dir, split)
    without = [row for row in rows if not row["annotated"]]
    if without:
        raise MasksNotPublic(
            f"{protocol.benchmark} {split} cannot be scored here: {data_dir} has no masks for "
            f"{len(without)} of its {len(rows)} expressions"
        )
    return rows


def absent_videos(masks: Path, rows: list[Row]) -> list[str]:
    videos = dict.fromkeys(row["video_id"] for row in rows)
    absent = [video for video in videos if not (masks / video).is_dir()]
    if len(absent) == len(videos):
        raise ValueError(f"{masks} lacks predictions: {listed(absent)}")
    return absent


def score_masks(
    data_dir: str | Path | None,
    masks: Path,
    rows: list[Row],
    absent: Sequence[str],
    num_workers: int,
) -> tuple[dict[str, float], list[Item]]:
    """J and F of each expression in all annotated frames; 0 in the videos `absent`."""
    present = [row for row in rows if row["video_id"] not in absent]
    check_files(masks, [(expression_folder(masks, row), row) for row in present])
    calls = [
        partial(score_expression, data_dir, expression_folder(masks, row), row)
        if row["video_id"] not in absent
        else zero_scores
        for row in rows
    ]
    scores = score_all(calls, num_workers)
    items = [Item(row, object_means(found, 0)) for row, found in zip(rows, scores, strict=True)]
    return summarize(scores), items


def score_expression(data_dir: str | Path | None, folder: Path, row: Row) -> SequenceScores:
    truth, _ = read_masks(data_dir, row, row["annotated"])
    prediction = read_values(folder, row, row["annotated"], truth.shape)
    return object_scores(prediction != 0, truth.numpy())


def zero_scores() -> SequenceScores:
    return SequenceScores(np.zeros((1, 1)), np.zeros((1, 1)), np.array([1]))


def score_object_maps(
    protocol: MergedObjects,
    data_dir: str | Path | None,
    root: Path,
    rows: list[Row],
    num_workers: int,
) -> tuple[dict[str, float], list[Item]]:
    """J and F of the objects of each annotator and video: the mean of the annotators' means."""
    videos = {row["video_id"]: row for row in rows}
    maps = [
        (annotator, row, annotator_folder(root, annotator, row))
        for annotator in range(protocol.annotators)
        for row in videos.values()
    ]
    check_files(root, [(folder, row) for _, row, folder in maps])
    calls = [partial(score_object_map, data_dir, folder, row) for _, row, folder in maps]
    scores = score_all(calls, num_workers)
    of_annotators = [
        summarize(scores[start : start + len(videos)]) for start in range(0, len(maps), len(videos))
    ]
    means = {name: float(np.mean([of[name] for of in of_annotators])) for name in of_annotators[0]}
    answered = {key_of(row): row for row in rows}
    items = []
    for (annotator, row, _), found in zip(maps, scores, strict=True):
        for index, prediction_id in enumerate(found.prediction_ids.tolist()):
            # Id k + 1 answers expression 4 k + a. One above those in use was left without answer.
            key = row["video_id"], str(protocol.annotators * (prediction_id - 1) + annotator)
            said = answered.get(key, row | NO_EXPRESSION)
            items.append(Item(said, object_means(found, index), annotator, index + 1))
    return means, items


def score_object_map(data_dir: str | Path | None, folder: Path, row: Row) -> SequenceScores:
    truth = read_object_map(data_dir, row, row["annotated"])
    prediction = read_values(folder, row, row["annotated"], truth.shape)
    return unsupervised_scores(prediction, truth.numpy())


def score_detections(
    protocol: FrameDetections, data_dir: str | Path | None, root: Path, rows: list[Row]
) -> tuple[dict[str, float], list[Item]]:
    """COCO's mAP of the detections; precision at K and IoU of the best one of each frame."""
    entries = read_index(root)
    missing = [" ".join(key_of(row)) for row in rows if key_of(row) not in entries]
    if missing:
        raise ValueError(f"{root / INDEX} lacks predictions: {listed(missing)}")
    truths, detections, areas = {}, [], []
    for row in tqdm(rows, "scoring", unit="frame", disable=None):
        (truth,), _ = read_masks(data_dir, row, row["annotated"])
        entry = checked_detections(entries[key_of(row)], list(truth.shape), root)
        best_score, best_mask = best_detection(entry)
        queries = entry["scores"], entry["masks"]
        if protocol.detections == "best":
            queries = [best_score], [best_mask]
        truths[image_id(row)] = encode_mask(truth.numpy())
        detections.append(Detections(image_id(row), *queries))
        areas.append(intersection_and_union(decode_mask(best_mask), truth.numpy()))
    average_precision = mask_map(truths, detections)
    found = {name: value for name, value in average_precision.items() if value >= 0}  # -1: of none
    items = [
        Item(row, percent({"IoU": mask_precision([intersection], [union])["mean_iou"]}))
        for row, (intersection, union) in zip(rows, areas, strict=True)
    ]
    return found | mask_precision(*zip(*areas, strict=True)), items


def checked_detections(entry: dict[str, Any], size: list[int], root: Path) -> dict[str, Any]:
    """The entry, after a check that it is whole and that its masks are (height, width) `size`."""
    masks, scores = entry.get("masks", []), entry.get("scores", [])
    is_whole = 0 < len(masks) == len(scores)
    if "answer" in entry:
        is_whole, masks = is_whole and "score" in entry, [*masks, entry["answer"]]
    if not is_whole or any(list(mask["size"]) != size for mask in masks):
        raise ValueError(
            f"{root / INDEX} at {entry['video_id']} {entry['expression_id']}: expected scores and "
            f"as many masks, run-length codes of the size {size} (height, width)"
        )
    return entry


def best_detection(entry: dict[str, Any]) -> tuple[float, dict[str, Any]]:
    """Score and mask of the model's answer, or of the query with the highest score."""
    if "answer" in entry:
        return entry["score"], entry["answer"]
    best = best_query(entry["scores"])
    return entry["scores"][best], entry["masks"][best]


def image_id(row: Row) -> str:
    """The name of a row's frame (and instance) in the published ground truth."""
    name = f"v_{row['video_id']}_f_{row['annotated'][0] + 1}"
    return f"{name}_i_{row['object_ids'][0]}" if row["benchmark"] == "a2d-sentences" else name


def read_example(
    protocol: Protocol, data_dir: str | Path | None, root: Path, item: Item
) -> tuple[int, np.ndarray, np.ndarray]:
    """Where an item's object is largest: the frame's index, and object ids `(height, width)` of
    the ground truth and of the prediction, 0 and 1 where an item is an expression."""
    row, frames = item.row, item.row["annotated"]
    if isinstance(protocol, MergedObjects):
        truth = read_object_map(data_dir, row, frames).numpy()
        folder = annotator_folder(root, item.annotator, row)
    else:
        truth = read_masks(data_dir, row, frames)[0].numpy()
        folder = expression_folder(masks_folder(root), row)
    place = int((truth == (item.object_id or 1)).sum((1, 2)).argmax())
    truth = truth[place]
    if isinstance(protocol, FrameDetections):
        prediction = decode_mask(best_detection(read_index(root)[key_of(row)])[1])
    elif not folder.is_dir():
        prediction = np.zeros_like(truth)
    else:
        (prediction,) = read_values(folder, row, [frames[place]], (1, *truth.shape))
        if isinstance(protocol, ExpressionMasks):
            prediction = (prediction != 0).astype(np.uint8)
    return frames[place], truth, prediction


def score_all(calls: list[Callable[[], SequenceScores]], num_workers: int) -> list[SequenceScores]:
    found = score_sequences(calls, num_workers)
    return list(tqdm(found, "scoring", len(calls), unit="sequence", disable=None))


def read_values(folder: Path, row: Row, frames: Sequence[int], shape: Sequence[int]) -> np.ndarray:
    """Pixel values of predictions, uint8, of the ground truth's `shape` (T, height, width)."""
    values, stems = np.empty(shape, np.uint8), frame_stems(row)
    for position, frame in enumerate(frames):
        path = folder / f"{stems[frame]}.png"
        found = read_ids(path)
        if found.shape != values.shape[1:]:
            raise ValueError(
                f"{path} has {found.shape[1]}x{found.shape[0]} pixels and the ground truth "
                f"{shape[2]}x{shape[1]}: a prediction has the size of its video"
            )
        values[position] = found
    return values


def check_files(root: Path, expected: Sequence[tuple[Path, Row]]) -> None:
    """Raises `ValueError` with the names of folders that are absent, and of frames that others
    lack, which are to have all annotated frames of a row's video."""
    missing: dict[Path, list[str]] = {}
    for folder, row in expected:
        if not folder.parent.is_dir():
            missing[folder.parent] = []
            continue
        found = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
        stems = frame_stems(row)
        names = [stems[frame] for frame in row["annotated"] if f"{stems[frame]}.png" not in found]
        if names:
            missing[folder] = names if found else []
    if missing:
        raise ValueError(
            f"{root} lacks predictions: "
            + listed(
                f"{folder.relative_to(root)}" + (f" (frames {listed(names)})" if names else "")
                for folder, names in missing.items()
            )
        )


def listed(names: Iterable[str]) -> str:
    """A few names and the number of the others."""
    names = list(names)
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return ", ".join(names[:MAX_NAMES]) + more


def object_means(scores: SequenceScores, index: int) -> dict[str, float]:
    """J&F, J and F of an object in percent, means over its frames."""
    region, boundary = scores.region[index].mean(), scores.boundary[index].mean()
    return percent({"J&F": (region + boundary) / 2, "J": region, "F": boundary})


def percent(scores: dict[str, float]) -> dict[str, float]:
    return {name: 100 * float(value) for name, value in scores.items()}
