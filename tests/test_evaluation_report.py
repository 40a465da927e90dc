# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
import csv
import json
from dataclasses import replace

import datasets
import numpy as np
import pytest

from proxyformer_hf.evaluation.protocols import ExpressionMasks, find_protocol
from proxyformer_hf.evaluation.report import (
    FONT_SIZE,
    draw_page,
    draw_strip,
    format_table,
    pick,
    title_of,
    video_means,
    write_report,
)
from proxyformer_hf.evaluation.scoring import Evaluation, Item, score
from tests.benchmark_truth import (
    expression_masks,
    frame_masks,
    make_benchmark,
    write_davis_maps,
    write_detections,
    write_masks,
)


def item(value: float, video: str = "v", **fields) -> Item:
    row = {"video_id": video, "expression_id": "0", "expression": f"thing {value}"}
    return Item(row, {"J&F": value, "J": value + 1, "F": value - 1}, **fields)


@pytest.fixture(scope="module")
def evaluations(tmp_path_factory):
    """Of each kind of protocol: the evaluation of half right predictions, with both folders."""
    root = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", root / "cache")
        found = {}
        for name in ("mevis", "ref-davis17", "a2d-sentences"):
            data, predictions = make_benchmark(name, root / name), root / f"{name}-predictions"
            if name == "mevis":
                masks = expression_masks(name, data)
                first = next(iter(masks))[0]
                write_masks({k: m for k, m in masks.items() if k[0] != first}, predictions)
            elif name == "ref-davis17":
                write_davis_maps(data, predictions, lambda ids: np.roll(ids, 20, axis=1))
            else:
                masks = frame_masks(data)
                write_detections(predictions, {k: [(0.5, mask)] for k, mask in masks.items()})
            protocol = find_protocol(name)
            found[name] = score(protocol, data, predictions), data, predictions
        yield found


def test_table_names_what_was_scored_and_every_score():
    protocol = ExpressionMasks(benchmark="mevis", split="valid_u")
    items = [item(50, "a"), item(60, "a"), item(70, "b")]
    evaluation = Evaluation(protocol, "train", {"J&F-Mean": 60.0, "J": 61.125}, items, ["c", "d"])
    assert format_table(evaluation).splitlines() == [
        "mevis train, protocol published: 2 videos",
        "J&F-Mean   60.00",
        "J          61.12",
        "no predictions, so that they scored 0: c, d",
    ]


def test_limited_split_is_said_in_table_and_report(evaluations, tmp_path):
    evaluation, data, predictions = evaluations["mevis"]
    assert "first of the split" not in format_table(evaluation)
    limited = replace(evaluation, protocol=replace(evaluation.protocol, num_videos=2))
    assert format_table(limited).splitlines()[0].endswith("2 videos, the first of the split only")
    for of, expected in ((evaluation, None), (limited, 2)):
        path, *_ = write_report(of, data, predictions, tmp_path)
        assert json.loads(path.read_text())["num_videos"] == expected


def test_means_of_videos_are_those_of_their_items():
    items = [item(50, "b"), item(10, "a"), item(70, "b")]
    assert video_means(items) == [
        {"video_id": "b", "items": 2, "J&F": 60, "J": 61, "F": 59},
        {"video_id": "a", "items": 1, "J&F": 10, "J": 11, "F": 9},
    ]


@pytest.mark.parametrize(
    ("values", "picked"),
    [
        (range(11), {"best": [10, 9, 8], "median": [5, 6, 4], "worst": [0, 1, 2]}),
        (range(4), {"best": [3, 2, 1], "median": [2, 1, 3], "worst": [0, 1, 2]}),
        ([7], {"best": [7], "median": [7], "worst": [7]}),
    ],
)
def test_best_median_and_worst_are_picked(values, picked):
    shuffled = np.random.default_rng(0).permutation(list(values)).tolist()
    found = {place: [] for place in picked}
    for place, picked_item in pick([item(value, video=f"v{value}") for value in shuffled]):
        found[place].append(picked_item.scores["J&F"])
    assert found == picked


