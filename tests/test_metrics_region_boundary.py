# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""J and F against a brute force, and against the official code.

What is named OFFICIAL was computed by davis2017-evaluation (commit ac7c43f; numpy 2.4, scikit-image
0.26, OpenCV 5.0) on masks of the recipes here, which are exact: integers and real annotations.
"""

import hashlib
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from proxyformer_hf.masks import load_mask
from proxyformer_hf.metrics.region_boundary import (
    SequenceScores,
    boundary_accuracy,
    object_scores,
    region_similarity,
    score_sequences,
    semi_supervised_scores,
    statistics,
    summarize,
    unsupervised_scores,
)

ANNOTATIONS = Path(__file__).parents[2] / "shared/data/davis16_train_240p/Annotations"


def ellipse(size: tuple[int, int], centre: tuple[int, int], radii: tuple[int, int]) -> np.ndarray:
    y, x = np.ogrid[: size[0], : size[1]]
    (cy, cx), (ry, rx) = centre, radii
    return ((y - cy) * rx) ** 2 + ((x - cx) * ry) ** 2 <= (ry * rx) ** 2


def speckles(size: tuple[int, int], modulus: int, below: int) -> np.ndarray:
    y, x = np.ogrid[: size[0], : size[1]]
    return (3 * x * x + 5 * y * y + 7 * x * y) % modulus < below


def cases() -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray | None]]:
    """Prediction, truth and void pixels by name."""
    frame = (480, 854)
    empty = np.zeros(frame, bool)
    full = ~empty
    blob = ellipse(frame, (200, 400), (90, 140))
    near = ellipse(frame, (206, 411), (93, 131))
    corner, beside = empty.copy(), empty.copy()
    corner[479, 853] = beside[474, 847] = True
    band = empty.copy()
    band[:, 380:470] = True
    right, bottom = empty.copy(), empty.copy()
    right[:, 500:], bottom[200:] = True, True
    cut_off = ellipse(frame, (0, 853), (120, 200))
    return {
        "ellipses": (near, blob, None),
        "8 pixels apart": (np.roll(blob, 8, 0), blob, None),
        "9 pixels apart": (np.roll(blob, 9, 0), blob, None),
        "nothing in common": (np.roll(blob, 300, 1), blob, None),
        "ellipses, void band": (near, blob, band),
        "void all over": (near, blob, full),
        "void hides the prediction": (band, blob & ~band, band),
        "both empty": (empty, empty, None),
        "empty prediction": (empty, blob, None),
        "empty truth": (blob, empty, None),
        "full prediction": (full, blob, None),
        "full truth, empty prediction": (empty, full, None),
        "both full": (full, full, None),
        "one pixel in the corner": (corner, beside, None),
        "pixels 8 apart": (np.roll(beside, -8, 1), beside, None),
        "pixels 9 apart": (np.roll(beside, -9, 1), beside, None),
        "halves": (right, bottom, None),
        "cut off by the corner": (np.roll(cut_off, 20, 0), cut_off, None),
        "speckles": (speckles(frame, 97, 3), speckles(frame, 101, 2), None),
        "speckles, void speckles": (
            speckles(frame, 97, 3),
            speckles(frame, 101, 2),
            speckles(frame, 7, 2),
        ),
        "one row": (speckles((1, 900), 13, 5), speckles((1, 900), 31, 9), None),
        "one column": (speckles((900, 1), 13, 5), speckles((900, 1), 31, 9), None),
        "one pixel": (np.ones((1, 1), bool), np.zeros((1, 1), bool), None),
        "a radius of 4.0": (
            ellipse((300, 400), (150, 204), (50, 60)),
            ellipse((300, 400), (150, 200), (50, 60)),
            None,
        ),
        "rows of two words": (speckles((64, 127), 11, 2), speckles((64, 127), 17, 2), None),
        "rows of full words": (speckles((64, 128), 11, 2), speckles((64, 128), 17, 2), None),
    }


OFFICIAL = {  # J and F
    "ellipses": (0.8740157480314961, 0.5858941383511574),
    "8 pixels apart": (0.8931074906098232, 1.0),
    "9 pixels apart": (0.880555159465754, 0.6428571428571429),
    "nothing in common": (0.0, 0.0),
    "ellipses, void band": (0.8340328576567934, 0.7269160487221293),
    "void all over": (1.0, 1.0),
    "void hides the prediction": (0.0, 0.0),
    "both empty": (1.0, 1.0),
    "empty prediction": (0.0, 0.0),
    "empty truth": (0.0, 0.0),
    "full prediction": (0.09651883294301328, 0.0),
    "full truth, empty prediction": (0.0, 1.0),
    "both full": (1.0, 1.0),
    "one pixel in the corner": (0.0, 1.0),
    "pixels 8 apart": (0.0, 1.0),
    "pixels 9 apart": (0.0, 0.5),
    "halves": (0.31982447083118226, 0.025487256371814097),
    "cut off by the corner": (0.6529680365296804, 0.09601311398630057),
    "speckles": (0.008333734765643816, 0.934873437408052),
    "speckles, void speckles": (0.008120990996292592, 0.9084409425840811),
    "one row": (0.1410488245931284, 1.0),
    "one column": (0.17670682730923695, 1.0),
    "one pixel": (0.0, 1.0),
    "a radius of 4.0": (0.9188003672345201, 1.0),
    "rows of two words": (0.0543562066306862, 0.8028680341259756),
    "rows of full words": (0.05466360856269113, 0.8046762589928058),
}


@pytest.mark.parametrize("name", cases())
def test_masks_score_as_in_the_official_code(name):
    masks = cases()[name]
    assert (region_similarity(*masks), boundary_accuracy(*masks)) == OFFICIAL[name]


def real_masks(video: str, step: int) -> np.ndarray:
    paths = sorted((ANNOTATIONS / video).glob("*.png"))[::step]
    return np.stack([load_mask(path) > 0 for path in paths])


OFFICIAL_DIGESTS = {  # of J and F of every 8th mask in double size, and moved by (9, -6)
    "bear": ("6657ac11a817bbbb", "a0198d5d272bafe1"),
    "bmx-bumps": ("5c44b612a82b6e65", "d0b32853c68fcd1a"),
    "car-turn": ("4b1858abd046411f", "e886384144380f72"),
    "dance-jump": ("f3b5201f0032a45b", "025185e49aea583c"),
    "flamingo": ("91f30fa7bfb8a5a7", "ca159c73b6a508d0"),
    "paragliding": ("757453a30cbc76e5", "7a561b4eb2702212"),
    "surf": ("a8e5a8173ffd3eb8", "e1d720af7ed01845"),
    "tennis": ("e11955bea045ee6f", "9ba47f034671fd3a"),
}


def digest(values: np.ndarray) -> str:
    return hashlib.sha256(values.tobytes()).hexdigest()[:16]


def enlarged(masks: np.ndarray) -> np.ndarray:
    return masks.repeat(2, 1).repeat(2, 2)


@pytest.mark.skipif(not ANNOTATIONS.exists(), reason="shared data is absent")
@pytest.mark.parametrize("video", OFFICIAL_DIGESTS)
def test_real_masks_score_as_in_the_official_code_to_the_last_bit(video):
    truth = enlarged(real_masks(video, 8))
    prediction = np.roll(truth, (9, -6), (1, 2))
    scores = region_similarity(prediction, truth), boundary_accuracy(prediction, truth)
    assert tuple(map(digest, scores)) == OFFICIAL_DIGESTS[video]


def brute_force(prediction: np.ndarray, truth: np.ndarray, void: np.ndarray) -> tuple[float, float]:
    """J and F by their definitions, with the distances between all pixels of both boundaries."""
    masks = [np.where(void, False, mask) for mask in (prediction, truth)]
    height, width = truth.shape
    down, right = (
        np.minimum(np.arange(1, height + 1), height - 1),
        np.minimum(np.arange(1, width + 1), width - 1),
    )
    boundaries = []
    for mask in masks:
        neighbours = mask[down], mask[:, right], mask[down][:, right]
        boundaries.append(np.argwhere(np.any([mask != other for other in neighbours], axis=0)))
    radius = np.ceil(0.008 * np.sqrt(height**2 + width**2))
    distances = np.square(boundaries[0][:, None] - boundaries[1][None]).sum(-1)
    near = distances <= radius**2
    precision = near.any(1).mean() if near.shape[0] else 1
    recall = near.any(0).mean() if near.shape[1] else 1
    union = np.sum(masks[0] | masks[1])
    return (
        np.sum(masks[0] & masks[1]) / union if union else 1,
        2 * precision * recall / (precision + recall) if precision + recall else 0,
    )


@pytest.mark.parametrize(
    "size", [(1, 1), (1, 9), (7, 1), (2, 2), (9, 13), (400, 3), (4, 640), (20, 129)]
)
@pytest.mark.parametrize("density", [0.01, 0.5, 0.99])
def test_masks_score_as_brute_force_has_it(size, density):
    random = np.random.default_rng(0)
    prediction, truth = random.random((2, 3, *size)) < density
    void = random.random((3, *size)) < 0.1
    expected = np.array(
        [brute_force(*masks) for masks in zip(prediction, truth, void, strict=True)]
    )
    np.testing.assert_array_equal(region_similarity(prediction, truth, void), expected[:, 0])
    np.testing.assert_array_equal(boundary_accuracy(prediction, truth, void), expected[:, 1])


def test_masks_of_any_kind_and_with_any_leading_dimensions_score_alike():
    prediction = np.stack([speckles((30, 40), 11, 2), speckles((30, 40), 7, 3)])
    truth = np.stack([speckles((30, 40), 5, 1), speckles((30, 40), 13, 4)])
    for score in (region_similarity, boundary_accuracy):
        expected = [float(score(*masks)) for masks in zip(prediction, truth, strict=True)]
        assert score(prediction.astype(np.uint8) * 255, truth.astype(np.int64)).tolist() == expected
        assert score(prediction[:, None], truth[:, None]).tolist() == [[x] for x in expected]
        assert score(prediction, truth).dtype == np.float64
        assert score(prediction[:0], truth[:0]).shape == (0,)
        assert score(prediction[..., ::-1, :], truth[..., ::-1, :]).shape == (2,)


def test_masks_are_left_as_they_were():
    masks = prediction, truth, void = [
        speckles((30, 40), m, 2).astype(np.uint8) for m in (5, 7, 11)
    ]
    copies = [mask.copy() for mask in masks]
    region_similarity(prediction, truth, void), boundary_accuracy(prediction, truth, void)
    unsupervised_scores(prediction[None], truth[None])
    np.testing.assert_array_equal(masks, copies)


@pytest.mark.parametrize("score", [region_similarity, boundary_accuracy])
def test_unfit_masks_are_refused(score):
    mask = np.zeros((4, 6), bool)
    with pytest.raises(ValueError, match="prediction must be bool or integers, not float64"):
        score(np.full((4, 6), np.nan), mask)
    with pytest.raises(ValueError, match=r"prediction \(1, 4, 6\), truth \(4, 6\)"):
        score(mask[None], mask)
    with pytest.raises(ValueError, match=r"one shape .* void \(6,\)"):
        score(mask, mask, mask[0])
    with pytest.raises(ValueError, match=r"\(..., height, width\), got prediction \(6,\)"):
        score(mask[0], mask[0])
    with pytest.raises(ValueError, match=r"\(..., height, width\), got prediction \(0, 6\)"):
        score(mask[:0], mask[:0])


# Statistics


def values_of(num_frames: int) -> np.ndarray:
    frames = np.arange(num_frames)
    return frames * frames * 37 % 101 / 101


OFFICIAL_STATISTICS = {  # of `values_of`, by the number of frames
    1: (0.0, 0.0, 0.0),
    2: (0.18316831683168316, 0.0, -0.36633663366336633),
    3: (0.27722772277227725, 0.0, -0.2821782178217822),
    4: (0.2821782178217822, 0.0, -0.19801980198019803),
    5: (0.39801980198019804, 0.2, -0.396039603960396),
    6: (0.3580858085808581, 0.16666666666666666, -0.32673267326732675),
    7: (0.33380480905233384, 0.14285714285714285, 0.103960396039604),
    10: (0.44059405940594065, 0.3, -0.41254125412541254),
    34: (0.49504950495049505, 0.5, -0.005500550055005493),
    69: (0.49433204189984215, 0.4927536231884058, 0.044554455445544594),
    104: (0.4887661843107388, 0.4807692307692308, 0.028602860286028653),
    255: (0.49574839836924867, 0.4980392156862745, -0.017388613861386126),
}


@pytest.mark.parametrize("num_frames", OFFICIAL_STATISTICS)
def test_statistics_are_the_official_ones(num_frames):
    assert statistics(values_of(num_frames)) == OFFICIAL_STATISTICS[num_frames]


@pytest.mark.parametrize(
    ("num_frames", "first", "last"), [(256, 65, 191), (300, 76, 224), (1001, 251, 750)]
)
def test_decay_of_long_sequences_compares_the_first_and_last_quarter(num_frames, first, last):
    values = values_of(num_frames)
    assert statistics(values).decay == values[:first].mean() - values[last:].mean()
    assert statistics(np.linspace(1, 0, num_frames)).decay == pytest.approx(0.75, abs=0.01)


def test_recall_counts_only_what_is_above_a_half():
    assert statistics(np.array([0.5, np.nextafter(0.5, 1), 0, 1])).recall == 0.5


@pytest.mark.parametrize("values", [[], [0.5, np.nan], [np.inf], [[0.5]]])
def test_statistics_of_nothing_and_of_what_is_not_finite_are_refused(values):
    with pytest.raises(ValueError, match="values must be finite"):
        statistics(np.array(values))


# Sequences


def object_map(
    num_frames: int, centres: list[tuple[int, int]], step: tuple[int, int]
) -> np.ndarray:
    """Ids 1, 2, ... of ellipses that move by `step` a frame, uint8 (num_frames, 96, 150)."""
    ids = np.zeros((num_frames, 96, 150), np.uint8)
    for frame in range(num_frames):
        for index, (y, x) in enumerate(centres, 1):
            centre = y + frame * step[0], x + frame * step[1]
            ids[frame][ellipse((96, 150), centre, (10 + 3 * index, 22 - 2 * index))] = index
    return ids


def sequences() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Maps of the prediction and of the truth by name."""
    truth = object_map(9, [(25, 30), (55, 60), (40, 110)], (2, 1))
    prediction = object_map(9, [(26, 33), (52, 59), (44, 108)], (2, 2))
    permuted = np.array([0, 3, 1, 2], np.uint8)[prediction]
    with_void = truth.copy()
    with_void[:, :12] = 255
    with_void[1:, 30:70, 40:60] = 255
    extra = permuted.copy()
    extra[:, 80:, 20:50], extra[4:, :10, 100:] = 7, 20
    late = truth.copy()
    late[3:, 85:, 100:] = 9  # no object: it is not in the first frame
    gone = truth.copy()
    gone[0][gone[0] == 1] = 0  # an object all the same: a higher id is in the first frame
    return {
        "permuted": (permuted, truth),
        "void": (permuted, with_void),
        "more proposals than objects": (extra, with_void),
        "fewer proposals than objects": (np.where(prediction == 1, 1, 0), with_void),
        "objects after the first frame": (prediction, late),
        "object absent in the first frame": (prediction, gone),
        "same ids": (prediction, truth),
        "three frames": (prediction[:3], truth[:3]),
    }


