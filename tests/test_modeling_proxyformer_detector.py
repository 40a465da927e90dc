# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""`detector_config`: what a frozen detector sees, added to the video as features and words."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import BertConfig, ElectraConfig, RobertaConfig, RobertaTokenizer

from proxyformer_hf.configuration_nanodet import NanoDetConfig
from proxyformer_hf.modeling_nanodet import NanoDetBackbone
from proxyformer_hf.modeling_proxyformer import (
    ProxyFormerForReferringSegmentation,
    join_class_maps,
)
from tests.test_modeling_proxyformer import assert_row_equals, pad, single_inputs
from tests.tiny_model import TINY_TEXT, TINY_TIMM, VOCABULARY, perturb, tiny_model, tiny_swin

NAMES = {0: "cat", 1: "red car", 2: "b", 3: "teddy bear"}
TOKENIZER = RobertaTokenizer(
    vocab={token: index for index, token in enumerate(VOCABULARY)}, merges=[]
)
VIDEOS = torch.linspace(-2, 2, 2 * 3 * 3 * 64 * 96).sin().view(2, 3, 3, 64, 96)
WORDS = torch.arange(5, 13).view(2, 4)
TEXTS = {  # embeddings of the encoder's width, and wider ones
    "roberta": RobertaConfig(**TINY_TEXT),
    "electra": ElectraConfig(**TINY_TEXT, embedding_size=24),
}
VISIONS = {"video_swin": tiny_swin(), "timm": TINY_TIMM}
BROUGHT = ("model.video_encoder.detector.", "model.video_encoder.detector_projection.")


def tiny_nanodet(num_stages: int = 4) -> NanoDetConfig:
    depths = (1,) * num_stages
    return NanoDetConfig(stem_size=4, neck_size=4, depths=depths, reg_max=2, id2label=NAMES)


def detector_model(**fields) -> ProxyFormerForReferringSegmentation:
    """As at the start, with the words of NAMES read."""
    model = tiny_model(**{"detector_config": tiny_nanodet(), "freeze_text": True, **fields})
    model.model.read_class_names(TOKENIZER)
    return model


def perturbed_model(**fields) -> ProxyFormerForReferringSegmentation:
    """With weights far from those of the start, and probabilities that differ by place."""
    model = perturb(detector_model(**fields))
    with torch.no_grad():
        for weight in model.model.video_encoder.detector.parameters():
            scale = 0.1 if weight.ndim == 1 else math.sqrt(2 / weight[0].numel())
            weight.normal_(std=scale)
    model.model.read_class_names(TOKENIZER)
    return model


def without_detector(
    model: ProxyFormerForReferringSegmentation,
) -> ProxyFormerForReferringSegmentation:
    """The model with the same weights and no detector."""
    config = copy.deepcopy(model.config)
    config.detector_config = None
    plain = ProxyFormerForReferringSegmentation(config).to(model.dtype).eval()
    report = plain.load_state_dict(model.state_dict(), strict=False)
    assert not report.missing_keys
    assert all("detector" in key or "model.class_" in key for key in report.unexpected_keys)
    return plain


def random_class_maps(rows: int, columns: int) -> tuple[Tensor, ...]:
    """Of strides 8, 16 and 32, for frames of rows x columns canvases of 32 pixels."""
    torch.manual_seed(0)
    return tuple(torch.rand(2, 3, rows * scale, columns * scale) for scale in (4, 2, 1))