def test_a_video_is_shown_once_in_a_place():
    items = [item(value, video="ab"[value > 3]) for value in range(6)]
    found = [(place, picked_item.scores["J&F"]) for place, picked_item in pick(items)]
    assert found[:2] == [("best", 5), ("best", 3)]
    assert found[2:] == [("median", 3), ("median", 4), ("worst", 0), ("worst", 4)]


def test_title_tells_what_is_shown():
    assert title_of("best", item(50)) == "best, J&F 50.0: thing 50 (v, expression 0)"
    untold = replace(item(12.34, annotator=2, object_id=3), row={"video_id": "v", "expression": ""})
    untold.row["expression_id"] = ""
    assert title_of("worst", untold) == (
        "worst, J&F 12.3: (no expression) (v, object 3 of annotator 2)"
    )


@pytest.mark.parametrize("name", ["mevis", "ref-davis17", "a2d-sentences"])
def test_report_holds_scores_settings_and_versions(name, evaluations, tmp_path):
    evaluation, data, predictions = evaluations[name]
    (predictions / "settings.json").write_text('{"window": 36}')
    paths = write_report(evaluation, data, predictions, tmp_path / "new")
    assert [path.name for path in paths] == [
        f"scores-published.{end}" for end in ("json", "csv", "png")
    ]
    report = json.loads(paths[0].read_text())
    assert report["benchmark"] == name and report["protocol"] == "published"
    assert report["split"] == evaluation.split
    assert report["scores"] == evaluation.scores
    assert report["absent"] == evaluation.absent
    assert report["settings"] == {"window": 36}
    assert report["versions"]["proxyformer-hf"] and report["versions"]["numpy"]
    assert len(report["items"]) == len(evaluation.items)
    for described, found in zip(report["items"], evaluation.items, strict=True):
        assert described["video_id"] == found.row["video_id"]
        assert described["expression"] == found.row["expression"]
        assert found.scores.items() <= described.items()
        assert described.get("object_id") == found.object_id
    with paths[1].open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row, expected in zip(rows, video_means(evaluation.items), strict=True):
        assert row == {key: str(value) for key, value in expected.items()}


def test_report_of_another_systems_predictions_has_no_settings(evaluations, tmp_path):
    evaluation, data, predictions = evaluations["mevis"]
    (predictions / "settings.json").unlink(missing_ok=True)
    report = json.loads(write_report(evaluation, data, predictions, tmp_path)[0].read_text())
    assert report["settings"] == {}


def test_strip_shows_the_tiles_beside_one_another_under_the_title():
    tiles = [np.full((20, 40, 3), value) for value in (0, 100.4, 200)]
    strip = np.asarray(draw_strip("a title", tiles))
    height = 160  # of tiles 320 wide
    bottom = strip[-6 - height // 2]
    for number, value in enumerate((0, 100, 200)):
        assert (bottom[6 + number * 326 : 6 + number * 326 + 320] == value).all()
    assert (strip[: FONT_SIZE + 4] < 128).any()  # letters
    longer = draw_strip("a title " * 60, tiles)
    assert longer.height > strip.shape[0] and longer.width == strip.shape[1]


@pytest.mark.parametrize("name", ["mevis", "ref-davis17", "a2d-sentences"])
def test_page_shows_truth_and_prediction(name, evaluations):
    evaluation, data, predictions = evaluations[name]
    page = draw_page(evaluation, data, predictions)
    videos = {found.row["video_id"] for found in evaluation.items}
    width, height = {"mevis": (96, 64), "ref-davis17": (98, 64), "a2d-sentences": (112, 64)}[name]
    assert page.width == 3 * 326 + 6
    strip = 320 * height / width + 30  # the mean width of the videos
    assert page.height == pytest.approx(24 + 3 * len(videos) * strip, abs=3 * len(videos))
    best = np.asarray(page.crop((0, 24 + 26, page.width, 24 + 180))).astype(int)
    frame, truth, prediction = (best[:, 10 + 326 * k : 320 + 326 * k] for k in range(3))
    assert (frame != truth).any()
    assert (truth == prediction).all() == (name != "ref-davis17")  # there all maps are shifted