# Per object of the ground truth: means of J and F over the frames, and its id in the prediction
OFFICIAL_UNSUPERVISED = {
    "permuted": [
        (0.63543380796992, 0.4060457516339869, 3),
        (0.7041213025508937, 0.4150793650793651, 1),
        (0.6965458392634373, 0.3657407407407407, 2),
    ],
    "void": [
        (0.6000043615747365, 0.5362833329610995, 3),
        (0.7011917715995305, 0.4963254170978682, 1),
        (0.6965458392634373, 0.3657407407407407, 2),
    ],
    "more proposals than objects": [
        (0.6000043615747365, 0.5362833329610995, 3),
        (0.7011917715995305, 0.4963254170978682, 1),
        (0.6965458392634373, 0.3657407407407407, 2),
    ],
    "fewer proposals than objects": [
        (0.6000043615747365, 0.5362833329610995, 1),
        (0.0, 0.0, 2),
        (0.0, 0.0, 3),
    ],
    "objects after the first frame": [
        (0.63543380796992, 0.4060457516339869, 1),
        (0.7041213025508937, 0.4150793650793651, 2),
        (0.6965458392634373, 0.3657407407407407, 3),
    ],
    "object absent in the first frame": [
        (0.5459483493569446, 0.32761437908496727, 1),
        (0.7041213025508937, 0.4150793650793651, 2),
        (0.6965458392634373, 0.3657407407407407, 3),
    ],
    "same ids": [
        (0.63543380796992, 0.4060457516339869, 1),
        (0.7041213025508937, 0.4150793650793651, 2),
        (0.6965458392634373, 0.3657407407407407, 3),
    ],
    "three frames": [
        (0.7589716194452151, 0.5735294117647058, 1),
        (0.7806463479540402, 0.5714285714285715, 2),
        (0.7493832317282285, 0.4398148148148148, 3),
    ],
}
OFFICIAL_SEMI_SUPERVISED = {
    "same ids": [
        (0.6328684659799372, 0.3834033613445378, 1),
        (0.7128978566037661, 0.42346938775510207, 2),
        (0.7101127585438007, 0.375, 3),
    ],
    "void": [
        (0.0, 0.0, 1),
        (0.0, 0.0, 2),
        (0.0, 0.0, 3),
    ],
    "fewer proposals than objects": [
        (0.4481606564067843, 0.3529048064538542, 1),
        (0.0, 0.0, 2),
        (0.0, 0.0, 3),
    ],
    "three frames": [
        (0.7581699346405228, 0.5588235294117647, 1),
        (0.7876984126984127, 0.6142857142857143, 2),
        (0.7546125461254612, 0.4583333333333333, 3),
    ],
}