def largest_within(class_maps: tuple[Tensor, ...], stride: int) -> Tensor:
    """The largest probability of each class among all places that share pixels with a place."""
    rows, columns = (8 * length // stride for length in class_maps[0].shape[-2:])
    joined = class_maps[0].new_zeros(*class_maps[0].shape[:2], rows, columns)
    for row in range(rows):
        for column in range(columns):
            for probabilities, fine in zip(class_maps, (8, 16, 32), strict=False):
                top, left = (index * stride // fine for index in (row, column))
                bottom, right = (math.ceil((index + 1) * stride / fine) for index in (row, column))
                seen = probabilities[:, :, top:bottom, left:right].amax((2, 3))
                joined[:, :, row, column] = joined[:, :, row, column].maximum(seen)
    return joined


@pytest.mark.parametrize("number", [2, 3])
@pytest.mark.parametrize("size", [(2, 3), (3, 1), (1, 1)])
@pytest.mark.parametrize("stride", [8, 16, 32])
def test_joined_class_maps_hold_the_largest_probabilities(stride, size, number):
    class_maps = random_class_maps(*size)[:number]
    expected = largest_within(class_maps, stride)
    assert torch.equal(join_class_maps(class_maps, expected.shape[-2:]), expected)


@pytest.mark.parametrize("vision", VISIONS.values(), ids=VISIONS.keys())
@pytest.mark.parametrize("fields", [{}, {"lexical_words": True}], ids=["paper", "lexical"])
@pytest.mark.parametrize(("stride", "num_stages"), [(8, 4), (16, 4), (32, 4), (8, 3), (16, 3)])
@torch.no_grad()
def test_features_and_words_of_the_classes_are_added_to_the_encoded_map(
    stride, num_stages, fields, vision
):
    parts = {"vision_config": vision, "detector_config": tiny_nanodet(num_stages)}
    whole = perturbed_model(encoded_stride=stride, **parts, **fields).double()
    model, videos = whole.model, VIDEOS.double()
    found = model.get_video_features(videos)
    without = without_detector(whole).model.get_video_features(videos)

    encoder = model.video_encoder
    seen = encoder.detector(videos.flatten(0, 1))
    features = seen.feature_maps[(8, 16, 32).index(stride) + 1].unflatten(0, (2, 3))
    probabilities = largest_within(seen.class_maps, stride).unflatten(0, (2, 3))
    expected = torch.zeros_like(without.encoded_map)
    for channel, weight in enumerate(encoder.detector_projection.weight[:, :, 0, 0]):
        expected[:, :, channel] = encoder.detector_projection.bias[channel]
        for feature, factor in enumerate(weight):
            expected[:, :, channel] += factor * features[:, :, feature]
    for index, name in NAMES.items():
        word = model.text_projection(model.class_hidden[index])
        if fields:
            word = word + model.lexical_projection(model.class_embeddings[index])
        assert probabilities[:, :, index].std() > 1e-3, name
        for channel in range(len(word)):
            expected[:, :, channel] += probabilities[:, :, index] * word[channel]
    torch.testing.assert_close(found.encoded_map - without.encoded_map, expected)
    torch.testing.assert_close(found.class_map, probabilities)
    assert without.class_map is None
    for ours, theirs in zip(found.lateral_maps, without.lateral_maps, strict=True):
        torch.testing.assert_close(ours, theirs)


@torch.no_grad()
def test_neighbours_take_over_what_a_glance_at_the_middle_one_of_three_saw():
    whole = perturbed_model().double()
    videos = torch.linspace(-2, 2, 2 * 7 * 3 * 64 * 96).sin().view(2, 7, 3, 64, 96).double()
    every, some = (whole.get_video_features(videos, glance_every=n) for n in (1, 3))
    without = without_detector(whole).get_video_features(videos).encoded_map
    middle = [1, 1, 1, 4, 4, 4, 6]
    torch.testing.assert_close(some.class_map, every.class_map[:, middle])
    added = every.encoded_map - without
    torch.testing.assert_close(some.encoded_map - without, added[:, middle])
    with pytest.raises(ValueError, match="glance_every"):
        whole.get_video_features(videos, glance_every=0)


@torch.no_grad()
def test_a_detector_that_sees_nothing_adds_nothing():
    model = perturbed_model()
    encoder = model.model.video_encoder
    for head in encoder.detector.heads:
        head.output.weight.zero_()
        head.output.bias.fill_(-math.inf)
    encoder.detector_projection.weight.zero_()
    encoder.detector_projection.bias.zero_()
    plain = without_detector(model)
    ours, theirs = (each.model.get_video_features(VIDEOS).encoded_map for each in (model, plain))
    assert torch.equal(ours, theirs)


def test_class_contrast_needs_a_detector():
    with pytest.raises(ValueError, match="`class_contrast` needs `detector_config`"):
        tiny_model(class_contrast=0.5)


def test_a_detector_without_a_map_at_the_encoded_stride_is_named():
    with pytest.raises(ValueError, match=r"`detector_config` gives maps .*`encoded_stride=32`"):
        detector_model(detector_config=tiny_nanodet(num_stages=3))


def test_without_a_detector_there_is_nothing_of_it():
    model = tiny_model(lexical_words=True, freeze_text=True).model
    assert model.class_hidden is model.class_embeddings is model.video_encoder.detector is None
    assert not any("detector" in name or "class_" in name for name in model.state_dict())


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
@torch.no_grad()
def test_class_words_are_the_means_of_the_names_tokens(text):
    model = perturbed_model(text_config=text, lexical_words=True).model
    table = model.text_encoder.embeddings.word_embeddings.weight
    for index, name in NAMES.items():
        tokens = [VOCABULARY.index("Ġ" if letter == " " else letter) for letter in name]
        sentence = torch.tensor([[0, *tokens, 2]])  # <s>, the name, </s>
        hidden = model.text_encoder(sentence).last_hidden_state
        torch.testing.assert_close(model.class_hidden[index], hidden[0, 1:-1].mean(0))
        torch.testing.assert_close(model.class_embeddings[index], table[tokens].mean(0))


@torch.no_grad()
def test_the_words_are_saved_with_the_model(tmp_path):
    model = perturbed_model(lexical_words=True)
    model.save_pretrained(tmp_path)
    loaded = ProxyFormerForReferringSegmentation.from_pretrained(tmp_path)
    assert loaded.config.detector_config.id2label == NAMES
    for name in ("class_hidden", "class_embeddings"):
        words = getattr(model.model, name)
        assert words.abs().sum() > 0 and torch.equal(getattr(loaded.model, name), words)
    assert torch.equal(loaded(VIDEOS, WORDS).pred_masks, model(VIDEOS, WORDS).pred_masks)


@torch.no_grad()
def test_words_saved_in_float16_load_in_float32(tmp_path):
    model = detector_model()
    expected = model(VIDEOS, WORDS).pred_masks
    model.half().save_pretrained(tmp_path)
    loaded = ProxyFormerForReferringSegmentation.from_pretrained(tmp_path, dtype=torch.float32)
    assert {tensor.dtype for tensor in loaded.state_dict().values()} == {torch.float32}
    assert torch.equal(loaded.model.class_hidden, model.model.class_hidden.float())
    torch.testing.assert_close(loaded(VIDEOS, WORDS).pred_masks, expected, atol=0.01, rtol=0.01)


@torch.no_grad()
def test_a_checkpoint_without_a_detector_lacks_its_weights_and_words(tmp_path):
    without_detector(detector_model()).save_pretrained(tmp_path)
    loaded, report = ProxyFormerForReferringSegmentation.from_pretrained(
        tmp_path, detector_config=tiny_nanodet(), output_loading_info=True
    )
    names = {name for name in loaded.state_dict() if name.startswith(BROUGHT)}
    assert report["missing_keys"] == names | {"model.class_hidden"}
    assert torch.equal(loaded.model.class_hidden, torch.zeros(len(NAMES), 16))


@torch.no_grad()
def test_under_bfloat16_autocast_it_sees_the_same_and_adds_almost_the_same():
    model = perturbed_model().model
    expected = model.get_video_features(VIDEOS)
    with torch.autocast("cpu", torch.bfloat16):
        found = model.get_video_features(VIDEOS)
    assert torch.equal(found.class_map, expected.class_map)
    difference = found.encoded_map - expected.encoded_map
    assert 0 < difference.norm() < 2e-2 * expected.encoded_map.norm()


@torch.no_grad()
def test_compiled_without_graph_breaks_equals_eager():
    torch.compiler.reset()
    model = detector_model(vision_config=tiny_swin(num_stages=2), encoded_stride=8).model
    compiled = torch.compile(
        model.get_video_features, fullgraph=True, dynamic=False, backend="aot_eager"
    )
    found, expected = compiled(VIDEOS), model.get_video_features(VIDEOS)
    for name in ("encoded_map", "class_map"):
        torch.testing.assert_close(found[name], expected[name], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"vision_config": TINY_TIMM},
        {"encoded_stride": 16, "lexical_words": True, "grounding_map": True},
        {"grounding_map": True, "frozen_grounding": True},
    ],
    ids=["video_swin", "timm", "stride_16", "frozen_grounding"],
)
@torch.no_grad()
def test_padding_changes_nothing(fields):
    """To 1e-5 with weights as at the start, in double precision with large ones."""
    singles, model = single_inputs(), detector_model(**fields)
    batched = model(**pad(singles))
    for row, single in enumerate(singles):
        assert_row_equals(batched, row, model(**single))

    model = perturbed_model(**fields).double()
    for single in singles:
        single["pixel_values_videos"] = single["pixel_values_videos"].double()
    inputs = pad(singles)
    inputs["pixel_values_videos"] = inputs["pixel_values_videos"].double()
    batched = model(**inputs)
    for row, single in enumerate(singles):
        assert_row_equals(batched, row, model(**single), tolerance=1e-10)


