# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
import itertools
import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image
from scipy.spatial.distance import cdist

from proxyformer_hf.evaluation.protocols import find_protocol
from proxyformer_hf.evaluation.scoring import MasksNotPublic, score
from tests.benchmark_truth import (
    encode,
    expression_masks,
    frame_masks,
    make_benchmark,
    write_davis_maps,
    write_detections,
    write_masks,
)

EXPRESSION_BENCHMARKS = ["ref-youtube-vos", "ref-davis17-converted", "mevis"]
FRAME_BENCHMARKS = ["a2d-sentences", "jhmdb-sentences"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Benchmark name -> its folder, made when first asked for; the index is cached beside it."""
    root = tmp_path_factory.mktemp("benchmarks")
    made: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in made:
            made[name] = make_benchmark(name, root / name)
        return made[name]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", root / "cache")
        yield folder


def protocol_of(name: str):
    if name == "ref-davis17-converted":
        return find_protocol("ref-davis17", "per-expression")
    return find_protocol(name)


def shifted(mask: np.ndarray) -> np.ndarray:
    """Moved by 3 columns and 1 row; what leaves the frame is lost."""
    moved = np.zeros_like(mask)
    moved[1:, 3:] = mask[:-1, :-3]
    return moved


def brute_region(prediction: np.ndarray, truth: np.ndarray) -> float:
    union = sum(map(bool, (prediction | truth).flat))
    return sum(map(bool, (prediction & truth).flat)) / union if union else 1.0


def brute_boundary(prediction: np.ndarray, truth: np.ndarray) -> float:
    """F from the distances of all pairs of boundary pixels."""
    outlines = []
    for mask in (prediction, truth):
        padded = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
        neighbours = padded[1:, :-1], padded[:-1, 1:], padded[1:, 1:]
        outlines.append(np.argwhere(np.any([mask != other for other in neighbours], axis=0)))
    if not len(outlines[0]) or not len(outlines[1]):
        return float(len(outlines[0]) == len(outlines[1]))
    near = cdist(*outlines) <= math.ceil(0.008 * math.hypot(*truth.shape))
    precision, recall = near.any(1).mean(), near.any(0).mean()
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def brute_scores(predictions, truths) -> tuple[float, float]:
    """J and F of a video: means over its frames."""
    pairs = list(zip(predictions, truths, strict=True))
    return (
        float(np.mean([brute_region(*pair) for pair in pairs])),
        float(np.mean([brute_boundary(*pair) for pair in pairs])),
    )


@pytest.mark.parametrize("name", EXPRESSION_BENCHMARKS)
def test_ground_truth_of_expressions_scores_100(name, folders, tmp_path):
    masks = expression_masks(name, folders(name))
    write_masks(masks, tmp_path)
    evaluation = score(protocol_of(name), folders(name), tmp_path)
    assert {n: v for n, v in evaluation.scores.items() if "Decay" not in n} == dict.fromkeys(
        ("J&F-Mean", "J-Mean", "J-Recall", "F-Mean", "F-Recall"), 100.0
    )
    keys = [(item.row["video_id"], item.row["expression_id"]) for item in evaluation.items]
    assert sorted(keys) == sorted(masks)


@pytest.mark.parametrize("name", EXPRESSION_BENCHMARKS)
def test_shifted_and_swapped_expressions_score_what_brute_force_says(name, folders, tmp_path):
    truths = expression_masks(name, folders(name))
    predictions = {}
    for video, expression in truths:
        other = truths[video, "2" if expression == "1" else expression]
        predictions[video, expression] = {frame: shifted(mask) for frame, mask in other.items()}
    write_masks(predictions, tmp_path)
    evaluation = score(protocol_of(name), folders(name), tmp_path)
    expected = {
        key: brute_scores(predictions[key].values(), truths[key].values()) for key in truths
    }
    for item in evaluation.items:
        region, boundary = expected[item.row["video_id"], item.row["expression_id"]]
        assert item.scores == pytest.approx(
            {"J&F": 50 * (region + boundary), "J": 100 * region, "F": 100 * boundary}
        )
    region, boundary = 100 * np.mean(list(expected.values()), axis=0)
    assert evaluation.scores["J-Mean"] == pytest.approx(region)
    assert evaluation.scores["F-Mean"] == pytest.approx(boundary)
    assert evaluation.scores["J&F-Mean"] == pytest.approx((region + boundary) / 2)
    assert 5 < region < 90  # neither all nothing nor all right


def test_ground_truth_maps_score_100_whatever_their_ids(folders, tmp_path):
    data = folders("ref-davis17")
    permutation = np.array([0, 3, 1, 2], np.uint8)
    write_davis_maps(data, tmp_path, lambda ids: permutation[ids])
    evaluation = score(find_protocol("ref-davis17"), data, tmp_path)
    for name in ("J&F-Mean", "J-Mean", "J-Recall", "F-Mean", "F-Recall"):
        assert evaluation.scores[name] == 100
    assert len(evaluation.items) == 4 * 3 * 3  # annotators, sequences, objects


def brute_unsupervised(prediction: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """J and F of each object under the assignment, of all there are, with the highest sum."""
    objects = range(1, truth[0][truth[0] < 255].max() + 1)
    known = truth != 255
    proposals = range(1, max(prediction.max(), len(objects)) + 1)
    pairs = {
        (p, o): brute_scores((prediction == p) & known, (truth == o) & known)
        for p in proposals
        for o in objects
    }
    assignments = itertools.permutations(proposals, len(objects))
    scores = (
        np.array([pairs[pair] for pair in zip(ids, objects, strict=True)]) for ids in assignments
    )
    return max(scores, key=np.sum)


def read_map(folder: Path) -> np.ndarray:
    return np.stack([np.array(Image.open(path)) for path in sorted(folder.glob("*.png"))])


def test_merged_maps_score_what_brute_force_says_and_annotators_count_alike(folders, tmp_path):
    data = folders("ref-davis17")
    write_davis_maps(data, tmp_path)
    rng = np.random.default_rng(0)
    for annotator in range(1, 4):  # annotator 0 is perfect
        for path in (tmp_path / f"anno_{annotator}").glob("*/*.png"):
            ids = np.array(Image.open(path))
            for _ in range(annotator):
                ids = shifted(ids)
            ids[ids == annotator] = rng.choice([0, annotator, 4])  # parts of an object go astray
            Image.fromarray(ids).save(path)
    evaluation = score(find_protocol("ref-davis17"), data, tmp_path)

    truth_folder = data / "DAVIS/Annotations_unsupervised/480p"
    expected = {}
    for annotator in range(4):
        for folder in sorted((tmp_path / f"anno_{annotator}").iterdir()):
            truth = read_map(truth_folder / folder.name)
            expected[annotator, folder.name] = brute_unsupervised(read_map(folder), truth)
    for item in evaluation.items:
        region, boundary = expected[item.annotator, item.row["video_id"]][item.object_id - 1]
        assert item.scores["J"] == pytest.approx(100 * region)
        assert item.scores["F"] == pytest.approx(100 * boundary)
    of_annotators = [
        np.concatenate([pair for (a, _), pair in expected.items() if a == annotator]).mean(0)
        for annotator in range(4)
    ]
    assert of_annotators[0].tolist() == [1, 1] and of_annotators[3].max() < 0.9
    region, boundary = 100 * np.mean(of_annotators, axis=0)
    assert evaluation.scores["J-Mean"] == pytest.approx(region)
    assert evaluation.scores["F-Mean"] == pytest.approx(boundary)


def test_items_of_merged_maps_tell_the_expression_behind_the_matched_prediction(folders, tmp_path):
    """dogs-jump has no text for its third object: no prediction answers it."""
    data = folders("ref-davis17")
    write_davis_maps(data, tmp_path, lambda ids: np.where(ids == 3, 0, ids).astype(np.uint8))
    items = score(find_protocol("ref-davis17"), data, tmp_path).items
    (untold,) = (
        item
        for item in items
        if (item.row["video_id"], item.annotator, item.object_id) == ("dogs-jump", 2, 3)
    )
    assert untold.row["expression"] == "" and untold.scores["J"] < 50
    (told,) = (
        item
        for item in items
        if (item.row["video_id"], item.annotator, item.object_id) == ("dogs-jump", 2, 2)
    )
    assert told.row["expression_id"] == "6" and told.scores["J"] == 100
    assert told.row["object_ids"] == [2]


def test_more_objects_than_davis_allows_are_refused(folders, tmp_path):
    data = folders("ref-davis17")
    write_davis_maps(data, tmp_path, lambda ids: np.where(ids == 3, 21, ids).astype(np.uint8))
    with pytest.raises(ValueError, match="the id 21"):
        score(find_protocol("ref-davis17"), data, tmp_path)


@pytest.mark.parametrize("protocol_name", ["published", "top-1"])
@pytest.mark.parametrize("name", FRAME_BENCHMARKS)
def test_ground_truth_of_frames_scores_100(name, protocol_name, folders, tmp_path):
    masks = frame_masks(folders(name))
    write_detections(tmp_path, {key: [(0.3, mask)] for key, mask in masks.items()})
    evaluation = score(find_protocol(name, protocol_name), folders(name), tmp_path)
    assert set(evaluation.scores.values()) == {100.0}
    expected = {"mAP 0.5:0.95", "P@0.5", "P@0.9", "overall_iou", "mean_iou"}
    assert expected <= evaluation.scores.keys()
    assert len(evaluation.items) == len(masks)


def brute_average_precision(
    detections: dict[tuple[str, str], list[tuple]], truths: dict[tuple[str, str], np.ndarray]
) -> float:
    """Mean over ten IoU thresholds of the precision at 101 recalls; one object an image."""
    ranked = sorted(
        ((score, key, mask) for key, queries in detections.items() for score, mask in queries),
        key=lambda entry: -entry[0],
    )
    ious = [brute_region(mask, truths[key]) for _, key, mask in ranked]
    values = []
    for threshold in np.linspace(0.5, 0.95, 10):
        found, hits, precisions, recalls = set(), 0, [], []
        for number, ((_, key, _), iou) in enumerate(zip(ranked, ious, strict=True), 1):
            if iou >= threshold and key not in found:
                found.add(key)
                hits += 1
            precisions.append(hits / number)
            recalls.append(hits / len(truths))
        for recall in np.linspace(0, 1, 101):
            reached = [p for p, r in zip(precisions, recalls, strict=True) if r >= recall]
            values.append(max(reached, default=0))
    return float(np.mean(values))


@pytest.mark.parametrize("name", FRAME_BENCHMARKS)
def test_detections_score_what_brute_force_says(name, folders, tmp_path):
    """A right query, a shifted and an empty one, in an order of scores that the frames mix."""
    truths = frame_masks(folders(name))
    rng = np.random.default_rng(0)
    detections = {}
    for key, mask in truths.items():
        scores = rng.permutation([0.1, 0.5, 0.9]) + rng.random() / 10
        queries = [mask, shifted(mask), np.zeros_like(mask)]
        detections[key] = list(zip(scores, queries, strict=True))
    write_detections(tmp_path, detections)
    best = {key: [max(queries, key=lambda query: query[0])] for key, queries in detections.items()}
    published = score(find_protocol(name), folders(name), tmp_path)
    top_1 = score(find_protocol(name, "top-1"), folders(name), tmp_path)

    expected = brute_average_precision(detections, truths), brute_average_precision(best, truths)
    assert published.scores["mAP 0.5:0.95"] == pytest.approx(100 * expected[0])
    assert top_1.scores["mAP 0.5:0.95"] == pytest.approx(100 * expected[1])
    assert expected[0] != pytest.approx(expected[1])
    ious = [brute_region(best[key][0][1], mask) for key, mask in truths.items()]
    areas = [
        ((best[key][0][1] & mask).sum(), (best[key][0][1] | mask).sum())
        for key, mask in truths.items()
    ]
    intersection, union = np.sum(areas, axis=0)
    for evaluation in (published, top_1):
        assert evaluation.scores["overall_iou"] == pytest.approx(100 * intersection / union)
        assert evaluation.scores["mean_iou"] == pytest.approx(100 * np.mean(ious), abs=1e-4)
        for k in (0.5, 0.7, 0.9):
            assert evaluation.scores[f"P@{k}"] == pytest.approx(100 * np.mean(np.array(ious) > k))


def test_an_answer_that_is_no_query_is_the_best_detection(folders, tmp_path):
    """As of a model with soft selection: mAP counts the queries, top-1 and IoU the answer."""
    name = "jhmdb-sentences"
    truths = frame_masks(folders(name))
    write_detections(tmp_path, {key: [(0.9, 1 - mask)] for key, mask in truths.items()})
    index = tmp_path / "predictions.jsonl"
    lines = [json.loads(line) for line in index.read_text().splitlines()]
    for line in lines:
        mask = truths[line["video_id"], line["expression_id"]]
        line |= {"score": 0.4, "answer": encode(mask)}
    index.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    published = score(find_protocol(name), folders(name), tmp_path)
    assert published.scores["mAP 0.5:0.95"] == 0 and published.scores["mean_iou"] == 100
    top_1 = score(find_protocol(name, "top-1"), folders(name), tmp_path)
    assert top_1.scores["mAP 0.5:0.95"] == 100


def test_mevis_video_without_predictions_scores_0_and_is_named(folders, tmp_path):
    masks = expression_masks("mevis", folders("mevis"))
    absent = next(iter(masks))[0]
    write_masks({key: frames for key, frames in masks.items() if key[0] != absent}, tmp_path)
    evaluation = score(find_protocol("mevis"), folders("mevis"), tmp_path)
    assert evaluation.absent == [absent]
    assert evaluation.scores["J-Mean"] == evaluation.scores["F-Mean"] == 50
    assert all(
        item.scores["J"] == (0 if item.row["video_id"] == absent else 100)
        for item in evaluation.items
    )


def test_masks_may_lie_without_a_top_folder(folders, tmp_path):
    """As in MeViS' zip."""
    write_masks(expression_masks("mevis", folders("mevis")), tmp_path)
    for path in (tmp_path / "Annotations").iterdir():
        path.rename(tmp_path / path.name)
    (tmp_path / "Annotations").rmdir()
    assert score(find_protocol("mevis"), folders("mevis"), tmp_path).scores["J&F-Mean"] == 100


@pytest.mark.parametrize(
    ("name", "removed", "message"),
    [
        ("ref-youtube-vos", "Annotations/0062f687f1", "Annotations lacks predictions: 0062f687f1$"),
        ("ref-youtube-vos", "Annotations/0062f687f1/2", ": 0062f687f1/2$"),
        (
            "ref-youtube-vos",
            "Annotations/00f88c4f0a/1/00040.png",
            r": 00f88c4f0a/1 \(frames 00040\)",
        ),
        ("mevis", "Annotations/*/3", r": \w+/3, \w+/3$"),
        ("mevis", "Annotations/*", r"Annotations lacks predictions: \w+, \w+$"),
    ],
)
def test_missing_predictions_are_named(name, removed, message, folders, tmp_path):
    write_masks(expression_masks(name, folders(name)), tmp_path)
    for path in tmp_path.glob(removed):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(ValueError, match=message):
        score(find_protocol(name), folders(name), tmp_path)


def test_missing_maps_and_sequences_are_named(folders, tmp_path):
    data = folders("ref-davis17")
    write_davis_maps(data, tmp_path)
    shutil.rmtree(tmp_path / "anno_3")
    shutil.rmtree(tmp_path / "anno_1/blackswan")
    for path in (tmp_path / "anno_2/blackswan").iterdir():
        path.unlink()
    (tmp_path / "anno_0/blackswan/00003.png").unlink()
    with pytest.raises(ValueError) as error:
        score(find_protocol("ref-davis17"), data, tmp_path)
    assert str(error.value) == (
        f"{tmp_path} lacks predictions: anno_0/blackswan (frames 00003), anno_1/blackswan, "
        "anno_2/blackswan, anno_3"
    )


def test_missing_detections_are_named_and_the_rest_counted(folders, tmp_path):
    name = "a2d-sentences"
    masks = frame_masks(folders(name))
    write_detections(tmp_path, {})
    with pytest.raises(ValueError, match=f"-0cOo0cRVZU 0@3, .* and {len(masks) - 10} more"):
        score(find_protocol(name), folders(name), tmp_path)


@pytest.mark.parametrize(
    "detections",
    [
        lambda mask: {"scores": [0.1, 0.2], "masks": [encode(mask)]},
        lambda mask: {"scores": [], "masks": []},
        lambda mask: {"scores": [0.1], "masks": [encode(mask[1:])]},
        lambda mask: {"masks": [encode(mask)]},
        lambda mask: {"score": 0.1},
        lambda mask: {"scores": [0.1], "masks": [encode(mask)], "answer": encode(mask)},
    ],
)
def test_malformed_detections_are_named(detections, folders, tmp_path):
    masks = frame_masks(folders("jhmdb-sentences"))
    write_detections(tmp_path, {key: [(0.5, mask)] for key, mask in masks.items()})
    (video, expression), mask = list(masks.items())[4]
    line = {"video_id": video, "expression_id": expression} | detections(mask)
    with (tmp_path / "predictions.jsonl").open("a") as file:
        file.write(json.dumps(line))
    with pytest.raises(ValueError, match=rf"predictions.jsonl at {video} {expression}: expected"):
        score(find_protocol("jhmdb-sentences"), folders("jhmdb-sentences"), tmp_path)


def test_predictions_of_another_size_are_named(folders, tmp_path):
    write_masks(expression_masks("mevis", folders("mevis")), tmp_path, lambda mask: mask[:-2])
    with pytest.raises(ValueError, match=r"00000.png has 96x62 pixels .* 96x64"):
        score(find_protocol("mevis"), folders("mevis"), tmp_path)


@pytest.mark.parametrize(
    "to_image",
    [
        lambda mask: Image.fromarray(mask.astype(np.uint8)),  # 0 and 1 instead of 0 and 255
        lambda mask: Image.fromarray(mask),  # one bit a pixel
        lambda mask: Image.fromarray(mask.astype(np.uint8)).convert("P"),
    ],
)
def test_all_that_is_not_0_is_the_object(to_image, folders, tmp_path):
    write_masks(expression_masks("mevis", folders("mevis")), tmp_path)
    for path in tmp_path.rglob("*.png"):
        to_image(np.array(Image.open(path)) > 0).save(path)
    assert score(find_protocol("mevis"), folders("mevis"), tmp_path).scores["J&F-Mean"] == 100


def test_colour_images_are_refused(folders, tmp_path):
    write_masks(expression_masks("mevis", folders("mevis")), tmp_path)
    path = next(tmp_path.rglob("*.png"))
    Image.open(path).convert("RGB").save(path)
    with pytest.raises(ValueError, match=f"{path} has the mode RGB"):
        score(find_protocol("mevis"), folders("mevis"), tmp_path)


@pytest.mark.parametrize(("name", "split"), [("mevis", "valid"), ("ref-youtube-vos", "test")])
def test_split_without_masks_cannot_be_scored(name, split, folders, tmp_path):
    with pytest.raises(MasksNotPublic, match=f"{name} {split} cannot be scored"):
        score(find_protocol(name), folders(name), tmp_path, split)


def test_folder_must_exist(folders, tmp_path):
    with pytest.raises(ValueError, match="nowhere is no folder"):
        score(find_protocol("mevis"), folders("mevis"), tmp_path / "nowhere")


def test_workers_change_nothing(folders, tmp_path):
    masks = expression_masks("mevis", folders("mevis"))
    write_masks(masks, tmp_path, shifted)
    alone, shared = (
        score(find_protocol("mevis"), folders("mevis"), tmp_path, num_workers=workers)
        for workers in (0, 2)
    )
    assert alone == shared


def test_scoring_imports_no_model():
    code = (
        "import sys; import proxyformer_hf.evaluation.scoring, proxyformer_hf.evaluation.report\n"
        "names = ('proxyformer_hf.modeling_', 'proxyformer_hf.processing_', "
        "'transformers.modeling_utils', 'timm')\n"
        "print([name for name in sys.modules if name.startswith(names)])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
