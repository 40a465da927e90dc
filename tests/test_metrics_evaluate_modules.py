# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
from pathlib import Path

import evaluate
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle

import proxyformer_hf.metrics.evaluate_modules
from proxyformer_hf.masks import save_mask
from proxyformer_hf.metrics.evaluate_modules.mask_map import MaskMAP
from proxyformer_hf.metrics.evaluate_modules.mask_precision import MaskPrecision
from proxyformer_hf.metrics.evaluate_modules.region_boundary import RegionBoundary
from proxyformer_hf.metrics.mask_map import Detections, mask_map
from proxyformer_hf.metrics.mask_precision import intersection_and_union, mask_precision
from proxyformer_hf.metrics.region_boundary import (
    object_scores,
    semi_supervised_scores,
    summarize,
    unsupervised_scores,
)

FOLDER = Path(proxyformer_hf.metrics.evaluate_modules.__file__).parent


def id_maps(num_frames: int, height: int = 24, width: int = 30) -> tuple[np.ndarray, np.ndarray]:
    """Two squares and a prediction beside them, uint8 (num_frames, height, width)."""
    truth = np.zeros((num_frames, height, width), np.uint8)
    truth[:, 3:12, 4:13], truth[:, 10:20, 15:27] = 1, 2
    prediction = np.roll(truth, 2, 2)
    prediction[-1] = np.roll(truth[-1], 4, 1)
    return prediction, truth


def test_region_boundary_is_the_summary_of_the_sequences_added(tmp_path):
    maps = [id_maps(3), id_maps(5, width=41), id_maps(2)]
    expected = summarize(unsupervised_scores(*pair) for pair in maps)
    assert 0 < expected["J-Mean"] < 1 and 0 < expected["F-Mean"] < 1
    predictions, references = zip(*maps, strict=True)
    metric = RegionBoundary("unsupervised", cache_dir=str(tmp_path))
    metric.add(prediction=predictions[0], reference=references[0])
    metric.add_batch(predictions=predictions[1:], references=references[1:])
    assert metric.compute() == expected
    assert metric.compute(predictions=predictions, references=references) == expected


@pytest.mark.parametrize(
    ("config_name", "score"),
    [
        (None, object_scores),
        ("default", object_scores),
        ("semi-supervised", semi_supervised_scores),
    ],
)
def test_configuration_of_region_boundary_is_the_protocol(tmp_path, config_name, score):
    prediction, truth = id_maps(6)
    metric = RegionBoundary(config_name, cache_dir=str(tmp_path))
    result = metric.compute(predictions=[prediction], references=[truth])
    assert result == summarize([score(prediction, truth)])


def test_unknown_configuration_is_refused(tmp_path):
    with pytest.raises(ValueError, match="one of default, semi-supervised, unsupervised, got 'x'"):
        RegionBoundary("x", cache_dir=str(tmp_path))


def test_region_boundary_takes_files_images_and_arrays_of_any_integers(tmp_path):
    prediction, truth = id_maps(3)
    paths = [tmp_path / f"{index:05d}.png" for index in range(3)]
    for path, ids in zip(paths, prediction, strict=True):
        save_mask(path, ids)
    expected = summarize([unsupervised_scores(prediction, truth)])
    metric = RegionBoundary("unsupervised", cache_dir=str(tmp_path))
    for frames in (paths, [*map(str, paths)], [*map(Image.open, paths)], prediction.astype(int)):
        assert metric.compute(predictions=[frames], references=[truth]) == expected
    masks = prediction == 1, truth == 1
    metric = RegionBoundary(cache_dir=str(tmp_path))
    result = metric.compute(predictions=[masks[0]], references=[masks[1]])
    assert result == summarize([object_scores(*masks)])


def test_region_boundary_refuses_numbers_that_are_no_ids(tmp_path):
    metric = RegionBoundary(cache_dir=str(tmp_path))
    with pytest.raises(ValueError, match="integers in 0...255, got float64 in 0.5...0.5"):
        metric.add(prediction=np.full((1, 4, 6), 0.5), reference=np.zeros((1, 4, 6), bool))


