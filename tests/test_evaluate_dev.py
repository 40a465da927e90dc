# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from proxyformer_hf.data import sources
from proxyformer_hf.data.clips import AbsentThings
from proxyformer_hf.data.sources import load_images, load_videos
from tests.tiny_model import save_tiny_checkpoint
from tests.toy_data import make_data_folder

sys.path.append(str(Path(__file__).resolve().parents[1] / "scripts"))
import dev_questions  # noqa: E402
import dev_report  # noqa: E402
import evaluate_dev  # noqa: E402
from dev_questions import Expression  # noqa: E402
from evaluate_dev import Answer, Verdict  # noqa: E402

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory) -> Path:
    return make_data_folder(tmp_path_factory.mktemp("data"))


@pytest.fixture
def dev_data_dir(data_dir, monkeypatch) -> Path:
    """The toy data with two images and a video for development."""
    monkeypatch.setattr(sources, "DEV_IMAGES", {9001, 9002})
    monkeypatch.setattr(evaluate_dev, "DEV_VIDEOS", ("bus",))
    return data_dir


def test_iou_is_the_mean_over_frames_and_one_where_both_are_empty():
    prediction, truth = np.zeros((3, 4, 4), bool), np.zeros((3, 4, 4), bool)
    prediction[0, :2], truth[0, 1:3] = True, True  # 4 of 12 pixels
    prediction[1, 0] = True  # nothing there
    assert evaluate_dev.iou(prediction, truth) == pytest.approx((1 / 3 + 0 + 1) / 3)


# What is asked


def test_development_expressions_are_of_look_alikes_and_fixed(data_dir):
    images = load_images(data_dir)
    entries = dev_questions.dev_expressions(images[0])
    assert [(e.kind, e.instance) for e in entries] == [("template", 0), ("template", 1)]
    assert all(e.fact in ("side", "color") for e in entries)
    assert entries == dev_questions.dev_expressions(load_images(data_dir)[0])
    assert dev_questions.dev_expressions(images[1]) == []  # a dog and a cat


@pytest.mark.skipif(not DATA.exists(), reason="needs the project's data")
def test_the_tables_in_docs_are_of_these_expressions():
    entries = [e for i in load_images(DATA, dev=True) for e in dev_questions.dev_expressions(i)]
    assert len(entries) == 236 and sum(e.kind == "written" for e in entries) == 76


def test_any_two_objects_are_asked_for_whatever_they_are(data_dir):
    images = load_images(data_dir)
    entries = [dev_questions.any_expressions(image) for image in images]
    assert [[e.instance for e in each] for each in entries] == [[0, 1], [0, 1], []]
    assert entries == [dev_questions.any_expressions(image) for image in load_images(data_dir)]
    assert [i.category for i in images[1].instances] == ["cat", "dog"]
    assert "dog" not in entries[1][0].text and "dog" in entries[1][1].text


def test_absent_things_are_fixed_and_of_other_categories(data_dir):
    images = load_images(data_dir)
    things = AbsentThings(images)
    entries = [dev_questions.absent_expressions(image, things) for image in images]
    assert entries == [dev_questions.absent_expressions(image, things) for image in images]
    assert all(len(each) == dev_questions.ABSENT for each in entries)
    assert len({e.text for each in entries for e in each}) > dev_questions.ABSENT
    words = " ".join(e.text for e in entries[0]).split()
    assert not {"dog", "sheep", "cow", "horse", "bear"} & {*words}


def test_composed_scenes_are_fixed_and_show_both_objects(data_dir):
    images = load_images(data_dir)
    (video,) = load_videos(data_dir, ["bus"])
    scene, again, other = (dev_questions.compose(video, images, number) for number in (0, 0, 1))
    assert scene.expressions == again.expressions
    assert np.array_equal(scene.frames, again.frames)
    assert np.array_equal(scene.masks, again.masks)
    assert not np.array_equal(scene.frames, other.frames)
    own, pasted = scene.masks
    assert scene.frames.shape == (dev_questions.SCENE_FRAMES, 60, 107, 3)
    assert own.any((1, 2)).all() and pasted.any((1, 2)).all() and not (own & pasted).any()
    assert scene.expressions[0] == "a bus"
    assert any(word in scene.expressions[1] for word in ("dog", "cat", "kitty"))


# Scores of images and videos


