# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""Which frames of a video a clip shows: the sampling of ReferFormer, which the field has kept.

All indices count from 0 and all clips are in temporal order.
"""

import numpy as np

MAX_STEP = 3  # between the frame that a training clip is drawn around and its neighbours


def sample_around(
    centre: int, video_length: int, num_frames: int, rng: np.random.Generator
) -> list[int]:
    """Frames of a training clip: a frame, one up to three frames before it, one up to three after
    it, and others from the rest of the video.

    The neighbours are clamped to the video. The others are drawn without replacement from the
    frames before the earlier neighbour and from the later one on (as in the published code, so that
    it may come twice); from the whole video where these are not more than are needed. A video with
    too few frames altogether is repeated as a whole first. A clip of one frame shows the centre,
    one of two the centre and the frame before it.

    Returns:
        `num_frames` sorted indices, the centre among them, repeated where need be.
    """
    if num_frames == 1:
        return [centre]
    before, after = rng.integers(1, MAX_STEP, size=2, endpoint=True)
    clip = [max(centre - before, 0), centre, min(centre + after, video_length - 1)][:num_frames]
    rest = num_frames - len(clip)
    outside = np.concatenate([np.arange(clip[0]), np.arange(clip[-1], video_length)])
    if len(outside) <= rest:
        outside = np.arange(video_length)
    rounds, drawn = divmod(rest, len(outside))
    others = [*np.tile(outside, rounds), *rng.choice(outside, drawn, replace=False)]
    return sorted(int(index) for index in clip + others)


def window_around(centre: int, video_length: int, num_frames: int) -> list[int]:
    """Frames of an evaluation clip of A2D- and JHMDB-Sentences: `num_frames` consecutive ones with
    `centre` at place `num_frames // 2`; the video's first and last frames stand in beyond its ends.
    """
    first = centre - num_frames // 2
    return [min(max(index, 0), video_length - 1) for index in range(first, first + num_frames)]


def consecutive_around(centre: int, video_length: int, num_frames: int) -> list[int]:
    """Frames of a training clip as the paper has it (IV-B): `window_around`, moved into the video
    where it would stand out, so that frames are repeated in shorter videos alone."""
    inside = min(max(centre, num_frames // 2), video_length - (num_frames + 1) // 2)
    return window_around(inside, video_length, num_frames)


def split_into_windows(video_length: int, num_frames: int | None = None) -> list[range]:
    """The video in consecutive clips of `num_frames` frames, the last one shorter if it does not
    come out even: 36 on Ref-DAVIS17. `None`: the whole video in one, as on Ref-YouTube-VOS."""
    size = num_frames or video_length
    return [range(start, min(start + size, video_length)) for start in range(0, video_length, size)]
