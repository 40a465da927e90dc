# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""Folded norms change nothing; a classifier read at each place agrees with the whole network."""

import copy

import pytest
import torch
from timm.layers import FrozenBatchNormAct2d
from transformers import TimmWrapperConfig, TimmWrapperForImageClassification

from proxyformer_hf.timm_networks import VIEW, ProxyFormerClassifier, fold

CONFIG = TimmWrapperConfig(architecture="test_efficientnet", num_labels=7)


@pytest.fixture(scope="module")
def trained() -> TimmWrapperForImageClassification:
    """With statistics and weights as if it had been trained."""
    torch.manual_seed(0)
    model = TimmWrapperForImageClassification(CONFIG).eval()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith(("running_var", "bn1.weight", "bn2.weight", "bn3.weight")):
                tensor.uniform_(0.5, 2)
            elif name.endswith(("running_mean", "bias")):
                tensor.normal_(std=0.2)
    return model


@pytest.fixture(scope="module")
def classifier(trained) -> ProxyFormerClassifier:
    classifier = ProxyFormerClassifier(CONFIG).eval()
    classifier.load(copy.deepcopy(trained))
    return classifier


@torch.no_grad()
def test_folded_norms_leave_the_logits_as_they_were(trained):
    frames = torch.randn(2, 3, 64, 96)
    folded = fold(copy.deepcopy(trained).timm_model)
    assert not any(isinstance(m, FrozenBatchNormAct2d) for m in folded.modules())
    torch.testing.assert_close(folded(frames), trained.timm_model(frames), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_frame_of_one_place_is_classified_as_the_whole_picture(trained, classifier):
    frames = torch.randn(2, 3, 32, 32)
    _, logits = classifier(frames)
    expected = trained(frames).logits
    expected = expected - expected.mean(1, keepdim=True)
    torch.testing.assert_close(logits[..., 0, 0], expected, rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_each_place_is_classified_by_its_features(trained, classifier):
    features, logits = classifier(torch.randn(2, 3, 96, 160))
    expected = trained.timm_model.get_classifier()(features.movedim(1, -1))
    expected = expected - expected.mean(-1, keepdim=True)
    torch.testing.assert_close(logits.movedim(1, -1), expected, rtol=1e-3, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize(("height", "width"), [(32, 64), (96, 160), (288, 512)])
def test_features_and_logits_lie_on_a_grid_of_stride_32(trained, classifier, height, width):
    features, logits = classifier(torch.randn(1, 3, height, width))
    grid = (height // 32, width // 32)
    assert features.shape == (1, classifier.num_features, *grid)
    assert logits.shape == (1, trained.config.num_labels, *grid)


@torch.no_grad()
def test_frames_are_seen_at_two_thirds_of_their_size(classifier):
    sizes = []
    handle = classifier.network.conv_stem.register_forward_pre_hook(
        lambda _, inputs: sizes.append(tuple(inputs[0].shape[-2:]))
    )
    classifier(torch.randn(1, 3, 288, 480))
    handle.remove()
    assert sizes == [(VIEW * 288, VIEW * 480)]
