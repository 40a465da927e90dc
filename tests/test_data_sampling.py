# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
from itertools import chain

import numpy as np
import pytest

from proxyformer_hf.data.sampling import (
    consecutive_around,
    sample_around,
    split_into_windows,
    window_around,
)

# (centre, video length, clip length) -> how often each frame came in 10,000 clips, and the number
# of different clips among them (None: too many to see all), drawn by the lines of ReferFormer's
# datasets/ytvos.py (commit 06fc218) from `sample_indx = [frame_id]` to `sample_indx.sort()`, cut to
# the clip length as its loop over frames does, with random.seed(0) before each case.
REFERFORMER = {
    (0, 20, 5): (
        [
            20000,
            3616,
            4039,
            4550,
            1128,
            1076,
            1137,
            1104,
            1174,
            1122,
            1162,
            1073,
            1171,
            1127,
            1112,
            1072,
            1072,
            1058,
            1124,
            1083,
        ],
        None,
    ),
    (10, 20, 5): (
        [
            1215,
            1258,
            1197,
            1295,
            1291,
            1324,
            1294,
            4118,
            3756,
            3343,
            10000,
            3753,
            4084,
            4621,
            1280,
            1255,
            1264,
            1229,
            1211,
            1212,
        ],
        None,
    ),
    (19, 20, 5): (
        [
            1131,
            1141,
            1076,
            1136,
            1118,
            1109,
            1124,
            1146,
            1102,
            1127,
            1115,
            1139,
            1126,
            1098,
            1051,
            1065,
            4050,
            3743,
            3298,
            21105,
        ],
        None,
    ),
    (4, 6, 5): ([5006, 8386, 6117, 4351, 11150, 14990], 19),
    (2, 9, 8): ([11456, 6417, 13032, 9071, 10047, 9875, 6668, 6706, 6728], 329),
    (0, 3, 6): ([30000, 13294, 16706], 2),
    (3, 8, 3): ([3358, 3297, 3345, 10000, 3352, 3325, 3323, 0], 9),
}


def draw(centre: int, video_length: int, num_frames: int, count: int) -> list[list[int]]:
    rng = np.random.default_rng(0)
    return [sample_around(centre, video_length, num_frames, rng) for _ in range(count)]


@pytest.mark.parametrize("case", REFERFORMER)
def test_training_clips_are_distributed_as_in_the_published_code(case):
    counts, num_different = REFERFORMER[case]
    clips = draw(*case, count=10_000)
    found = np.bincount([*chain.from_iterable(clips)], minlength=case[1])
    # Four standard deviations of the difference of two Poisson counts, which vary more than ours.
    assert (np.abs(found - counts) <= 4 * np.sqrt(2 * np.array(counts))).all(), found
    assert (found > 0).tolist() == [count > 0 for count in counts]
    if num_different is not None:
        assert len({tuple(clip) for clip in clips}) == num_different


@pytest.mark.parametrize("video_length", [1, 2, 3, 7])
@pytest.mark.parametrize("num_frames", [1, 2, 3, 5, 8])
def test_training_clips_are_sorted_and_hold_the_centre(video_length, num_frames):
    for centre in range(video_length):
        for clip in draw(centre, video_length, num_frames, count=20):
            assert len(clip) == num_frames and clip == sorted(clip)
            assert centre in clip and 0 <= clip[0] and clip[-1] < video_length
            assert all(type(index) is int for index in clip)


def test_clips_of_videos_too_short_repeat_all_frames_evenly():
    assert draw(0, 1, 6, count=1) == [[0] * 6]
    # 0, 0 and 1 around the centre, and four others, for which both frames come twice.
    assert draw(0, 2, 7, count=1) == [[0, 0, 0, 0, 1, 1, 1]]
    for clip in draw(1, 3, 8, count=20):  # 0, 1 and 2 around the centre, then 0, 1, 2 and two more
        assert sorted(np.bincount(clip)) == [2, 3, 3]


def test_short_training_clips_have_no_frames_but_neighbours():
    assert draw(4, 9, 1, count=1) == [[4]]
    assert {tuple(clip) for clip in draw(4, 9, 2, count=100)} == {(1, 4), (2, 4), (3, 4)}
    neighbours = {(before, 4, after) for before in (1, 2, 3) for after in (5, 6, 7)}
    assert {tuple(clip) for clip in draw(4, 9, 3, count=300)} == neighbours


@pytest.mark.parametrize(
    ("centre", "video_length", "num_frames", "window"),
    [
        (5, 20, 5, [3, 4, 5, 6, 7]),
        (5, 20, 4, [3, 4, 5, 6]),
        (0, 20, 5, [0, 0, 0, 1, 2]),
        (19, 20, 5, [17, 18, 19, 19, 19]),
        (1, 2, 8, [0, 0, 0, 0, 1, 1, 1, 1]),
        (0, 1, 3, [0, 0, 0]),
        (7, 20, 1, [7]),
    ],
)
def test_windows_around_a_frame_repeat_the_ends(centre, video_length, num_frames, window):
    assert window_around(centre, video_length, num_frames) == window
    assert window[num_frames // 2] == centre


@pytest.mark.parametrize(
    ("video_length", "num_frames", "lengths"),
    [
        (104, 36, [36, 36, 32]),
        (36, 36, [36]),
        (37, 36, [36, 1]),
        (1, 36, [1]),
        (300, None, [300]),
    ],
)
def test_windows_of_inference_cover_the_video_once(video_length, num_frames, lengths):
    windows = split_into_windows(video_length, num_frames)
    assert [len(window) for window in windows] == lengths
    assert [*chain.from_iterable(windows)] == [*range(video_length)]


def test_consecutive_clips_move_into_the_video_and_repeat_frames_of_shorter_ones_alone():
    assert consecutive_around(10, 20, 5) == [8, 9, 10, 11, 12]
    assert consecutive_around(10, 20, 4) == [8, 9, 10, 11]
    assert consecutive_around(0, 20, 5) == consecutive_around(1, 20, 5) == [0, 1, 2, 3, 4]
    assert consecutive_around(19, 20, 5) == [15, 16, 17, 18, 19]
    assert consecutive_around(1, 2, 5) == [0, 0, 0, 0, 1]
    for length in range(1, 12):
        for centre in range(length):
            clip = consecutive_around(centre, length, 6)
            assert centre in clip and len(set(clip)) == min(length, 6)
