# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
import numpy as np
import pytest

from proxyformer_hf.data.expressions import (
    CONFUSABLE,
    GROUPS,
    SYNONYMS,
    Seen,
    color_fractions,
    facts,
    is_positional,
    kin_names,
    phrase,
    swap_left_right,
    with_article,
)


def box(category, x1, y1, x2, y2, **colors) -> Seen:
    area = (x2 - x1) * (y2 - y1)
    return Seen(category, (x1, y1, x2, y2), ((x1 + x2) / 2, (y1 + y2) / 2), area, colors)


def random_scene(rng) -> list[Seen]:
    scene = []
    for _ in range(rng.integers(1, 9)):
        x, y = rng.uniform(0, 0.8, 2)
        w, h = rng.uniform(0.02, 0.5, 2)
        shares = rng.dirichlet(np.full(3, 0.2))
        colors = dict(zip(("black", "white", "red"), shares, strict=True))
        category = str(rng.choice(["dog", "person", "umbrella", "car"], p=[0.4, 0.3, 0.2, 0.1]))
        scene.append(box(category, x, y, min(x + w, 1), min(y + h, 1), **colors))
    return scene


@pytest.mark.parametrize(
    ("text", "mirrored"),
    [
        ("the dog on the left", "the dog on the right"),
        (
            "the rightmost cup left of the leftmost one",
            "the leftmost cup right of the rightmost one",
        ),
        ("a left-hand drive", "a right-hand drive"),
        ("the bright copyright of Leftover", "the bright copyright of Leftover"),
        ("the cow right behind the boy", "the cow right behind the boy"),
        ("parked right next to the left car", "parked right next to the right car"),
        ("on the right behind a rooster", "on the left behind a rooster"),
        ("Left dog moving rightwards", "Right dog moving leftwards"),
        ("a rider on the leftside", "a rider on the rightside"),
    ],
)
def test_left_and_right_swap_as_words_and_back(text, mirrored):
    assert swap_left_right(text) == mirrored
    assert swap_left_right(mirrored) == text


@pytest.mark.parametrize(
    ("text", "positional"),
    [("the cat on the far side", True), ("the lower sink", True), ("a bright umbrella", False)],
)
def test_positional_words_are_found(text, positional):
    assert is_positional(text) is positional


@pytest.mark.parametrize(
    ("rgb", "color"),
    [
        ((10, 12, 9), "black"),
        ((240, 240, 236), "white"),
        ((120, 122, 119), "gray"),
        ((210, 25, 20), "red"),
        ((245, 140, 20), "orange"),
        ((110, 70, 40), "brown"),
        ((235, 215, 40), "yellow"),
        ((40, 140, 50), "green"),
        ((30, 60, 200), "blue"),
    ],
)
def test_colour_words(rgb, color):
    share = color_fractions(np.array([rgb, rgb, (128, 60, 128)], np.uint8))
    assert share.pop(color) == pytest.approx(2 / 3)
    assert set(share.values()) == {0.0}


def test_seen_measures_a_mask():
    mask = np.zeros((20, 40), bool)
    mask[5:10, 8:16] = True
    seen = Seen.from_mask("dog", mask, {})
    assert seen.box == (0.2, 0.25, 0.4, 0.5)
    assert seen.center == (11.5 / 40, 7 / 20)
    assert seen.area == 40 / 800


def test_what_is_not_visible_is_not_seen():
    assert Seen.from_mask("dog", np.zeros((20, 40), bool), {}) is None


def test_two_side_by_side():
    scene = [box("dog", 0.1, 0.4, 0.3, 0.6), box("dog", 0.6, 0.4, 0.8, 0.6)]
    assert facts(scene, 0) == {("side", "left")}
    assert facts(scene, 1) == {("side", "right")}


def test_three_in_a_row():
    scene = [box("dog", x, 0.4, x + 0.1, 0.6) for x in (0.45, 0.1, 0.8)]
    assert facts(scene, 0) == {("middle",), ("second", "left"), ("second", "right")}
    assert facts(scene, 1) == {("side", "left")}


def test_four_in_a_row_have_ordinals():
    scene = [box("dog", x, 0.4, x + 0.1, 0.6) for x in (0.1, 0.3, 0.6, 0.8)]
    assert [facts(scene, i) for i in range(4)] == [
        {("extreme", "left")},
        {("second", "left")},
        {("second", "right")},
        {("extreme", "right")},
    ]


def test_objects_too_close_to_tell_apart_have_no_facts():
    scene = [box("dog", 0.4, 0.4, 0.6, 0.6), box("dog", 0.42, 0.43, 0.62, 0.63)]
    assert facts(scene, 0) == facts(scene, 1) == set()


def test_size_needs_a_margin():
    scene = [box("cup", 0.4, 0.4, 0.6, 0.6), box("cup", 0.41, 0.41, 0.56, 0.56)]
    assert ("size", "larger") in facts(scene, 0)
    assert ("size", "smaller") in facts(scene, 1)
    scene[1] = box("cup", 0.41, 0.41, 0.58, 0.58)
    assert facts(scene, 0) == set()


