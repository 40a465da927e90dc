# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
import pickle

import numpy as np
import pytest
import torch

from proxyformer_hf.data.decoding import read_frames, read_masks, read_object_map
from proxyformer_hf.data.load import load_rvos_dataset
from proxyformer_hf.data.moving_shapes import MIN_SIZE, generate_video
from proxyformer_hf.data.shape_expressions import KINDS
from proxyformer_hf.data.shape_wordings import SYNONYMS

OPTIONS = {"num_videos": 3, "height": 64, "width": 96, "num_frames": 6, "seed": 5}


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    cache_dir = tmp_path_factory.mktemp("cache")
    return load_rvos_dataset("moving-shapes", split="valid", cache_dir=cache_dir, **OPTIONS)


def video_of(index: int, split: str = "valid", **changes):
    options = OPTIONS | changes
    options.pop("num_videos")
    return generate_video(index, split, **options)


def test_a_video_has_the_size_asked_for():
    video = generate_video(0, height=72, width=100, num_frames=7)
    assert video.frames.shape == (7, 72, 100, 3) and video.frames.dtype == np.uint8
    assert video.object_map.shape == (7, 72, 100) and video.object_map.dtype == np.uint8
    ids = np.arange(len(video.scene.objects)) + 1
    assert set(np.unique(video.object_map)) == {0, *ids}


def test_the_same_arguments_give_the_same_video_and_others_another():
    video, again = video_of(1), video_of(1)
    np.testing.assert_array_equal(video.frames, again.frames)
    np.testing.assert_array_equal(video.object_map, again.object_map)
    assert video.expressions == again.expressions
    others = (video_of(2), video_of(1, "train"), video_of(1, "test"), video_of(1, seed=6))
    for other in others:
        assert (video.frames != other.frames).any()


def test_the_benchmark_stays_as_it_is():
    video = generate_video(0, "valid", num_frames=5)
    assert [(said.kind, said.object_id, said.text) for said in video.expressions] == [
        ("attribute", 4, "the cyan square"),
        ("position", 1, "the shape that is second from the left"),
        ("relation", 3, "the cyan object right of the cyan dotted shape"),
        ("motion", 2, "the square moving diagonally"),
    ]


def test_shapes_alone_are_said_where_nothing_else_differs():
    said = 0
    for index in range(20):
        video = generate_video(index, num_frames=1, only_shapes=True)
        for expression in video.expressions:
            if expression.kind == "attribute":
                shape = video.scene.objects[expression.object_id - 1].shape
                assert any(expression.text.endswith(word) for word in SYNONYMS[shape])
                said += 1
    assert said >= 10


def test_splits_have_no_video_in_common():
    frames = {
        video_of(index, split).frames.tobytes()
        for split in ("train", "valid", "test")
        for index in range(20)
    }
    assert len(frames) == 60


def test_enough_of_every_object_is_seen():
    hidden = 0
    for index in range(60):
        video = generate_video(index, num_frames=5)
        silhouettes = video.scene.silhouettes(range(5))
        for i, alone in enumerate(silhouettes):
            seen, whole = (video.object_map == i + 1).sum((1, 2)), alone.sum((1, 2))
            assert (seen >= 0.45 * whole).all() and seen.any()
            hidden += (seen < whole).any()
    assert hidden > 60  # of about 250 objects


def test_rows_are_one_expression_each(rows):
    assert len(rows) == 3 * len(KINDS)
    for k, row in enumerate(rows):
        video = video_of(k // len(KINDS))
        expression = video.expressions[k % len(KINDS)]
        assert row["benchmark"] == "moving-shapes"
        assert row["video_id"] == f"valid-{k // len(KINDS):06d}"
        assert row["expression_id"] == expression.kind == KINDS[k % len(KINDS)]
        assert row["expression"] == expression.text
        assert row["object_ids"] == [expression.object_id]
        assert row["categories"] == [video.scene.objects[expression.object_id - 1].shape]
        assert row["num_frames"] == len(row["frames"]) == 6
        assert row["annotated"] == [*range(6)]


def test_pixels_are_made_when_they_are_read(rows):
    for k, row in enumerate(rows):
        video = video_of(k // len(KINDS))
        indices = [5, 0, 3, 3]
        frames = read_frames(None, row, indices)
        assert frames.dtype == torch.uint8 and frames.is_contiguous()
        np.testing.assert_array_equal(frames.permute(0, 2, 3, 1), video.frames[indices])
        masks, annotated = read_masks(None, row, indices)
        expected = video.object_map[indices] == video.expressions[k % len(KINDS)].object_id
        np.testing.assert_array_equal(masks, expected)
        assert masks.dtype == torch.uint8 and annotated.tolist() == [True] * 4
        np.testing.assert_array_equal(
            read_object_map(None, row, indices), video.object_map[indices]
        )


def test_an_index_outside_of_the_video_is_refused(rows):
    with pytest.raises(IndexError):
        read_frames(None, rows[0], [6])


def test_rows_may_be_read_in_other_processes(rows):
    row = pickle.loads(pickle.dumps(rows[4]))
    loader = torch.utils.data.DataLoader(
        [row], num_workers=1, collate_fn=lambda batch: read_frames(None, batch[0], [0, 1])
    )
    torch.testing.assert_close(next(iter(loader)), read_frames(None, rows[4], [0, 1]))


def test_streaming_gives_the_same_rows(rows):
    streamed = load_rvos_dataset("moving-shapes", split="valid", streaming=True, **OPTIONS)
    assert list(streamed) == list(rows)


def test_more_videos_keep_those_before(rows, tmp_path):
    more = load_rvos_dataset(
        "moving-shapes", split="valid", cache_dir=tmp_path, **OPTIONS | {"num_videos": 4}
    )
    assert more[: len(rows)] == rows[:]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "validation"}, "no split 'validation'"),
        ({"height": MIN_SIZE - 1}, "height and width must be 64 or more"),
        ({"num_frames": 0}, "num_frames 1 or more"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        generate_video(0, **arguments)
    with pytest.raises(ValueError, match=message):
        list(load_rvos_dataset("moving-shapes", streaming=True, **arguments))