def means(scores: SequenceScores) -> list[tuple[float, float, int]]:
    return [
        (statistics(region).mean, statistics(boundary).mean, int(prediction_id))
        for region, boundary, prediction_id in zip(*scores, strict=True)
    ]


@pytest.mark.parametrize("name", OFFICIAL_UNSUPERVISED)
def test_unsupervised_scores_are_the_official_ones_in_the_order_of_the_truth(name):
    scores = unsupervised_scores(*sequences()[name])
    assert means(scores) == OFFICIAL_UNSUPERVISED[name]


@pytest.mark.parametrize("name", OFFICIAL_SEMI_SUPERVISED)
def test_semi_supervised_scores_are_the_official_ones(name):
    scores = semi_supervised_scores(*sequences()[name])
    assert means(scores) == OFFICIAL_SEMI_SUPERVISED[name]


def test_highest_id_of_the_first_frame_counts_the_objects():
    truth = np.zeros((3, 4, 6), np.uint8)
    truth[0, 0, 0], truth[0, 0, 1], truth[1, 1, 1] = 3, 255, 5
    for score in (unsupervised_scores, semi_supervised_scores):
        assert score(np.zeros_like(truth), truth).region.shape[0] == 3


def test_sequence_without_object_has_no_scores():
    truth = np.zeros((3, 4, 6), np.uint8)
    assert unsupervised_scores(truth + 2, truth).region.shape == (0, 3)
    assert semi_supervised_scores(truth, truth).boundary.shape == (0, 1)