def test_the_only_one_of_its_category_has_a_place():
    scene = [box("cat", 0.02, 0.02, 0.2, 0.2), box("dog", 0.5, 0.5, 0.9, 0.9)]
    assert facts(scene, 0) >= {("only",), ("place", "left"), ("corner", "top", "left")}


def test_colour_tells_apart_only_where_the_others_lack_it():
    red, black = {"red": 0.8, "black": 0.1}, {"red": 0.1, "black": 0.8}
    near = (0.4, 0.4, 0.6, 0.6)
    scene = [box("cup", *near, **red), box("cup", *near, **black)]
    assert facts(scene, 0) == {("color", "red")}
    scene[1] = box("cup", *near, red=0.4, black=0.5)
    assert facts(scene, 0) == set()


def test_person_with_what_only_they_carry():
    people = [box("person", 0.1, 0.3, 0.3, 0.9), box("person", 0.6, 0.3, 0.8, 0.9)]
    umbrella = box("umbrella", 0.15, 0.3, 0.25, 0.4)
    assert ("with", "umbrella") in facts([*people, umbrella], 0)
    assert ("with", "umbrella") not in facts([*people, umbrella], 1)
    second = box("umbrella", 0.65, 0.3, 0.75, 0.4)
    assert ("with", "umbrella") not in facts([*people, umbrella, second], 0)


def test_relation_to_another_object():
    scene = [
        box("dog", 0.1, 0.4, 0.3, 0.6),
        box("dog", 0.7, 0.4, 0.9, 0.6),
        box("chair", 0.32, 0.3, 0.5, 0.7),
    ]
    assert facts(scene, 0) >= {("beside", "chair"), ("relative", "left", "chair")}
    assert ("relative", "right", "chair") in facts(scene, 1)
    assert ("beside", "chair") not in facts(scene, 1)


def test_no_two_look_alikes_share_a_fact():
    rng = np.random.default_rng(0)
    for _ in range(400):
        scene = random_scene(rng)
        told = [(s.category, fact) for i, s in enumerate(scene) for fact in facts(scene, i)]
        assert len(told) == len(set(told))


def test_facts_of_the_mirrored_scene_are_mirrored():
    rng = np.random.default_rng(1)
    swap = {"left": "right", "right": "left"}
    for _ in range(400):
        scene = random_scene(rng)
        mirrored = [
            box(s.category, 1 - s.box[2], s.box[1], 1 - s.box[0], s.box[3], **s.colors)
            for s in scene
        ]
        for i in range(len(scene)):
            expected = {tuple(swap.get(word, word) for word in fact) for fact in facts(scene, i)}
            assert facts(mirrored, i) == expected


def test_phrases_word_their_fact():
    rng = np.random.default_rng(0)
    dog = box("dog", 0.1, 0.1, 0.4, 0.4, black=0.9)
    texts = {phrase(("side", "left"), dog, rng) for _ in range(60)}
    assert "the dog on the left" in texts and "the left black dog" in texts
    assert all("left" in text and "dog" in text and text == text.lower() for text in texts)


def test_every_fact_of_random_scenes_can_be_worded():
    rng = np.random.default_rng(2)
    for _ in range(200):
        scene = random_scene(rng)
        for i, seen in enumerate(scene):
            for fact in facts(scene, i):
                text = phrase(fact, seen, rng)
                assert "{" not in text and "someone" not in text.removeprefix("someone")


def test_colour_of_a_person_is_that_of_the_clothes():
    rng = np.random.default_rng(0)
    person = box("person", 0.1, 0.1, 0.4, 0.9, red=0.9)
    words = {" ".join(phrase(("color", "red"), person, rng).split()[-2:]) for _ in range(30)}
    assert words == {"in red", "wearing red"}


def test_indefinite_article_only_for_the_only_one():
    rng = np.random.default_rng(0)
    unique = {with_article("umbrella", True, False, rng) for _ in range(50)}
    others = {with_article("left elephant", False, False, rng) for _ in range(50)}
    assert unique == {"an umbrella", "the umbrella", "umbrella"}
    assert others == {"the left elephant", "left elephant"}
    assert "a skis" not in {with_article("skis", True, True, rng) for _ in range(50)}


def test_kin_names_are_said_of_the_only_one_of_a_group():
    assert "goat" in kin_names("cow", ["person", "car", "horse"])
    assert kin_names("cow", ["person", "sheep"]) == [] == kin_names("cow", ["cow"])
    assert kin_names("pizza", []) == []


def test_no_kin_name_is_that_of_a_label():
    labels = {*SYNONYMS}.union(*SYNONYMS.values(), *CONFUSABLE, *(group for group, _ in GROUPS))
    assert labels.isdisjoint(name for _, names in GROUPS for name in names)