def test_perfect_and_blind_predictions(data_dir, monkeypatch):
    """A model that finds each expression's box, and everything for the meaningless one."""
    images = load_images(data_dir)[:1]
    texts = [e.text for e in dev_questions.dev_expressions(images[0])]

    def segment(model, processor, frames, expressions, size):
        assert expressions == [*texts, "an object"]
        masks = [dev_questions.mask_of(images[0], i) for i in (0, 1)]
        masks = np.stack([*masks, np.ones_like(masks[0])])
        return masks.repeat(len(frames), axis=1), np.array([0.9, 0.8, 0.1])

    monkeypatch.setattr(evaluate_dev, "segment", segment)
    ask = dev_questions.dev_expressions
    answers = evaluate_dev.image_answers(None, None, images, ask, size=32, num_frames=2)
    scores = evaluate_dev.image_scores(answers, ("written", "template"))
    share = 32 * 30 / (72 * 96)
    expected = {"right": 1.0, "swapped": 0.0, "blind": share, "expressions": 2, "pairs": 1}
    by_kind = scores["by kind"]
    assert by_kind["template"] == pytest.approx(expected)
    assert by_kind["all"] == by_kind["template"] and "written" not in by_kind
    assert scores["by size"] == {"over 10 %": by_kind["all"]}
    assert sum(row["expressions"] for row in scores["by fact"].values()) == 2
    assert [(a.score, a.truth is None) for a in answers[0]] == [
        (0.9, False),
        (0.8, False),
        (0.1, True),
    ]


def test_swapped_counts_for_the_object_meant_and_for_the_fact_said(data_dir):
    """Rows of 10 pixels: a small object of 2, a large one of 5 beside it, found as 2 + 5."""
    image = load_images(data_dir)[1]  # a cat and a dog
    small, large = np.zeros((2, 1, 10, 10), bool)
    small[0, 0, :2], large[0, 0, 2:7] = True, True
    answers = [
        Answer(image, Expression("any", 0, "the left cat", "side"), small | large, 0.9, small),
        Answer(image, Expression("any", 1, "the dog", "only"), large, 0.9, large),
        Answer(image, Expression("blind", None, "an object"), small & large, 0.9, None),
    ]
    scores = evaluate_dev.image_scores([answers], ("any",))
    assert scores["by kind"]["all"]["pairs"] == 1
    assert scores["by size"]["0-3 %"] == pytest.approx(
        {"right": 2 / 7, "swapped": 0.0, "blind": 0.0, "expressions": 1, "pairs": 1}
    )
    assert scores["by size"]["3-10 %"]["swapped"] == pytest.approx(5 / 7)
    assert scores["by fact"]["side"]["swapped"] == pytest.approx(5 / 7)
    assert scores["by fact"]["only"]["swapped"] == 0.0
    assert scores["by kind"]["large"] == scores["by size"]["3-10 %"]
    # Objects of other kinds are no look-alikes.
    other_kind = [
        Answer(a.image, a.expression._replace(kind="written"), a.mask, a.score, a.truth)
        for a in answers[:2]
    ]
    scores = evaluate_dev.image_scores([[*other_kind, answers[2]]], ("template", "any"))
    assert scores == {"by kind": {}, "by fact": {}, "by size": {}}


def test_sizes_of_objects():
    shares = [0, 0.0299, 0.03, 0.0999, 0.1, 1]
    names = ["0-3 %", "0-3 %", "3-10 %", "3-10 %", "over 10 %", "over 10 %"]
    assert [evaluate_dev.size_of(share) for share in shares] == names


def test_video_scores_average_expressions_and_keep_blind_apart(data_dir, monkeypatch):
    (video,) = load_videos(data_dir, ["boat"])

    def segment(model, processor, frames, expressions, size):
        """The true masks for the first expression, nothing for the others."""
        masks = np.zeros((3, len(frames), 60, 107), bool)
        masks[0] = [video.frame(2 * k)[1] for k in range(len(frames))]
        return masks, np.ones(3)

    monkeypatch.setattr(evaluate_dev, "segment", segment)
    scores = evaluate_dev.video_scores(None, None, [video], 32, [2, 4], stride=2)
    steady = 24 / 36  # a box of 30 columns moves by 6
    expected = {"J&F": 0.5, "J": 0.5, "F": 0.5, "blind": 0.0}
    expected |= {"neighbours": (steady + 1) / 2, "true neighbours": steady}
    assert scores["boat"] == pytest.approx(expected)


def test_composed_scores_compare_with_both_objects(data_dir, monkeypatch):
    """A model that segments the own object whatever it is told."""
    images, videos = load_images(data_dir), load_videos(data_dir, ["bus"])
    scenes = iter([dev_questions.compose(videos[0], images, k) for k in range(evaluate_dev.SCENES)])
    monkeypatch.setattr(
        evaluate_dev, "segment", lambda *_: (np.stack([next(scenes).masks[0]] * 2), np.ones(2))
    )
    scores = evaluate_dev.composed_scores(None, None, videos, images, size=32)
    assert scores == {
        "bus": {"right": 0.5, "swapped": 0.5, "switches": 0.0},
        "own object": {"right": 1.0, "swapped": 1.0, "switches": 0.0},
        "pasted object": {"right": 0.0, "swapped": 0.0, "switches": 0.0},
        "all": {"right": 0.5, "swapped": 0.5, "switches": 0.0},
    }


