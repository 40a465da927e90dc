# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
import re
from collections.abc import Callable

import numpy as np
import pytest

from proxyformer_hf.data.moving_shapes import generate_video
from proxyformer_hf.data.shape_scenes import COLORS, SHAPES, SIZES, TEXTURES
from proxyformer_hf.data.shape_wordings import (
    AFTER_NOUN,
    ANY_SHAPE,
    SYNONYMS,
    WORDINGS,
    vocabulary,
    word_expression,
)
from tests.shape_reader import MEANINGS, strip_attributes


def texts(said, fact, anchor=None, count=300) -> set[str]:
    rng = np.random.default_rng(0)
    return {word_expression(rng, said, fact, anchor) for _ in range(count)}


def test_every_attribute_has_words():
    assert SYNONYMS.keys() == {*SIZES, *COLORS, *TEXTURES, *SHAPES}
    assert AFTER_NOUN.keys() == {*TEXTURES}


def test_synonyms_are_the_readers():
    """tests/shape_reader.py tells in its own words what each of them means."""
    for value, words in SYNONYMS.items():
        for word in words + AFTER_NOUN.get(value, ()):
            assert strip_attributes(word) == (dict([told_by(value)]), "")


def told_by(value: str) -> tuple[str, str]:
    tables = {"size": SIZES, "color": COLORS, "texture": TEXTURES, "shape": SHAPES}
    return next((name, value) for name, values in tables.items() if value in values)


def test_wordings_mean_what_they_mean_to_the_reader():
    """The wordings of one fact have one meaning, which no other fact has."""
    meanings = {
        fact: {id(meaning_of(wording.format(n="red star", a="the blue ring"))) for wording in texts}
        for fact, texts in WORDINGS.items()
    }
    assert all(len(found) == 1 for found in meanings.values()), meanings
    assert len(set.union(*meanings.values())) == len(WORDINGS)


def meaning_of(text: str) -> Callable:
    """As tests/shape_reader.py reads it: the first that fits."""
    matches = ((re.fullmatch(pattern, text), meaning) for pattern, meaning in MEANINGS)
    return next(meaning for match, meaning in matches if match and match["n"] == "red star")


def test_adjectives_come_in_the_order_of_english():
    said = {"shape": "star", "texture": "striped", "color": "red", "size": "small"}
    assert texts(said, "") >= {
        "the small red striped star",
        "tiny red stripy star",
        "the little red star with stripes",
    }


def test_an_object_without_shape_has_a_general_noun():
    found = {text.split()[-1] for text in texts({"color": "red"}, "")}
    assert found == {*ANY_SHAPE}


def test_the_other_object_has_its_article():
    anchor = {"color": "blue", "shape": "ring"}
    found = texts({"shape": "star"}, "behind", anchor)
    assert "the star that the blue hoop partly covers" in found
    assert "star behind the blue ring" in found


def test_most_expressions_begin_with_the():
    rng = np.random.default_rng(0)
    starts = [word_expression(rng, {"shape": "star"}, "").startswith("the ") for _ in range(1000)]
    assert 0.85 < np.mean(starts) < 0.95


def test_vocabulary_is_every_word_of_the_expressions():
    words = vocabulary()
    assert words == sorted(set(words)) and all(word.isalpha() for word in words)
    used = {
        word
        for k in range(60)
        for expression in generate_video(k, num_frames=5).expressions
        for word in expression.text.split()
    }
    assert used <= {*words}
    assert len(used) > 0.8 * len(words)


@pytest.mark.parametrize("word", ["n", "a", "", "{n}"])
def test_placeholders_are_no_words(word):
    assert (word in vocabulary()) == (word == "a")  # "in a zigzag"
