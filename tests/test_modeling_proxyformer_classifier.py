# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""`classifier_config`: a frozen image classifier's features and what its kinds say of a place."""

import copy

import numpy as np
import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import (
    BertConfig,
    RobertaConfig,
    RobertaTokenizer,
    TimmWrapperConfig,
    TimmWrapperForImageClassification,
)

from proxyformer_hf.modeling_proxyformer import ProxyFormerForReferringSegmentation
from proxyformer_hf.timm_networks import fold
from tests.test_modeling_proxyformer import assert_row_equals, pad, single_inputs
from tests.tiny_model import TINY_TEXT, VOCABULARY, perturb, tiny_model, tiny_swin

NAMES = {0: "cat, tabby", 1: "red car", 2: "b", 3: "teddy bear"}
FIRST_NAMES = ["cat", "red car", "b", "teddy bear"]
TOKENIZER = RobertaTokenizer(
    vocab={token: index for index, token in enumerate(VOCABULARY)}, merges=[]
)
VIDEOS = torch.linspace(-2, 2, 2 * 3 * 3 * 64 * 96).sin().view(2, 3, 3, 64, 96)
WORDS = torch.arange(5, 21).view(4, 4)  # two expressions a video
CLASSIFIER = TimmWrapperConfig(architecture="test_efficientnet", id2label=NAMES)
FIELDS = {"freeze_text": True, "grounding_map": True, "frozen_grounding": True}


def classifier_model(**fields) -> ProxyFormerForReferringSegmentation:
    """As at the start, with the names read."""
    model = tiny_model(**{"classifier_config": copy.deepcopy(CLASSIFIER), **FIELDS, **fields})
    model.model.read_class_names(TOKENIZER)
    return model


def perturbed_model(**fields) -> ProxyFormerForReferringSegmentation:
    """With weights far from those of the start, and features that differ by place."""
    model = perturb(classifier_model(**fields))
    model.model.read_class_names(TOKENIZER)
    return model


def without_classifier(
    model: ProxyFormerForReferringSegmentation,
) -> ProxyFormerForReferringSegmentation:
    config = copy.deepcopy(model.config)
    config.classifier_config = None
    plain = ProxyFormerForReferringSegmentation(config).to(model.dtype).eval()
    report = plain.load_state_dict(model.state_dict(), strict=False)
    assert not report.missing_keys
    assert all("classifier" in key or "model.kinds." in key for key in report.unexpected_keys)
    return plain