def encode(mask: np.ndarray) -> dict:
    code = rle.encode(np.asfortranarray(mask, np.uint8))
    return {"size": code["size"], "counts": code["counts"].decode()}


TRUTHS = np.random.default_rng(0).random((5, 12, 17)) < 0.5
NOISE = (
    np.random.default_rng(1).random((5, 3, 12, 17)) < np.linspace(0, 0.5, 5)[:, None, None, None]
)
QUERIES = TRUTHS[:, None] ^ NOISE
SCORES = [[0.1, 0.9, 0.3], [0.8, 0.2, 0.1], [0.5, 0.1, 0.5], [0.2, 0.3, 0.4], [0.9, 0.1, 0.2]]
BEST = [1, 0, 2, 2, 0]
PREDICTIONS = [
    {"scores": scores, "masks": [*map(encode, masks)]}
    for scores, masks in zip(SCORES, QUERIES, strict=True)
]
REFERENCES = [{"image_id": f"v_{i}", "mask": encode(mask)} for i, mask in enumerate(TRUTHS)]


def detection_results(best_only: bool = False) -> dict[str, float]:
    truths = {reference["image_id"]: reference["mask"] for reference in REFERENCES}
    detections = [Detections(k, **p) for k, p in zip(truths, PREDICTIONS, strict=True)]
    return mask_map(truths, detections, best_only)


def precision_results() -> dict[str, float]:
    return mask_precision(*intersection_and_union(QUERIES[range(5), BEST], TRUTHS))


@pytest.mark.parametrize(
    ("module", "results"), [(MaskPrecision, precision_results), (MaskMAP, detection_results)]
)
def test_detections_are_scored_as_they_are_added(tmp_path, module, results):
    metric = module(cache_dir=str(tmp_path))
    metric.add(prediction=PREDICTIONS[0], reference=REFERENCES[0])
    metric.add_batch(predictions=PREDICTIONS[1:], references=REFERENCES[1:])
    assert metric.compute() == results()
    assert metric.compute(predictions=PREDICTIONS, references=REFERENCES) == results()
    assert all(0 < value < 1 for name, value in results().items() if name[-1] not in "ML")


def test_mean_average_precision_of_the_best_queries_alone(tmp_path):
    metric = MaskMAP(cache_dir=str(tmp_path))
    result = metric.compute(predictions=PREDICTIONS, references=REFERENCES, best_only=True)
    assert result == detection_results(best_only=True) != detection_results()


def test_image_that_is_added_twice_is_refused(tmp_path):
    metric = MaskMAP(cache_dir=str(tmp_path))
    with pytest.raises(ValueError, match="v_0 comes twice"):
        metric.compute(predictions=PREDICTIONS[:1] * 2, references=REFERENCES[:1] * 2)


@pytest.mark.parametrize("name", ["region_boundary", "mask_precision", "mask_map"])
def test_module_loads_from_its_file_and_describes_itself(tmp_path, name):
    metric = evaluate.load(str(FOLDER / f"{name}.py"), cache_dir=str(tmp_path))
    assert metric.description and metric.citation.startswith("@")
    assert "predictions:" in metric.inputs_description and "Returns:" in metric.inputs_description
    assert list(metric.features) == ["predictions", "references"]
    if name == "region_boundary":
        prediction, truth = id_maps(3)
        result = metric.compute(predictions=[prediction], references=[truth])
        assert result == summarize([object_scores(prediction, truth)])
    else:
        result = metric.compute(predictions=PREDICTIONS, references=REFERENCES)
        assert result == (precision_results() if name == "mask_precision" else detection_results())


def test_both_detection_metrics_combine(tmp_path):
    metrics = [MaskPrecision(cache_dir=str(tmp_path)), MaskMAP(cache_dir=str(tmp_path))]
    result = evaluate.combine(metrics).compute(predictions=PREDICTIONS, references=REFERENCES)
    assert result == precision_results() | detection_results()
