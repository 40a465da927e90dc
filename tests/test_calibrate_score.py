# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""Calibration of the score: against a grid of scales and offsets, and known truths."""

import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import expit, logit

from tests.tiny_model import perturb, tiny_model

sys.path.append(str(Path(__file__).resolve().parents[1] / "scripts"))
import calibrate_score  # noqa: E402


def drawn(number: int, scale: float, offset: float) -> tuple[np.ndarray, np.ndarray]:
    """Scores, and presence drawn with the probability that the calibration should find."""
    rng = np.random.default_rng(0)
    scores = rng.uniform(0.1, 0.6, number)
    return scores, rng.random(number) < expit(scale * logit(scores) + offset)


def balanced_loss(scores, present, scale, offset):
    probability = expit(scale * logit(scores) + offset)
    return -(np.log(probability[present]).mean() + np.log(1 - probability[~present]).mean()) / 2


def test_fit_finds_the_smallest_loss_of_a_grid():
    scores, present = drawn(500, scale=2.0, offset=3.0)
    found = calibrate_score.fit(scores, present)
    best = balanced_loss(scores, present, *found)
    for scale, offset in product(np.linspace(0.2, 5, 25), np.linspace(-2, 6, 25)):
        assert best <= balanced_loss(scores, present, scale, offset) + 1e-6


def test_fit_finds_what_the_truth_was_drawn_from():
    scores, present = drawn(200_000, scale=2.0, offset=1.5)
    scale, offset = calibrate_score.fit(scores, present)
    shown = present.mean()  # the fit counts present and absent the same
    assert scale == pytest.approx(2.0, abs=0.05)
    assert offset == pytest.approx(1.5 - logit(shown), abs=0.05)


@pytest.mark.parametrize(
    ("present", "message"), [([1, 1, 1], "all show"), ([0, 0, 0], "all show"), ([1, 0, 0], "high")]
)
def test_what_cannot_be_calibrated_is_refused(present, message):
    with pytest.raises(ValueError, match=message):
        calibrate_score.fit(np.array([0.2, 0.4, 0.6]), np.array(present, bool))


@torch.no_grad()
def test_the_model_applies_scale_and_offset_to_the_best_logit():
    logits = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(0))
    best = logits.sigmoid().mean(1).amax(-1).numpy()
    for scale, offset in ((1.0, 0.0), (2.5, -0.7)):
        model = perturb(tiny_model(score_scale=scale, score_offset=offset))
        expected = expit(scale * logit(best) + offset)
        np.testing.assert_allclose(model.score(logits, None).numpy(), expected, rtol=1e-5)