@pytest.mark.parametrize("stride", [8, 16, 32])
@torch.no_grad()
def test_each_cell_of_32_pixels_adds_its_features_to_the_encoded_map(stride):
    model = perturbed_model(encoded_stride=stride).double()
    found = model.get_video_features(VIDEOS.double())
    without = without_classifier(model).get_video_features(VIDEOS.double())
    encoder = model.model.video_encoder
    features, logits = encoder.classifier(VIDEOS.double().flatten(0, 1))
    features = features.unflatten(0, (2, 3))
    torch.testing.assert_close(found.kind_logits, logits.unflatten(0, (2, 3)))
    weight, bias = encoder.classifier_projection.parameters()
    added = found.encoded_map - without.encoded_map
    for y, x in np.ndindex(*added.shape[-2:]):
        cell = features[..., y * stride // 32, x * stride // 32]
        torch.testing.assert_close(added[..., y, x], cell @ weight[..., 0, 0].T + bias)
    assert added.std() > 0.1


@torch.no_grad()
def test_a_glance_at_the_middle_frame_of_three_counts_for_all():
    model = perturbed_model().double()
    every, some = (model.get_video_features(VIDEOS.double(), glance_every=n) for n in (1, 3))
    without = without_classifier(model).get_video_features(VIDEOS.double()).encoded_map
    torch.testing.assert_close(some.kind_logits, every.kind_logits[:, [1, 1, 1]])
    added = every.encoded_map - without
    torch.testing.assert_close(some.encoded_map - without, added[:, [1, 1, 1]])


@torch.no_grad()
def test_the_grounding_map_tells_what_the_kinds_of_a_place_have_to_do_with_the_words():
    """log of sum over kinds k of p(k | words) exp(logit of k), times the gain."""
    model = perturbed_model(encoded_stride=16).double().model
    found = model(pixel_values_videos=VIDEOS.double(), input_ids=WORDS).grounding_logits
    features, _ = model.video_encoder.classifier(VIDEOS.double().flatten(0, 1))
    features = features.unflatten(0, (2, 3))
    gain = model.kinds.gain.clone()
    model.kinds.gain.zero_()
    without = model(pixel_values_videos=VIDEOS.double(), input_ids=WORDS).grounding_logits

    names = []
    for name in FIRST_NAMES:
        hidden = model.text_encoder(torch.tensor([TOKENIZER(name)["input_ids"]]))[0][0, 1:-1]
        names.append(hidden.mean(0) / hidden.mean(0).norm())
    head = model.video_encoder.classifier.network.get_classifier()
    expected = torch.zeros_like(found)
    for row, ids in enumerate(WORDS):
        hidden = model.text_encoder(ids[None])[0][0].mean(0)
        meaning = hidden / hidden.norm()
        likeness = torch.stack([model.kinds.scale.exp()[0] * meaning @ name for name in names])
        shares = likeness.exp() / likeness.exp().sum()
        for t, y, x in np.ndindex(*expected.shape[1:]):
            logits = head.weight @ features[row // 2, t, :, y // 2, x // 2] + head.bias
            odds = (logits - logits.mean()).exp()
            expected[row, t, y, x] = gain[0] * (shares @ odds).log()
    torch.testing.assert_close(found - without, expected)
    assert expected.std() > 1e-3


@torch.no_grad()
def test_at_the_start_nothing_is_added_to_the_encoded_map():
    model = classifier_model()
    expected = without_classifier(model).get_video_features(VIDEOS).encoded_map
    torch.testing.assert_close(model.get_video_features(VIDEOS).encoded_map, expected)


@torch.no_grad()
def test_padding_changes_nothing():
    singles, model = single_inputs(), perturbed_model(encoded_stride=16).double()
    for single in singles:
        single["pixel_values_videos"] = single["pixel_values_videos"].double()
    inputs = pad(singles)
    inputs["pixel_values_videos"] = inputs["pixel_values_videos"].double()
    batched = model(**inputs)
    for row, single in enumerate(singles):
        assert_row_equals(batched, row, model(**single), tolerance=1e-10)


@torch.no_grad()
def test_in_bfloat16_it_runs_and_stays_finite():
    outputs = classifier_model().to(torch.bfloat16)(VIDEOS.bfloat16(), WORDS)
    assert outputs.referred_masks.dtype == torch.bfloat16
    assert outputs.referred_masks.isfinite().all()


@torch.no_grad()
def test_compiled_without_graph_breaks_equals_eager():
    torch.compiler.reset()
    model = perturbed_model(encoded_stride=16)
    compiled = torch.compile(model, fullgraph=True, dynamic=False, backend="aot_eager")
    found, expected = (each(VIDEOS, WORDS).pred_masks for each in (compiled, model))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_the_classifier_and_its_names_stay_as_they_are_and_what_reads_them_learns(tmp_path):
    classifier_model().save_pretrained(tmp_path)
    model = ProxyFormerForReferringSegmentation.from_pretrained(tmp_path).train()
    assert len(model.config.classifier_config.id2label) == len(NAMES)
    before = model.model.kinds.meanings.clone()
    torch.testing.assert_close(before.norm(dim=-1), torch.ones(len(NAMES)))
    assert not model.model.video_encoder.classifier.training
    model(VIDEOS, WORDS, mask_labels=torch.ones(4, 3, 64, 96)).loss.backward()
    for name, weight in model.named_parameters():
        frozen = name.startswith(("model.video_encoder.classifier.", "model.text_encoder."))
        assert weight.requires_grad != frozen, name
        assert (weight.grad is None) == frozen, name
    for weight in (model.model.kinds.gain, model.model.video_encoder.classifier_projection.weight):
        assert weight.grad.abs().sum() > 0
    assert torch.equal(model.model.kinds.meanings, before)


BUILT = {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1, **FIELDS}


def test_built_around_a_folder_it_has_its_classes_and_folded_weights(tmp_path):
    torch.manual_seed(4)
    classifier = TimmWrapperForImageClassification(copy.deepcopy(CLASSIFIER)).eval()
    classifier.save_pretrained(tmp_path / "classifier")
    model = ProxyFormerForReferringSegmentation.from_backbones(
        tiny_swin(), RobertaConfig(**TINY_TEXT), None, str(tmp_path / "classifier"), **BUILT
    )
    assert model.config.classifier_config.id2label == NAMES
    assert model.config.classifier_config._name_or_path == "classifier"  # not where it lay
    weights = model.model.video_encoder.classifier.network.state_dict()
    for name, weight in fold(classifier.timm_model).state_dict().items():
        assert torch.equal(weights[name], weight), name


def test_a_folder_of_another_model_is_refused(tmp_path):
    BertConfig().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"`classifier='{tmp_path}'`.*'bert', not 'timm_wrapper'"):
        ProxyFormerForReferringSegmentation.from_backbones(
            tiny_swin(), RobertaConfig(**TINY_TEXT), None, str(tmp_path), **BUILT
        )


@pytest.mark.parametrize("missing", ["freeze_text", "frozen_grounding"])
def test_without_what_it_needs_the_configuration_says_so(missing):
    needs = "`classifier_config` needs `freeze_text=True`"
    with pytest.raises((ValueError, StrictDataclassError), match=needs):
        tiny_model(classifier_config=CLASSIFIER, **{**FIELDS, missing: False})