def test_semi_supervised_scores_leave_out_the_first_and_the_last_frame():
    prediction, truth = sequences()["same ids"]
    spoilt = prediction.copy()
    spoilt[0], spoilt[-1] = 77, 0
    expected = semi_supervised_scores(prediction, truth)
    np.testing.assert_array_equal(semi_supervised_scores(spoilt, truth).region, expected.region)
    assert expected.region.shape == expected.boundary.shape == (3, 7)


def test_wider_integers_score_alike():
    prediction, truth = sequences()["void"]
    expected = means(unsupervised_scores(prediction, truth))
    assert (
        means(unsupervised_scores(prediction.astype(np.int64), truth.astype(np.int32))) == expected
    )


@pytest.mark.parametrize("score", [semi_supervised_scores, unsupervised_scores])
def test_unfit_maps_are_refused(score):
    ids = np.zeros((4, 5, 6), np.uint8)
    with pytest.raises(ValueError, match=r"prediction \(3, 5, 6\), truth \(4, 5, 6\)"):
        score(ids[:3], ids)
    with pytest.raises(ValueError, match=r"prediction \(5, 6\), truth \(5, 6\)"):
        score(ids[0], ids[0])
    with pytest.raises(ValueError, match="without zeros"):
        score(ids[:0], ids[:0])
    with pytest.raises(ValueError, match="integers in 0...255, got float64"):
        score(ids * np.nan, ids)
    with pytest.raises(ValueError, match="got int64 in 0...256"):
        score(ids, ids + np.arange(257)[-4:, None, None] - np.array([253, 0, 0, 0])[:, None, None])