def test_a_switch_is_a_mask_that_goes_over_to_another_object():
    left, right = np.zeros((2, 7, 4, 8), bool)
    left[:, :, :4], right[:, :, 4:] = True, True
    mask = np.zeros_like(left)
    for frame, columns in enumerate(
        [slice(0, 3), slice(2, 6), slice(3, 8), slice(5, 8), slice(0), slice(0, 2), slice(1, 4)]
    ):
        mask[frame, :, columns] = True  # left, both alike, right, right, none, left, left
    assert evaluate_dev.switches(mask, [left, right]) == pytest.approx(1 / 6)


def test_quick_scores_ask_for_no_more_than_they_report(dev_data_dir, monkeypatch):
    calls = []

    def segment(model, processor, frames, expressions, size):
        calls.append((len(frames), expressions, size))
        return np.ones((len(expressions), *frames.shape[:3]), bool), np.ones(len(expressions))

    monkeypatch.setattr(evaluate_dev, "segment", segment)
    scores = evaluate_dev.quick_scores(None, None, dev_data_dir)
    on_video, on_image = 100 * 30 * 25 / (60 * 107), 100 * 32 * 30 / (72 * 96)
    assert scores == pytest.approx(
        {"dev_J": on_video, "dev_J_blind": on_video}
        | {f"dev_image_{name}": on_image for name in ("right", "swapped", "blind")}
    )
    image = load_images(dev_data_dir, dev=True)[0]
    texts = [e.text for e in dev_questions.dev_expressions(image)]
    assert calls == [
        (1, ["a bus moving to the right", "a bus", "an object"], 192),
        (1, [*texts, "an object"], 224),
    ]


# Absent things


def test_auroc_is_the_share_of_pairs_in_order():
    rng = np.random.default_rng(0)
    for present, absent in ((1, 1), (5, 9), (40, 30)):
        high, low = rng.integers(2, 9, present) / 10, rng.integers(0, 7, absent) / 10  # ties
        pairs = [(a > b) + (a == b) / 2 for a in high for b in low]
        assert evaluate_dev.auroc(high, low) == pytest.approx(np.mean(pairs))
    assert evaluate_dev.auroc(np.array([0.9, 0.8]), np.array([0.1, 0.2])) == 1.0


def test_reliability_and_what_absent_things_get():
    verdicts = [
        Verdict(0.25, False, 0.004),
        Verdict(0.21, True, 0.2),
        Verdict(1.0, True, 0.3),
        Verdict(0.95, False, 0.1),
    ]
    rows = evaluate_dev.reliability(verdicts)
    assert [row["number"] for row in rows] == [0, 0, 2, 0, 0, 0, 0, 0, 0, 2]
    assert rows[0]["score"] is None and rows[2]["score"] == pytest.approx(0.23)
    assert rows[2]["present"] == rows[9]["present"] == 0.5
    scores = evaluate_dev.presence_scores(verdicts)
    assert scores["AUROC"] == 0.5 and scores["absent with mask"] == 0.5
    assert scores["calibration error"] == pytest.approx((0.27 + 0.475) / 2)
    assert (scores["present"], scores["absent"]) == (2, 2)


# The whole


def test_tables_show_fractions_in_percent(capsys):
    rows = {"one": {"J": 0.5, "number": 3}, "two": {"J": None, "number": 0}}
    dev_report.print_table("title", rows)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[:3]] == [
        ["title", "J", "number"],
        ["one", "50.0", "3"],
        ["two", "-", "0"],
    ]


def test_report_of_a_tiny_model(dev_data_dir, tmp_path, capsys):
    save_tiny_checkpoint(tmp_path / "model")
    evaluate_dev.main(tmp_path / "model", dev_data_dir, tmp_path / "dev", size=32, stride=4)
    report = json.loads((tmp_path / "dev/dev.json").read_text())
    assert report["settings"] == {"size": 32, "stride": 4, "image_frames": 1}
    assert {*report["videos"]} == {"bus"} and report["videos"]["bus"] == report["mean"]
    assert report["images"]["all"]["expressions"] == 2
    assert report["any objects"]["all"]["expressions"] == 4
    assert {*report["composed"]} == {"bus", "own object", "pasted object", "all"}
    counts = {name: (row["present"], row["absent"]) for name, row in report["absent"].items()}
    assert counts == {"images": (6, 12), "videos": (3, 6), "all": (9, 18)}
    assert sum(row["number"] for row in report["reliability"]) == 27
    assert report["speed"]["fps"] > 0
    assert Image.open(tmp_path / "dev/worst.png").size == (4 * 260, 260)  # objects
    assert all((tmp_path / "dev" / name).exists() for name in ("dev.png", "reliability.png"))
    assert "frames per second" in capsys.readouterr().out
