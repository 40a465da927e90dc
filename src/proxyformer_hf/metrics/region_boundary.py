# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""J and F, the region similarity and the boundary accuracy of masks in videos, as DAVIS has them.

Protocols and arithmetic are those of github.com/davisvideochallenge/davis2017-evaluation, to the
last bit, but for two faults of it that are mended here: the decay over more than 256 frames (it
keeps frame numbers in uint8), and the names of unsupervised scores (it lists them in the order of
the predictions under the names of the ground truth's objects).

The work is done on bits, 64 pixels in a word: a frame of 480x854 takes 58 kB and stays in cache.
"""

import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from math import isqrt
from operator import call
from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

VOID = 255  # the id of pixels that the annotators left open
MAX_PROPOSALS = 20  # objects that an unsupervised prediction may have
TOLERANCE = 0.008  # how far apart boundaries that agree may lie, as a fraction of the diagonal


# Masks as bits: uint64 (..., height, words), the leftmost pixel of a row in the lowest bit. What
# moves out of a row ends up in a margin, which is as wide as anything moves.


def _pack(masks: np.ndarray, margin: int = 0) -> np.ndarray:
    """bool `(..., height, width)` as bits, with at least `margin` zeros behind each row."""
    words = -(-(masks.shape[-1] + margin) // 64)
    rows = np.zeros((*masks.shape[:-1], words * 8), np.uint8)
    packed = np.packbits(masks, axis=-1, bitorder="little")
    rows[..., : packed.shape[-1]] = packed
    return rows.view("<u8")


def _to_the_left(rows: np.ndarray) -> np.ndarray:
    words = rows.reshape(-1)
    shifted = words >> 1
    shifted[:-1] |= words[1:] << 63
    return shifted.reshape(rows.shape)


def _to_the_right(rows: np.ndarray) -> np.ndarray:
    words = rows.reshape(-1)
    shifted = words << 1
    shifted[1:] |= words[:-1] >> 63
    return shifted.reshape(rows.shape)


def _boundary(masks: np.ndarray, margin: int) -> np.ndarray:
    """Bits of the pixels that differ from the one to the right, below, or below to the right."""
    rows = _pack(masks, margin)
    width = masks.shape[-1]
    boundary = rows ^ _to_the_left(rows)
    boundary &= _pack(np.arange(width) < width - 1, margin)  # nothing is right of the last column
    # Where a pixel differs from the one on the diagonal, one of them differs from the one below.
    boundary[..., :-1, :] |= boundary[..., 1:, :] | (rows[..., :-1, :] ^ rows[..., 1:, :])
    return boundary


def _dilate(rows: np.ndarray, radius: int) -> np.ndarray:
    """Bits of all pixels within `radius` of one in `rows`, which have a margin as wide.

    The disk is a pile of lines: the one `distance` above and below its centre reaches
    sqrt(radius^2 - distance^2) to both sides, so that they widen from the rim inwards.
    """
    height = rows.shape[-2]
    dilated = np.zeros_like(rows)
    reach = 0
    for distance in range(min(radius, height - 1), -1, -1):
        while reach < isqrt(radius**2 - distance**2):
            rows = rows | _to_the_left(rows) | _to_the_right(rows)
            reach += 1
        dilated[..., distance:, :] |= rows[..., : height - distance, :]
        dilated[..., : height - distance, :] |= rows[..., distance:, :]
    return dilated


class _Outline(NamedTuple):
    boundary: np.ndarray
    neighbourhood: np.ndarray


def _outline(masks: np.ndarray) -> _Outline:
    """Bits of the boundaries of bool `(..., height, width)`, and of all that agrees with them."""
    radius = int(np.ceil(TOLERANCE * np.linalg.norm(masks.shape[-2:])))
    boundary = _boundary(masks, margin=radius)
    return _Outline(boundary, _dilate(boundary, radius))


def _count(rows: np.ndarray) -> np.ndarray:
    return np.bitwise_count(rows).sum((-2, -1), dtype=np.int64)


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """`part / whole`, and 1 of nothing."""
    return np.where(whole > 0, part / np.maximum(whole, 1), 1.0)


def _similarity(prediction: np.ndarray, truth: np.ndarray) -> np.ndarray:
    return _share(_count(prediction & truth), _count(prediction | truth))


def _accuracy(prediction: _Outline, truth: _Outline) -> np.ndarray:
    agreeing = _count(prediction.boundary & truth.neighbourhood)
    precision = _share(agreeing, _count(prediction.boundary))
    found = _count(truth.boundary & prediction.neighbourhood)
    recall = _share(found, _count(truth.boundary))
    total = precision + recall
    return np.where(total > 0, 2 * precision * recall / np.where(total > 0, total, 1), 0.0)


# Scores of masks


def region_similarity(
    prediction: np.ndarray, truth: np.ndarray, void: np.ndarray | None = None
) -> np.ndarray:
    """J of masks: intersection over union, in [0, 1]; 1 where both are empty.

    Args:
        prediction: bool or integer `(..., height, width)`; what is not zero is the object.
        truth: the same shape.
        void: the same shape; pixels that count neither for nor against the prediction.

    Returns:
        float64 `(...)`.
    """
    prediction, truth = binary_masks(prediction, truth, void)
    return _similarity(_pack(prediction), _pack(truth))[()]


def boundary_accuracy(
    prediction: np.ndarray, truth: np.ndarray, void: np.ndarray | None = None
) -> np.ndarray:
    """F of masks: the harmonic mean of precision and recall of their boundaries, in [0, 1].

    A boundary pixel counts as right if one of the other boundary is no further than
    ceil(0.008 * diagonal) pixels away. F is 1 if neither mask has a boundary, and 0 if only one
    has. A mask that fills the frame has none, so that it agrees with an empty one.

    Args and returns are those of `region_similarity`.
    """
    prediction, truth = binary_masks(prediction, truth, void)
    *leading, height, width = truth.shape
    frames = zip(
        prediction.reshape(-1, height, width), truth.reshape(-1, height, width), strict=True
    )  # one by one, as a whole video would not stay in cache
    scores = [_accuracy(_outline(mask), _outline(target)) for mask, target in frames]
    return np.array(scores, np.float64).reshape(leading)[()]


def binary_masks(
    prediction: np.ndarray, truth: np.ndarray, void: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Masks of one shape `(..., height, width)`, bool or integer, as bool and without void pixels.

    Raises:
        ValueError: shapes differ, or a mask is of another kind.
    """
    masks = {"prediction": np.asarray(prediction), "truth": np.asarray(truth)}
    if void is not None:
        masks["void"] = np.asarray(void)
    for name, mask in masks.items():
        if mask.dtype.kind not in "biu":
            raise ValueError(f"{name} must be bool or integers, not {mask.dtype}: use a threshold")
        if mask.shape != masks["truth"].shape or mask.ndim < 2 or 0 in mask.shape[-2:]:
            shapes = ", ".join(f"{name} {mask.shape}" for name, mask in masks.items())
            raise ValueError(f"masks must have one shape (..., height, width), got {shapes}")
    prediction, truth, *void = (mask.astype(bool, copy=False) for mask in masks.values())
    if void:
        return prediction & ~void[0], truth & ~void[0]
    return prediction, truth


class Statistics(NamedTuple):
    """Of J or F over the frames of one object.

    Attributes:
        mean: over the frames.
        recall: the share of the frames above 0.5.
        decay: the mean of the first quarter of the frames minus the mean of the last.
    """

    mean: float
    recall: float
    decay: float


def statistics(values: np.ndarray) -> Statistics:
    """Mean, recall and decay of the `(num_frames,)` values of one object."""
    values = np.asarray(values)
    if values.ndim != 1 or values.size == 0 or not np.isfinite(values).all():
        raise ValueError(f"values must be finite, (num_frames,), at least one frame; got {values}")
    ends = np.round(np.linspace(1, len(values), 5) + 1e-10).astype(int)
    first, last = values[: ends[1]], values[ends[3] - 1 :]
    return Statistics(
        float(np.mean(values)), float(np.mean(values > 0.5)), float(np.mean(first) - np.mean(last))
    )


# Scores of sequences


class SequenceScores(NamedTuple):
    """J and F of every object of a sequence, in the order of the ground truth.

    Attributes:
        region: J, float64 `(num_objects, num_frames)`.
        boundary: F, the same shape.
        prediction_ids: int `(num_objects,)`, the id in the prediction that each object was compared
            with; an id that the prediction does not use is an empty mask.
    """

    region: np.ndarray
    boundary: np.ndarray
    prediction_ids: np.ndarray


def object_scores(prediction: np.ndarray, truth: np.ndarray) -> SequenceScores:
    """J and F of one object's masks, bool or integer `(num_frames, height, width)`, in all frames
    and without void, which MeViS and per-expression scores on Ref-DAVIS17 average."""
    region = region_similarity(prediction, truth)
    boundary = boundary_accuracy(prediction, truth)
    if region.ndim != 1 or region.size == 0:
        raise ValueError(
            f"masks must be (num_frames, height, width), num_frames > 0, got {np.shape(truth)}"
        )
    return SequenceScores(region[None], boundary[None], np.array([1]))


def semi_supervised_scores(prediction_map: np.ndarray, truth_map: np.ndarray) -> SequenceScores:
    """J and F of a sequence in the semi-supervised protocol of DAVIS 2017.

    An object has the same id in both maps; objects are the ids up to the highest one in the first
    frame. The first frame, which would be given, and the last one do not count. Void counts as
    background.

    Args:
        prediction_map: object ids in 0...255, 0 for the background, `(num_frames, height, width)`.
        truth_map: the same shape; 255 is void.

    Raises:
        ValueError: the prediction has an id without object, or there are less than three frames.
    """
    prediction_map, truth_map = _id_maps(prediction_map, truth_map)
    objects = _object_ids(truth_map)
    prediction_map, truth_map = prediction_map[1:-1], truth_map[1:-1]
    if len(truth_map) == 0:
        raise ValueError("semi-supervised scores leave out the first and last frame: none remains")
    if prediction_map.max() > len(objects):
        raise ValueError(
            f"the prediction has the id {prediction_map.max()}, but the first frame of the ground "
            f"truth has {len(objects)} objects: semi-supervised ids must match"
        )
    frames = zip(_separate(prediction_map, objects), _separate(truth_map, objects), strict=True)
    scores = [(region_similarity(*masks), boundary_accuracy(*masks)) for masks in frames]
    region, boundary = np.ascontiguousarray(np.moveaxis(scores, 0, -1))
    return SequenceScores(region, boundary, objects)


def unsupervised_scores(prediction_map: np.ndarray, truth_map: np.ndarray) -> SequenceScores:
    """J and F of a sequence in the unsupervised protocol of DAVIS 2019, by which numbers on
    Ref-DAVIS17 are published.

    All frames count, void pixels do not. Ids of the prediction are free: its objects are matched
    with those of the ground truth (the ids up to the highest one in its first frame) so that the
    mean of J and F is highest in sum. Objects without a partner are compared with empty masks.

    Args:
        prediction_map: object ids in 0...20, 0 for the background, `(num_frames, height, width)`.
        truth_map: the same shape; 255 is void.

    Raises:
        ValueError: the prediction has an id above 20.
    """
    prediction_map, truth_map = _id_maps(prediction_map, truth_map)
    num_proposals = int(prediction_map.max())
    if num_proposals > MAX_PROPOSALS:
        raise ValueError(
            f"the prediction has the id {num_proposals}: in the unsupervised protocol it may have "
            f"{MAX_PROPOSALS} objects"
        )
    objects = _object_ids(truth_map)
    proposals = np.arange(1, max(num_proposals, len(objects)) + 1)
    region = np.empty((len(proposals), len(objects), len(truth_map)))
    boundary = np.empty_like(region)
    prediction_map = np.where(truth_map == VOID, 0, prediction_map)
    frames = zip(_separate(prediction_map, proposals), _separate(truth_map, objects), strict=True)
    for frame, (masks, targets) in enumerate(frames):
        rows, outlines = _pack(masks), _outline(masks)
        for index, target in enumerate(targets):
            region[:, index, frame] = _similarity(rows, _pack(target))
            boundary[:, index, frame] = _accuracy(outlines, _outline(target))
    matches, owners = linear_sum_assignment(-(region.mean(2) + boundary.mean(2)) / 2)
    matches = matches[np.argsort(owners)]
    pairs = matches, np.arange(len(objects))
    return SequenceScores(region[pairs], boundary[pairs], proposals[matches])


def _id_maps(prediction_map: np.ndarray, truth_map: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as uint8."""
    maps = np.asarray(prediction_map), np.asarray(truth_map)
    shapes = [ids.shape for ids in maps]
    if shapes[0] != shapes[1] or len(shapes[0]) != 3 or 0 in shapes[0]:
        raise ValueError(
            "id maps must have one shape (num_frames, height, width) without zeros, "
            f"got prediction {shapes[0]}, truth {shapes[1]}"
        )
    return as_ids(maps[0]), as_ids(maps[1])


def as_ids(id_map: np.ndarray) -> np.ndarray:
    """The same as uint8.

    Raises:
        ValueError: it is not of integers in 0...255.
    """
    if id_map.dtype.kind not in "biu" or id_map.min() < 0 or id_map.max() > 255:
        raise ValueError(
            "id maps must be integers in 0...255, "
            f"got {id_map.dtype} in {id_map.min()}...{id_map.max()}"
        )
    return id_map.astype(np.uint8)


def _object_ids(truth_map: np.ndarray) -> np.ndarray:
    first = truth_map[0]
    return np.arange(1, int(np.max(first, where=first != VOID, initial=0)) + 1)


def _separate(id_map: np.ndarray, ids: np.ndarray) -> Iterator[np.ndarray]:
    """The objects' masks frame by frame, bool `(num_objects, height, width)`."""
    ids = ids.astype(np.uint8)[:, None, None]  # comparing unlike integers takes far longer
    return (frame == ids for frame in id_map)


# Scores of a benchmark


def score_sequences(
    sequences: Iterable[Callable[[], SequenceScores]], num_workers: int = 0
) -> Iterator[SequenceScores]:
    """Scores of many sequences in their order, as they come.

    Args:
        sequences: calls without arguments, each of which reads a sequence and returns its scores.
            Workers get them pickled, so let them carry paths rather than frames:
            `functools.partial(read_and_score, path)`.
        num_workers: processes; with 0 it is this one that works. They import the script that is
            run, which therefore has to guard its work by `if __name__ == "__main__"`.
    """
    if num_workers == 0:
        yield from map(call, sequences)
        return
    with ProcessPoolExecutor(num_workers, _clean_context()) as pool:
        yield from pool.map(call, sequences)


def _clean_context() -> multiprocessing.context.BaseContext:
    """Makes processes that are no forks of this one: forks of torch's threads may hang."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])  # imported once for all workers
    return context


def summarize(sequences: Iterable[SequenceScores]) -> dict[str, float]:
    """The official results of a benchmark: means over the objects (not the sequences) of all.

    Returns:
        fractions: `J&F-Mean`, which is the mean of `J-Mean` and `F-Mean`; `J-Mean`, `J-Recall`,
        `J-Decay`, `F-Mean`, `F-Recall`, `F-Decay`.
    """
    statistics_of = {"J": [], "F": []}
    for scores in sequences:
        # Sums depend on their order in the last bit: the official one is the predictions'.
        for index in np.argsort(scores.prediction_ids):
            statistics_of["J"].append(statistics(scores.region[index]))
            statistics_of["F"].append(statistics(scores.boundary[index]))
    if not statistics_of["J"]:
        raise ValueError("there is no object to score")
    results = {
        f"{name}-{field.capitalize()}": float(np.mean([getattr(row, field) for row in rows]))
        for name, rows in statistics_of.items()
        for field in Statistics._fields
    }
    return {"J&F-Mean": (results["J-Mean"] + results["F-Mean"]) / 2, **results}