def test_ids_beyond_the_protocol_are_refused():
    ids = np.zeros((3, 4, 6), np.uint8)
    with pytest.raises(ValueError, match="the id 21: in the unsupervised protocol it may have 20"):
        unsupervised_scores(ids + 21, ids)
    with pytest.raises(ValueError, match="has the id 2, but the first frame .* has 1 objects"):
        semi_supervised_scores(ids + 2, ids + 1)
    with pytest.raises(ValueError, match="leave out the first and last frame: none remains"):
        semi_supervised_scores(ids[:2], ids[:2])


def test_scores_of_one_object_are_those_of_its_masks():
    prediction, truth = (ids == 2 for ids in sequences()["same ids"])
    scores = object_scores(prediction, truth)
    np.testing.assert_array_equal(scores.region, [region_similarity(prediction, truth)])
    np.testing.assert_array_equal(scores.boundary, [boundary_accuracy(prediction, truth)])
    for unfit in (truth[0], truth[:0]):
        with pytest.raises(ValueError, match=r"masks must be \(num_frames, height, width\)"):
            object_scores(unfit, unfit)


# Benchmarks

OFFICIAL_SUMMARY = {  # of `sequences`, unsupervised
    "J&F-Mean": 0.510962396165367,
    "J-Mean": 0.6224753269209023,
    "J-Recall": 0.8518518518518517,
    "J-Decay": 0.15444563145810475,
    "F-Mean": 0.39944946540983167,
    "F-Recall": 0.2777777777777778,
    "F-Decay": 0.20828069461447354,
}


def test_summary_is_the_official_one():
    assert (
        summarize(unsupervised_scores(*maps) for maps in sequences().values()) == OFFICIAL_SUMMARY
    )


def test_summary_of_nothing_is_refused():
    with pytest.raises(ValueError, match="there is no object to score"):
        summarize([])


@pytest.mark.parametrize("num_workers", [0, 2])
def test_sequences_are_scored_in_order(num_workers):
    names = ["void", "permuted", "three frames", "void"]
    calls = [partial(unsupervised_scores, *sequences()[name]) for name in names]
    scores = score_sequences(iter(calls), num_workers)
    assert [means(s) for s in scores] == [OFFICIAL_UNSUPERVISED[name] for name in names]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_error_of_a_sequence_reaches_the_caller(num_workers):
    good, bad = (
        partial(unsupervised_scores, np.full((1, 4, 6), id), np.ones((1, 4, 6), int))
        for id in (1, 21)
    )
    scores = score_sequences([good, bad], num_workers)
    assert next(scores).region.tolist() == [[1]]
    with pytest.raises(ValueError, match="the id 21"):
        next(scores)