@torch.no_grad()
def test_frozen_grounding_adds_what_the_meaning_says_of_places_and_of_their_classes():
    fields = {"grounding_map": True, "frozen_grounding": True}
    model = perturbed_model(**fields).double().model
    fusion, words = model.text_fusion, torch.arange(5, 21).view(4, 4)  # two expressions a video
    found = model(pixel_values_videos=VIDEOS.double(), input_ids=words)
    features = model.get_video_features(VIDEOS.double())
    projection, scale, gain = fusion.meaning_projection, fusion.class_scale.exp(), fusion.class_gain
    fusion.meaning_projection = None
    without = model(pixel_values_videos=VIDEOS.double(), input_ids=words)

    expected = torch.zeros_like(found.grounding_logits)
    for row, ids in enumerate(words):
        hidden = model.text_encoder(ids[None])[0][0]
        meaning = hidden.mean(0) / hidden.mean(0).norm()
        likeness = [scale * meaning @ name / name.norm() for name in model.class_hidden]
        total = sum(value.exp() for value in likeness)
        for place in np.ndindex(*expected.shape[1:]):
            t, y, x = place
            pixel = features.encoded_map[row // 2, t, :, y, x]
            logit = (projection.weight @ pixel + projection.bias) @ meaning
            for index, value in enumerate(likeness):
                probability = features.class_map[row // 2, t, index, y, x].clamp(1e-4, 1 - 1e-4)
                odds = (probability / (1 - probability)).log() - math.log(0.01 / 0.99)
                logit = logit + gain[0] * value.exp() / total * odds
            expected[row, t, y, x] = logit
    torch.testing.assert_close(found.grounding_logits - without.grounding_logits, expected)
    assert expected.std() > 0.1


@torch.no_grad()
def test_classes_seen_for_certain_keep_the_map_finite_in_half_precision():
    fusion = perturbed_model(grounding_map=True, frozen_grounding=True).model.text_fusion
    meanings = torch.nn.functional.normalize(torch.randn(4, 16), dim=-1)
    for probability in (0.0, 1.0):
        class_map = torch.full((4, 1, 4, 2, 3), probability, dtype=torch.bfloat16)
        assert fusion.agree(meanings, class_map, meanings).isfinite().all()


FIELDS = {
    "hidden_size": 16,
    "num_attention_heads": 2,
    "num_hidden_layers": 1,
    "freeze_text": True,
}


def test_built_around_a_folder_it_has_its_classes_and_weights(tmp_path):
    torch.manual_seed(4)
    detector = NanoDetBackbone(tiny_nanodet()).half()
    detector.save_pretrained(tmp_path / "nanodet")
    model = ProxyFormerForReferringSegmentation.from_backbones(
        tiny_swin(), TEXTS["roberta"], str(tmp_path / "nanodet"), **FIELDS
    )
    assert model.config.detector_config.id2label == NAMES
    assert model.config.detector_config._name_or_path == "nanodet"  # not where it lay
    assert model.model.class_hidden.shape == (len(NAMES), 16)
    weights = model.model.video_encoder.detector.state_dict()
    for name, weight in detector.state_dict().items():
        assert torch.equal(weights[name], weight.float()), name
        assert weights[name].dtype == torch.float32


def test_a_folder_of_another_model_is_refused(tmp_path):
    BertConfig().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"`detector='{tmp_path}'`.*'bert', not 'nanodet'"):
        ProxyFormerForReferringSegmentation.from_backbones(
            tiny_swin(), TEXTS["roberta"], str(tmp_path), **FIELDS
        )


@pytest.mark.parametrize("start", ["built", "trained", "loaded"])
@pytest.mark.parametrize("vision", VISIONS.values(), ids=VISIONS.keys())
def test_the_detector_and_its_words_stay_as_they_are(tmp_path, vision, start):
    model = detector_model(vision_config=vision)
    if start == "trained":
        model.eval().requires_grad_(True).train()
    if start == "loaded":
        model.save_pretrained(tmp_path)
        model = ProxyFormerForReferringSegmentation.from_pretrained(tmp_path)
    before = model.model.class_hidden.clone()
    assert before.abs().sum() > 0
    model(VIDEOS, WORDS, mask_labels=torch.ones(2, 3, 64, 96)).loss.backward()
    frozen = ("model.video_encoder.detector.", "model.text_encoder.")
    for name, weight in model.named_parameters():
        if name.startswith(frozen):
            assert not weight.requires_grad and weight.grad is None, name
        else:
            assert weight.grad is not None and weight.grad.isfinite().all(), name
    for part in (model.model.video_encoder.detector_projection, model.model.text_projection[0]):
        assert part.weight.grad.abs().sum() > 0
    assert "model.class_hidden" not in dict(model.named_parameters())
    assert torch.equal(model.model.class_hidden, before)
