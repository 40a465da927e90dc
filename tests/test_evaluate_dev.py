# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
import sys
from pathlib import Path

import numpy as np
import pytest

from proxyformer_hf.data.sources import load_images, load_videos
from tests.toy_data import make_data_folder

sys.path.append(str(Path(__file__).resolve().parents[1] / "scripts"))
import evaluate_dev  # noqa: E402


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory) -> Path:
    return make_data_folder(tmp_path_factory.mktemp("data"))


def test_iou_is_the_mean_over_frames_and_one_where_both_are_empty():
    prediction, truth = np.zeros((3, 4, 4), bool), np.zeros((3, 4, 4), bool)
    prediction[0, :2], truth[0, 1:3] = True, True  # 4 of 12 pixels
    prediction[1, 0] = True  # nothing there
    assert evaluate_dev.iou(prediction, truth) == pytest.approx((1 / 3 + 0 + 1) / 3)


def test_development_expressions_are_of_look_alikes_and_fixed(data_dir):
    images = load_images(data_dir)
    entries = evaluate_dev.dev_expressions(images[0])
    assert [(kind, i) for kind, i, _ in entries] == [("template", 0), ("template", 1)]
    assert entries == evaluate_dev.dev_expressions(load_images(data_dir)[0])
    assert evaluate_dev.dev_expressions(images[1]) == []  # a dog and a cat


def test_perfect_and_blind_predictions(data_dir, monkeypatch):
    """A model that finds each expression's box, and everything for the meaningless one."""
    images = load_images(data_dir)[:1]
    texts = [text for *_, text in evaluate_dev.dev_expressions(images[0])]

    def segment(model, processor, frames, expressions, size):
        assert expressions == [*texts, "an object"]
        masks = [evaluate_dev.mask_of(images[0], i) for i in (0, 1)]
        masks = np.stack([*masks, np.ones_like(masks[0])])
        return masks.repeat(len(frames), axis=1)

    monkeypatch.setattr(evaluate_dev, "segment", segment)
    scores, records = evaluate_dev.image_scores(None, None, images, size=32, num_frames=2)
    share = 32 * 30 / (72 * 96)
    expected = {"right": 1.0, "swapped": 0.0, "blind": share, "expressions": 2, "pairs": 1}
    assert scores["template"] == pytest.approx(expected)
    assert scores["all"] == scores["template"] and "written" not in scores
    assert [record["iou"] for record in records] == [1.0, 1.0]


def test_video_scores_average_expressions_and_keep_blind_apart(data_dir, monkeypatch):
    (video,) = load_videos(data_dir, ["boat"])
    seen = []

    def segment(model, processor, frames, expressions, size):
        seen.append(len(frames))
        masks = np.zeros((3, len(frames), 60, 107), bool)
        masks[0] = True
        return masks

    monkeypatch.setattr(evaluate_dev, "segment", segment)
    scores = evaluate_dev.video_scores(None, None, [video], 32, [2, 4], stride=2, clip=4)
    assert seen == [4, 2]
    assert scores["boat"] == {"right": pytest.approx(25 * 30 / (60 * 107) / 2), "blind": 0.0}
