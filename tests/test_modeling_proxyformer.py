# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import ElectraConfig, ResNetConfig, TimmBackboneConfig

from proxyformer_hf.modeling_proxyformer import (
    ProxyFormerModel,
    ProxyFormerReferringSegmentationOutput,
)
from tests.tiny_model import (
    TINY_TEXT,
    TINY_TIMM,
    VOCABULARY,
    perturb,
    tiny_config,
    tiny_model,
    tiny_swin,
)

RECIPE = {
    "early_fusion": True,
    "grounding_map": True,
    "soft_selection": True,
    "intermediate_size": 12,
    "pre_norm": True,
}
TIMM = {"vision_config": TINY_TIMM}


def random_words(rows: int, length: int = 4) -> Tensor:
    return torch.randint(5, len(VOCABULARY), (rows, length))


def detr_positions(height: int, width: int, channels: int) -> Tensor:
    """(height, width, channels) as PositionEmbeddingSine of Deformable DETR computes it."""
    places = torch.ones(height, width)
    rows = (places.cumsum(0) - 0.5) / height * 2 * math.pi
    columns = (places.cumsum(1) - 0.5) / width * 2 * math.pi
    index = torch.arange(channels // 2)
    period = 10000 ** (2 * torch.div(index, 2, rounding_mode="floor") / (channels // 2))
    axes = []
    for place in (rows, columns):
        angle = place[..., None] / period
        axes.append(
            torch.stack((angle[..., 0::2].sin(), angle[..., 1::2].cos()), dim=-1).flatten(-2)
        )
    return torch.cat(axes, dim=-1)


def test_positions_are_detrs_over_the_real_extent_of_each_video():
    model = ProxyFormerModel(tiny_config())
    extents = torch.tensor([[5, 3, 4], [2, 3, 2]])
    tokens = model.locate_tokens(torch.empty(2, 5, 16, 3, 4), extents)
    space = tokens.space.view(2, 3, 4, 16)
    torch.testing.assert_close(space[0], detr_positions(3, 4, 16))
    torch.testing.assert_close(space[1, :, :2], detr_positions(3, 2, 16))
    for row, num_frames in enumerate((5, 2)):
        time = detr_positions(num_frames, 1, 32)[:, 0, :16]
        torch.testing.assert_close(tokens.time[row, :num_frames, 0], time)
    assert tokens.valid_frames.tolist() == [[True] * 5, [True, True, False, False, False]]
    assert tokens.valid_tokens.view(2, 3, 4)[1].tolist() == [[True, True, False, False]] * 3

    whole = model.locate_tokens(torch.empty(2, 5, 16, 3, 4), None)
    torch.testing.assert_close(whole.space[0], tokens.space[0])
    torch.testing.assert_close(whole.time[0], tokens.time[0])


# --- Variants ---

VARIANTS = {
    "paper": {},
    "timm": TIMM,
    "full": {"interaction": "full"},
    "direct": {"interaction": "direct"},
    "conditional": {"interaction": "conditional"},
    "no_proxy_to_video": {"proxy_to_video": False},
    "full_no_proxy_to_video": {"interaction": "full", "proxy_to_video": False},
    "early_fusion": {"early_fusion": True},
    "text_to_video": {"text_to_video": True},
    "full_text_to_video": {"interaction": "full", "text_to_video": True},
    "grounding_map": {"grounding_map": True},
    "frozen_grounding": {"grounding_map": True, "frozen_grounding": True},
    "soft_selection": {"soft_selection": True},
    "single_region": {"single_region": True},
    "feed_forward": {"intermediate_size": 12},
    "pre_norm": {"pre_norm": True},
    "recipe": {**RECIPE, "text_to_video": True, "vision_neck_size": 6},
    "full_recipe": {**RECIPE, "interaction": "full"},
    "direct_recipe": {**RECIPE, "interaction": "direct"},
    "conditional_recipe": {**RECIPE, "interaction": "conditional"},
    "no_jsc": {"jsc_semantics": "none"},
    "jsc_video": {"jsc_semantics": "video"},
    "jsc_text": {"jsc_semantics": "text"},
    "stride_16": {"encoded_stride": 16, "vision_config": tiny_swin(3)},
    "stride_8": {"encoded_stride": 8, "vision_config": tiny_swin(2)},
    "neck": {"vision_neck_size": 6},
    "timm_neck": {"vision_neck_size": 6, **TIMM},
    "temporal_convolution": {"temporal_convolution": True},
    "pixel_lateral": {"pixel_lateral": True},
    "one_proxy": {"num_queries": 1},
    "five_proxies": {"num_queries": 5},
    "eight_proxies": {"num_queries": 8},
    "two_layers": {"num_hidden_layers": 2},
    "five_layers": {"num_hidden_layers": 5},
    "no_auxiliary_loss": {"num_hidden_layers": 2, "auxiliary_loss": False},
    "frozen_text": {"freeze_text": True},
    "lexical_words": {"lexical_words": True, "freeze_text": True},
}


def moving_square(batch: int, num_frames: int = 2) -> dict[str, Tensor]:
    """Videos 32 x 64 of noise, with words and the masks of a square that moves."""
    torch.manual_seed(2)
    masks = torch.zeros(batch, num_frames, 32, 64)
    for frame in range(num_frames):
        masks[:, frame, 8:24, 8 + 8 * frame : 24 + 8 * frame] = 1
    videos = torch.randn(batch, num_frames, 3, 32, 64) + 2 * masks[:, :, None]
    return {
        "pixel_values_videos": videos,
        "input_ids": random_words(batch),
        "mask_labels": masks,
    }


@pytest.mark.parametrize("fields", VARIANTS.values(), ids=VARIANTS.keys())
def test_every_trained_weight_of_every_variant_gets_a_gradient(fields):
    model = tiny_model(**fields).train()
    config = model.config
    outputs = model(**moving_square(batch=2))
    assert outputs.pred_masks.shape == (2, 2, config.num_queries, 8, 16)
    assert outputs.pred_logits.shape == (2, 2, config.num_queries)
    assert outputs.pred_boxes.shape == (2, 2, config.num_queries, 4)
    assert outputs.referred_masks.shape == (2, 2, 8, 16)
    size = 32 // config.encoded_stride
    assert outputs.video_hidden_state.shape == (2, 2, 16, size, 2 * size)

    terms = {"class", "bbox", "giou", "mask", "dice"}
    expected = {f"loss_{term}" for term in terms}
    if config.auxiliary_loss:
        earlier = range(config.num_hidden_layers - 1)
        expected |= {f"loss_{term}_aux_{layer}" for term in terms for layer in earlier}
    expected |= {"loss_jsc"} if config.jsc_semantics != "none" else set()
    expected |= {"loss_selection"} if config.soft_selection else set()
    expected |= {"loss_grounding"} if config.grounding_map else set()
    assert set(outputs.loss_dict) == expected

    outputs.loss.backward()
    for name, weight in model.named_parameters():
        if config.freeze_text and ".text_encoder." in name:
            assert not weight.requires_grad, name
        else:
            assert weight.grad is not None and weight.grad.isfinite().all(), name


@pytest.mark.parametrize("fields", [{}, RECIPE], ids=["paper", "recipe"])
def test_loss_falls_on_one_clip(fields):
    model = tiny_model(**fields)
    clip = moving_square(batch=1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(25):
        losses.append(model(**clip).loss)
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.6 * losses[0]


def test_frozen_text_has_no_dropout_in_training():
    text = tiny_config().text_config
    text.hidden_dropout_prob = text.attention_probs_dropout_prob = 0.5
    words = random_words(2)
    for freeze in (True, False):
        model = tiny_model(freeze_text=freeze, text_config=text).train().model
        assert model.encoder.training
        first, second = (model.encode_text(words)[0] for _ in range(2))
        assert torch.equal(first, second) is freeze


@pytest.mark.parametrize(
    "text",  # an encoder whose embeddings have its width, and one whose embeddings are wider
    [tiny_config().text_config, ElectraConfig(**TINY_TEXT)],
    ids=["roberta", "electra"],
)
@torch.no_grad()
def test_lexical_words_add_what_the_words_mean_alone(text):
    model = perturb(tiny_model(lexical_words=True, text_config=text)).model
    ids, valid = torch.tensor([[5, 6, 5, 1]]), torch.tensor([[1, 1, 1, 0]])
    words, sentence, *_ = model.encode_text(ids, valid)
    torch.testing.assert_close(sentence, words[:, :3].mean(1))

    norm, linear = model.lexical_projection
    embedding = model.text_encoder.embeddings.word_embeddings.weight[ids]
    lexical = linear(norm(embedding))
    model.lexical_projection = None
    in_context, *_ = model.encode_text(ids, valid)
    torch.testing.assert_close(words, in_context + lexical)


@torch.no_grad()
def test_lexical_dropout_takes_whole_words_and_in_training_alone():
    model = perturb(tiny_model(lexical_words=True, lexical_dropout=0.5, freeze_text=True)).model
    vocabulary = model.config.text_config.vocab_size
    ids, valid = torch.randint(3, vocabulary, (8, 9)), torch.ones(8, 9, dtype=torch.long)
    whole, *_ = model.eval().encode_text(ids, valid)
    dropped, *_ = model.train().encode_text(ids, valid)
    model.lexical_projection = None
    in_context, *_ = model.eval().encode_text(ids, valid)
    change = (dropped - in_context) / (whole - in_context)
    per_word = change.mean(-1)
    torch.testing.assert_close(change, per_word[..., None].expand_as(change), rtol=1e-2, atol=1e-2)
    gone, kept = (per_word.abs() < 0.1), (per_word - 2).abs() < 0.1
    assert (gone | kept).all() and 0.3 < gone.float().mean() < 0.7


@torch.no_grad()
def test_temporal_convolution_adds_what_neighbours_in_time_and_space_show():
    model = tiny_model(temporal_convolution=True, encoded_stride=16)
    videos = torch.randn(2, 3, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    alone = model.get_video_features(videos).encoded_map
    assert alone.shape == (2, 3, 16, 4, 6)
    convolution = model.model.video_encoder.temporal_convolution
    convolution.weight[5, 7, 0, 1, 2] = 2.0  # channel 7, of the frame before, of the place right
    expected = alone.clone()
    expected[:, 1:, 5, :, :-1] += 2 * alone[:, :-1, 7, :, 1:]
    torch.testing.assert_close(model.get_video_features(videos).encoded_map, expected)


@torch.no_grad()
def test_pixel_lateral_adds_to_each_cell_what_its_own_pixels_say():
    model = tiny_model(pixel_lateral=True)
    videos = torch.randn(2, 3, 3, 32, 64, generator=torch.Generator().manual_seed(0))
    whole = model.get_video_features(videos).lateral_maps[-1]
    encoder = model.model.video_encoder
    first, _, last = encoder.pixel_lateral
    encoder.pixel_lateral = None
    alone = model.get_video_features(videos).lateral_maps[-1]

    cells = videos.view(2, 3, 3, 8, 4, 16, 4).permute(0, 1, 3, 5, 2, 4, 6).flatten(4)
    hidden = F.relu(cells @ first.weight.flatten(1).T + first.bias)
    update = hidden @ last.weight[:, :, 0, 0].T + last.bias
    torch.testing.assert_close(whole - alone, update.permute(0, 1, 4, 2, 3), rtol=1e-4, atol=1e-5)


# --- Padding, and one video for many expressions ---

# frames, height, width: the third is padded to the same 64 x 96 pixels as the first
VIDEO_SIZES = [(3, 40, 72), (2, 32, 50), (3, 60, 80)]
WORD_COUNTS = [4, 2, 3]

PADDING_VARIANTS = {
    "paper": {"num_hidden_layers": 2},
    "recipe": {**RECIPE, "text_to_video": True, "vision_neck_size": 6},
    "full": {"interaction": "full", "encoded_stride": 16},
    "temporal_convolution": {"temporal_convolution": True, "encoded_stride": 16},
    "pixel_lateral": {"pixel_lateral": True, "encoded_stride": 16},
    "direct": {"interaction": "direct", "encoded_stride": 8},
    "conditional": {"interaction": "conditional"},
}


def single_inputs() -> list[dict[str, Tensor]]:
    torch.manual_seed(3)
    return [
        {
            "pixel_values_videos": torch.randn(1, num_frames, 3, height, width),
            "input_ids": random_words(1, num_words),
        }
        for (num_frames, height, width), num_words in zip(VIDEO_SIZES, WORD_COUNTS, strict=True)
    ]


def pad(singles: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """One batch with masks; its padding holds NaN pixels and arbitrary words."""
    batch = len(singles)
    sizes = [single["pixel_values_videos"].shape for single in singles]
    frames, height, width = (max(size[axis] for size in sizes) for axis in (1, 3, 4))
    num_words = max(single["input_ids"].shape[1] for single in singles)
    inputs = {
        "pixel_values_videos": torch.full((batch, frames, 3, height, width), math.nan),
        "input_ids": random_words(batch, num_words),
        "attention_mask": torch.zeros(batch, num_words, dtype=torch.long),
        "frame_mask": torch.zeros(batch, frames, dtype=torch.bool),
        "pixel_mask": torch.zeros(batch, height, width, dtype=torch.bool),
    }
    for row, (single, (_, frames, _, height, width)) in enumerate(zip(singles, sizes, strict=True)):
        words = single["input_ids"][0]
        inputs["pixel_values_videos"][row, :frames, :, :height, :width] = single[
            "pixel_values_videos"
        ]
        inputs["input_ids"][row, : len(words)] = words
        inputs["attention_mask"][row, : len(words)] = 1
        inputs["frame_mask"][row, :frames] = True
        inputs["pixel_mask"][row, :height, :width] = True
    return inputs


PER_FRAME = ("pred_logits", "pred_boxes", "proxy_queries", "referred_boxes")
MAPS = ("pred_masks", "referred_masks", "video_hidden_state")


def assert_row_equals(
    batched: ProxyFormerReferringSegmentationOutput,
    row: int,
    single: ProxyFormerReferringSegmentationOutput,
    single_row: int = 0,
    tolerance: float = 1e-5,
):
    """Agreement on all frames and places that the single output has."""
    names = ("referred_scores", *PER_FRAME, *MAPS)
    ours, expected = {}, {name: single[name][single_row] for name in names}
    for name in names:
        ours[name] = batched[name][row]
        if name in PER_FRAME:
            ours[name] = ours[name][: len(expected[name])]
        if name in MAPS:
            height, width = expected[name].shape[-2:]
            ours[name] = ours[name][: len(expected[name]), ..., :height, :width]
    torch.testing.assert_close(ours, expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("vision", [{}, TIMM], ids=["video_swin", "timm"])
@pytest.mark.parametrize("fields", PADDING_VARIANTS.values(), ids=PADDING_VARIANTS.keys())
@torch.no_grad()
def test_padding_changes_nothing(fields, vision):
    """To 1e-5 in single precision; with large random weights, where rounding in single precision
    alone exceeds that, in double precision, which tells a leak from rounding."""
    model, singles = tiny_model(**fields, **vision), single_inputs()
    batched = model(**pad(singles))
    assert batched.pred_masks.shape == (3, 3, 3, 15, 20)
    for row, single in enumerate(singles):
        assert_row_equals(batched, row, model(**single))

    perturb(model).double()
    for single in singles:
        single["pixel_values_videos"] = single["pixel_values_videos"].double()
    padded = pad(singles)
    padded["pixel_values_videos"] = padded["pixel_values_videos"].double()
    batched = model(**padded)
    for row, single in enumerate(singles):
        assert_row_equals(batched, row, model(**single), tolerance=1e-10)


@pytest.mark.parametrize("semantics", ["video", "text", "both"])
@torch.no_grad()
def test_joint_semantics_average_real_tokens_alone(semantics):
    """Equation 7, one clip at a time."""
    model = perturb(tiny_model(jsc_semantics=semantics))
    outputs = model.model(**pad(single_inputs()))
    joint = model.embed_semantics(outputs)["joint_embedding"]
    for row, ((num_frames, height, width), num_words) in enumerate(
        zip(VIDEO_SIZES, WORD_COUNTS, strict=True)
    ):
        rows, columns = math.ceil(height / 32), math.ceil(width / 32)
        video = outputs.last_hidden_state[row, :num_frames, :, :rows, :columns].mean((0, 2, 3))
        text = outputs.text_hidden_state[row, :num_words].mean(0)
        means = {"video": [video], "text": [text], "both": [video, text]}[semantics]
        projection = model.joint_projection
        expected = projection.weight @ torch.cat(means) + projection.bias
        torch.testing.assert_close(joint[row], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("fields", [{}, RECIPE], ids=["paper", "recipe"])
def test_padding_changes_neither_loss_nor_gradients(fields):
    model = tiny_model(**fields)
    large, small, _ = single_inputs()
    labels = torch.zeros(1, 2, 32, 50)
    labels[:, :, 4:20, 10:34] = 1
    small_loss = model(**small, mask_labels=labels).loss
    expected = torch.autograd.grad(small_loss, list(model.parameters()))

    padded = {name: tensor[1:] for name, tensor in pad([large, small]).items()}
    labels = torch.nn.functional.pad(labels, (0, 22, 0, 8, 0, 1), value=1)
    loss = model(**padded, mask_labels=labels).loss
    torch.testing.assert_close(loss, small_loss, atol=1e-5, rtol=1e-5)
    ours = torch.autograd.grad(loss, list(model.parameters()))
    ours, expected = (torch.cat([part.flatten() for part in each]) for each in (ours, expected))
    assert (ours - expected).norm() < 1e-5 * expected.norm()


@pytest.mark.parametrize("masks", ["frame_mask", "pixel_mask"])
@torch.no_grad()
def test_one_mask_alone_is_enough(masks):
    model = perturb(tiny_model())
    first, second, _ = single_inputs()
    if masks == "frame_mask":  # two lengths of one size
        second["pixel_values_videos"] = first["pixel_values_videos"][:, :2].flip(1)
    else:  # two sizes of one length
        first["pixel_values_videos"] = first["pixel_values_videos"][:, :2]
    inputs = pad([first, second])
    del inputs[{"frame_mask": "pixel_mask", "pixel_mask": "frame_mask"}[masks]]
    batched = model(**inputs)
    for row, single in enumerate((first, second)):
        assert_row_equals(batched, row, model(**single))


@pytest.mark.parametrize("fields", [{}, RECIPE], ids=["paper", "recipe"])
@torch.no_grad()
def test_many_expressions_of_one_encoded_video_equal_separate_calls(fields):
    model = perturb(tiny_model(**fields))
    singles = single_inputs()[:2]
    inputs = pad(singles)
    features = model.get_video_features(
        inputs["pixel_values_videos"], inputs["frame_mask"], inputs["pixel_mask"]
    )
    words = random_words(4)
    outputs = model(input_ids=words, video_features=features)
    assert outputs.frame_mask.tolist() == inputs["frame_mask"].repeat_interleave(2, 0).tolist()
    assert torch.equal(outputs.pixel_mask, inputs["pixel_mask"].repeat_interleave(2, 0))
    for row in range(4):
        video = singles[row // 2]["pixel_values_videos"]
        assert_row_equals(outputs, row, model(video, words[row : row + 1]))
    again = model(input_ids=words[::2], video_features=features)
    assert_row_equals(again, 1, outputs, 2)


# --- Outputs ---

RECORDED = {
    "decoupled": {
        "hidden_states": [(2, 3, 2, 16)] * 3,
        "attentions": [(6, 2, 5, 2)] * 2,
        "cross_attentions": [(2, 2, 15, 4)] * 2,
    },
    "full": {
        "hidden_states": [(2, 3, 2, 16)] * 3,
        "attentions": [(2, 2, 15, 6)] * 2,
        "cross_attentions": [(2, 2, 15, 4)] * 2,
    },
    "direct": {
        "hidden_states": [(2, 3, 2, 16)] * 3,
        "attentions": [(6, 2, 5, 2)] * 2,
        "cross_attentions": [],
    },
    "conditional": {
        "hidden_states": [],
        "attentions": [(6, 2, 5, 2)] * 2,
        "cross_attentions": [],
    },
}


@pytest.mark.parametrize("pre_norm", [False, True], ids=["post_norm", "pre_norm"])
@pytest.mark.parametrize("interaction", RECORDED)
@torch.no_grad()
def test_hidden_states_and_attentions_when_asked(interaction, pre_norm):
    model = tiny_model(
        interaction=interaction, pre_norm=pre_norm, num_hidden_layers=2, num_queries=5
    )
    model.set_attn_implementation("eager")
    inputs = {
        "pixel_values_videos": torch.randn(2, 3, 3, 32, 64),
        "input_ids": random_words(2),
        "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]]),
    }
    plain = model(**inputs)
    assert (plain.hidden_states, plain.attentions, plain.cross_attentions) == (None,) * 3

    outputs = model(**inputs, output_hidden_states=True, output_attentions=True)
    for name, shapes in RECORDED[interaction].items():
        assert [tuple(tensor.shape) for tensor in outputs[name]] == shapes, name
    for weights in (*outputs.attentions, *outputs.cross_attentions):
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))
    for weights in outputs.cross_attentions:
        assert not weights[1, :, :, 3].any()
    if outputs.hidden_states and not pre_norm:
        last = outputs.hidden_states[-1].transpose(2, 3).reshape(2, 3, 16, 1, 2)
        assert torch.equal(last, outputs.video_hidden_state)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.filterwarnings("ignore:_compile flag on create_block_mask")
@torch.no_grad()
def test_attention_implementations_agree():
    """In double precision: in single, rounding alone exceeds 1e-5 on some machines."""
    model = perturb(tiny_model(hidden_size=32)).double()  # flex attention wants heads of 16
    inputs = pad(single_inputs())
    inputs["pixel_values_videos"] = inputs["pixel_values_videos"].double()
    assert model.config._attn_implementation == "sdpa"
    expected = model(**inputs)
    model.set_attn_implementation("eager")
    eager = model(**inputs)
    # Video Swin's attention has a learned bias, which flex attention does not take
    flex = "flex_attention"
    model.set_attn_implementation({"": flex, "text_config": flex, "vision_config": "sdpa"})
    assert model.model.encoder.config._attn_implementation == flex
    with torch.compiler.set_stance("force_eager"):  # a compilation takes minutes
        flexible = model(**inputs)
    for row in range(3):
        # eager attention of Video Swin takes its softmax in single precision
        assert_row_equals(eager, row, expected, row, tolerance=1e-6)
        assert_row_equals(flexible, row, expected, row, tolerance=1e-6)


class FixedLogits(nn.Module):
    """A class head that knows its answer: logits (R, T, N)."""

    def __init__(self, logits: Tensor):
        super().__init__()
        self.logits = logits

    def forward(self, proxies: Tensor) -> Tensor:
        return self.logits[..., None]


@pytest.mark.parametrize("soft", [False, True], ids=["best", "mixture"])
@torch.no_grad()
def test_answer_is_the_best_trajectory_or_a_mixture(soft):
    model = perturb(tiny_model(soft_selection=soft))
    # By mean probability of the real frames proxy 1 wins the first clip (0 has the highest mean
    # logit) and proxy 2 the second, whose last frame is padding.
    logits = torch.tensor(
        [
            [[9.0, 2.0, 0.0], [-1.0, 2.0, 0.0], [-1.0, 2.0, 0.0]],
            [[-1.0, -2.0, 1.0], [-1.0, -2.0, 1.0], [99.0, 99.0, -99.0]],
        ]
    )
    model.class_head = FixedLogits(logits)
    outputs = model(
        torch.randn(2, 3, 3, 32, 32),
        random_words(2),
        frame_mask=torch.tensor([[True, True, True], [True, True, False]]),
    )
    for row, (best, num_frames) in enumerate([(1, 3), (2, 2)]):
        real = logits[row, :num_frames]
        share = real.mean(0).softmax(-1) if soft else torch.eye(3)[best]
        masks, boxes = outputs.pred_masks[row], outputs.pred_boxes[row]
        mixed = sum(share[n] * masks[:, n] for n in range(3))
        torch.testing.assert_close(outputs.referred_masks[row], mixed)
        mixed = sum(share[n] * boxes[:, n] for n in range(3))
        torch.testing.assert_close(outputs.referred_boxes[row], mixed)
        expected_score = (1 / (1 + (-real).exp()))[:, best].mean()
        torch.testing.assert_close(outputs.referred_scores[row], expected_score)


# --- Bad input ---

PIXELS, IDS = torch.zeros(2, 3, 3, 32, 64), torch.full((2, 4), 5)
HOLE = torch.ones(2, 32, 64, dtype=torch.bool).index_fill(2, torch.tensor([3]), False)

BAD_INPUTS = {
    "images": ({"pixel_values_videos": PIXELS[:, 0]}, r"\(batch, frames, 3, height, width\), got"),
    "grey": ({"pixel_values_videos": PIXELS[:, :, :1]}, r"got \(2, 3, 1, 32, 64\)"),
    "no_frames": ({"pixel_values_videos": PIXELS[:, :0]}, "needs at least one frame"),
    "no_video": ({"pixel_values_videos": None}, "Give `pixel_values_videos` or `video_features`"),
    "no_words": ({"input_ids": None}, "`input_ids` are missing"),
    "expressions": ({"input_ids": IDS[[0, 1, 1]]}, "3 expressions do not divide evenly among 2"),
    "empty_frame_mask": (
        {"frame_mask": torch.tensor([[True, True, True], [False, False, False]])},
        "`frame_mask` must mark at least one frame of each video",
    ),
    "late_frames": (
        {"frame_mask": torch.tensor([[True, True, True], [True, False, True]])},
        "`frame_mask` .* real frames first",
    ),
    "frame_mask_shape": ({"frame_mask": torch.ones(2, 4).bool()}, "`frame_mask` must be"),
    "empty_pixel_mask": ({"pixel_mask": torch.zeros(2, 32, 64).bool()}, "top left rectangle"),
    "pixel_mask_shape": ({"pixel_mask": torch.ones(2, 32, 32).bool()}, "`pixel_mask` must be"),
    "hole": ({"pixel_mask": HOLE}, "top left rectangle"),
    "labels_rank": ({"mask_labels": torch.ones(2, 32, 64)}, "mask_labels must be"),
    "labels_size": ({"mask_labels": torch.ones(2, 3, 16, 16)}, "mask_labels must have the frames"),
}


@pytest.mark.parametrize(("wrong", "message"), BAD_INPUTS.values(), ids=BAD_INPUTS.keys())
def test_bad_input_is_one_clear_error(wrong, message):
    inputs = {"pixel_values_videos": PIXELS, "input_ids": IDS, **wrong}
    with pytest.raises(ValueError, match=message):
        tiny_model()(**inputs)


BACKBONES_WITHOUT_A_STRIDE = {
    "three_stages": tiny_swin(3),
    "no_stride_4": tiny_swin(out_features=["stage2", "stage3", "stage4"]),
    "timm": TimmBackboneConfig(backbone="test_resnet", out_indices=[2, 3, 4]),
    "last_map_only": ResNetConfig(
        embedding_size=8, hidden_sizes=[8] * 4, depths=[1] * 4, layer_type="basic"
    ),
}


@pytest.mark.parametrize(
    "vision", BACKBONES_WITHOUT_A_STRIDE.values(), ids=BACKBONES_WITHOUT_A_STRIDE.keys()
)
def test_a_backbone_that_lacks_a_stride_is_named(vision):
    with pytest.raises(ValueError, match="`vision_config` gives maps at strides .* also needs"):
        tiny_model(vision_config=vision)


def test_maps_are_found_by_stride_whatever_else_the_backbone_gives():
    names = ["stem", "stage1", "stage2", "stage3", "stage4"]
    vision = tiny_swin(out_features=names)
    model = tiny_model(vision_config=vision, encoded_stride=16)
    assert [vision.out_features[level] for level in model.model.video_encoder.levels] == [
        "stage3",
        "stage2",
        "stage1",
    ]
