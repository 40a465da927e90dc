# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
import numpy as np
import pytest

from proxyformer_hf.data.expressions import swap_left_right
from proxyformer_hf.data.moving_shapes import ShapesVideo, generate_video
from proxyformer_hf.data.shape_expressions import (
    KINDS,
    NOTHING,
    Fact,
    Sight,
    Speaker,
    describe,
    motion_facts,
    position_facts,
    relation_facts,
)
from proxyformer_hf.data.shape_scenes import Scene, ShapeObject
from tests.shape_reader import read, strip_attributes, tracks

NUM_VIDEOS = 60


@pytest.fixture(scope="module", params=[(96, 160, 5), (96, 160, 8), (128, 96, 12)])
def videos(request) -> list[ShapesVideo]:
    height, width, num_frames = request.param
    return [
        generate_video(k, "test", height, width, num_frames)
        for k in range(NUM_VIDEOS if num_frames < 12 else NUM_VIDEOS // 3)
    ]


def test_an_expression_is_true_of_its_object_alone(videos):
    for video in videos:
        scene = tracks(video)
        for expression in video.expressions:
            assert read(expression.text, scene) == [expression.object_id - 1], expression


def test_mirrored_expressions_are_true_of_mirrored_videos(videos):
    for video in videos[:40]:
        scene = tracks(video)
        for track in scene:
            track.seen, track.alone = track.seen[..., ::-1], track.alone[..., ::-1]
            track.__post_init__()
        for expression in video.expressions:
            mirrored = swap_left_right(expression.text)
            assert read(mirrored, scene) == [expression.object_id - 1], mirrored


def test_no_attribute_is_idle(videos):
    """Without any of its words but the noun, an attribute expression may mean several objects."""
    for video in videos:
        scene = tracks(video)
        text = video.expressions[KINDS.index("attribute")].text
        told, _ = strip_attributes(text.removeprefix("the "))
        for left_out in told.keys() - {"shape"}:
            rest = {name: value for name, value in told.items() if name != left_out}
            meant = [
                track
                for track in scene
                if all(track.attributes[name] in (value, "") for name, value in rest.items())
            ]
            assert len(meant) > 1, (text, left_out)


def test_videos_have_one_expression_of_each_kind_for_two_objects_or_more(videos):
    for video in videos:
        assert tuple(expression.kind for expression in video.expressions) == KINDS
        assert len({expression.object_id for expression in video.expressions}) > 1


def test_most_expressions_are_of_different_objects(videos):
    distinct = [len({e.object_id for e in video.expressions}) for video in videos]
    possible = [min(len(KINDS), len(video.scene.objects)) for video in videos]
    assert sum(distinct) > 0.8 * sum(possible)


def test_text_blind_guesses_are_right_at_chance():
    """The largest, smallest, most central, outermost or foremost object is not likelier meant."""
    hits, chance = [], []
    for k in range(200):
        video = generate_video(k, "valid", num_frames=5)
        ids = np.arange(len(video.scene.objects)) + 1
        masks = video.object_map == ids[:, None, None, None]
        areas = masks.sum((1, 2, 3))
        rows, columns = np.indices(masks.shape[2:])
        y, x = ((masks * grid).sum((1, 2, 3)) / areas for grid in (rows, columns))
        distance = np.hypot(x - 80, y - 48)
        guesses = [areas.argmax(), areas.argmin(), distance.argmin(), distance.argmax()]
        guesses.append(video.scene.depth[-1])
        for expression in video.expressions:
            hits.append([guess == expression.object_id - 1 for guess in guesses])
            chance.append(1 / len(ids))
    # 800 expressions: the standard error is 0.015
    np.testing.assert_allclose(np.mean(hits, axis=0), np.mean(chance), atol=0.05)


def make_sight(*objects: dict, num_frames: int = 5) -> Sight:
    """The sight of objects told by `x`, `y` and, at choice, by attributes, `radius` or `motion`;
    positions may be given for each frame. The last ones are in front."""
    made = []
    for told in objects:
        defaults = {"shape": "circle", "color": "red", "texture": "plain", "size": "small"}
        told = defaults | {"motion": "still", "direction": "", "radius": 10} | told
        position = np.stack([np.broadcast_to(told.pop(axis), num_frames) for axis in "xy"], -1)
        radius = np.full(num_frames, told.pop("radius"), np.float32)
        tones, angle = np.zeros((2, 3), np.float32), np.zeros(num_frames, np.float32)
        position = position.astype(np.float32)
        made.append(ShapeObject(tones=tones, position=position, radius=radius, angle=angle, **told))
    scene = Scene(100, 160, num_frames, tuple(made), tuple(range(len(made))), 0)
    silhouettes = scene.silhouettes(range(num_frames))
    return Sight(scene, silhouettes, scene.object_map(silhouettes))


def fact_of(facts, name: str, anchor: int | None = None) -> Fact:
    return next(fact for fact in facts if fact.name == name and fact.anchor == anchor)


def test_what_is_seen_is_measured_on_the_masks():
    sight = make_sight(
        {"x": 40, "y": 50}, {"x": 50, "y": 50}, {"x": 300, "y": 50, "motion": "enter"}
    )
    circle = np.hypot(*(np.indices((100, 160)) + 0.5 - np.array([50, 40])[:, None, None])) < 9.5
    front = np.hypot(*(np.indices((100, 160)) + 0.5 - np.array([50, 50])[:, None, None])) < 9.5
    seen = circle & ~front
    np.testing.assert_array_equal(sight.whole[:, 0], [circle.sum(), front.sum(), 0])
    np.testing.assert_array_equal(sight.area[:, 0], [seen.sum(), front.sum(), 0])
    rows, columns = np.nonzero(seen)
    np.testing.assert_allclose(sight.center[0, 0], [columns.mean() + 0.5, rows.mean() + 0.5])
    assert np.isnan(sight.center[2]).all()
    assert sight.steady.tolist() == [True, True, False]
    share = (circle & front).sum() / circle.sum()
    np.testing.assert_allclose(sight.hidden[0, 1], share)
    np.testing.assert_array_equal(sight.hidden[1, 0], 0)
    assert not sight.is_clear()  # the third is never seen


def test_an_object_that_is_mostly_hidden_is_not_clear():
    assert make_sight({"x": 40, "y": 50}, {"x": 52, "y": 50}).is_clear()
    assert not make_sight({"x": 40, "y": 50}, {"x": 44, "y": 50}).is_clear()


def test_order_needs_a_margin_in_every_frame():
    everything = 0b111
    apart = make_sight({"x": 20, "y": 50}, {"x": 60, "y": 50}, {"x": 120, "y": 50})
    facts = list(position_facts(apart))
    for name, meant in {
        "leftmost": 0,
        "rightmost": 2,
        "second from the left": 1,
        "second from the right": 1,
        "middle": 1,
        "topmost": None,
    }.items():
        assert fact_of(facts, name).meant(everything, everything) == meant, name
    assert fact_of(facts, "leftmost").meant(0b110, 0b110) == 1
    assert fact_of(facts, "leftmost").meant(0b100, 0b100) is None  # nothing to compare with
    assert fact_of(facts, "middle").meant(0b110, 0b110) is None
    assert fact_of(facts, "leftmost").meant(0b011, 0b111) is None  # the third may count, too
    close = make_sight({"x": 20, "y": 50}, {"x": 29, "y": 80}, {"x": 120, "y": 20})
    assert fact_of(position_facts(close), "leftmost").meant(everything, everything) is None
    assert fact_of(position_facts(close), "rightmost").meant(everything, everything) == 2
    passing = make_sight(
        {"x": [20, 30, 40, 50, 60], "y": 20}, {"x": 45, "y": 50}, {"x": 120, "y": 80}
    )
    assert fact_of(position_facts(passing), "leftmost").meant(0b011, 0b011) is None
    assert fact_of(position_facts(passing), "topmost").meant(everything, everything) == 0


def test_order_is_not_told_of_objects_that_enter():
    entering = make_sight(
        {"x": 20, "y": 50}, {"x": [-20, 60, 80, 90, 120], "y": 20, "motion": "enter"}
    )
    assert fact_of(position_facts(entering), "leftmost").meant(0b11, 0b11) is None


@pytest.mark.parametrize(
    ("x", "yes", "maybe"),
    [(60, True, True), (66, False, True), (80, False, True), (90, False, False)],
)
def test_parts_of_the_picture_have_a_doubtful_border(x, yes, maybe):
    fact = fact_of(position_facts(make_sight({"x": x, "y": 50})), "left side")
    assert (bool(fact.yes), bool(fact.maybe)) == (yes, maybe)


@pytest.mark.parametrize(
    ("x", "y", "yes", "maybe"),
    [
        (40, 50, True, True),
        (40, 80, True, True),
        (50, 85, False, True),  # more below than left
        (78, 20, False, False),  # above
        (120, 50, False, False),
        (79, 50, False, False),
    ],
)
def test_left_of_is_clear_doubtful_or_wrong(x, y, yes, maybe):
    sight = make_sight({"x": 80, "y": 50, "radius": 1}, {"x": x, "y": y, "radius": 1})
    fact = fact_of(relation_facts(sight), "left of", anchor=0)
    assert (bool(fact.yes), bool(fact.maybe)) == (yes, maybe)


def test_depth_is_told_where_one_hides_a_part_of_the_other_all_the_time():
    sight = make_sight({"x": 40, "y": 50}, {"x": 52, "y": 50}, {"x": 120, "y": 50})
    facts = list(relation_facts(sight))
    behind, front = fact_of(facts, "behind", anchor=1), fact_of(facts, "in front of", anchor=0)
    assert (behind.yes, behind.maybe) == (0b001, 0b001)
    assert (front.yes, front.maybe) == (0b010, 0b010)
    assert fact_of(facts, "behind", anchor=2).maybe == 0
    parting = make_sight({"x": 40, "y": 50}, {"x": [52, 55, 65, 70, 80], "y": 50})
    behind = fact_of(relation_facts(parting), "behind", anchor=1)
    assert (behind.yes, behind.maybe) == (0, 0b1)


def test_the_closest_is_clearly_closer():
    sight = make_sight({"x": 20, "y": 50}, {"x": 50, "y": 50}, {"x": 90, "y": 50})
    closest = fact_of(relation_facts(sight), "closest to", anchor=0)
    assert closest.meant(0b111, 0b111) == 1  # the anchor itself is not meant
    assert fact_of(relation_facts(sight), "closest to", anchor=1).meant(0b111, 0b111) is None


def test_motions_that_may_be_taken_for_others_are_doubtful():
    sight = make_sight(
        {"x": 20, "y": 20, "motion": "move", "direction": "left"},
        {"x": 60, "y": 20, "motion": "move", "direction": "up left"},
        {"x": 120, "y": 20, "motion": "enter", "direction": "left"},
        {"x": 20, "y": 70, "motion": "sway", "direction": "right"},
        {"x": 60, "y": 70, "motion": "rotate"},
    )
    facts = {fact.name: fact for fact in motion_facts(sight)}
    doubts = {name: (fact.yes, fact.maybe) for name, fact in facts.items()}
    assert doubts["moving left"] == (0b00101, 0b01111)
    assert doubts["moving right"] == (0, 0b01000)
    assert doubts["moving up"] == (0, 0b00010)
    assert doubts["moving up left"] == doubts["moving diagonally"] == (0b00010, 0b00010)
    assert doubts["moving"] == (0b01111, 0b11111)
    assert doubts["still"] == (0, 0b10000)
    assert doubts["enter left"] == doubts["enter"] == (0b00100, 0b00100)
    assert doubts["grow"] == (0, 0b00100)  # more and more is seen of one that enters
    assert doubts["swaying"] == (0b01000, 0b01000)


def test_the_fastest_is_clearly_faster():
    def moving(*ways):
        return make_sight(
            *(
                {"x": np.linspace(20, 20 + way, 5), "y": 20 + 25 * i, "motion": "move"}
                for i, way in enumerate(ways)
            )
        )

    facts = {fact.name: fact for fact in motion_facts(moving(50, 20, 22))}
    assert facts["fastest"].meant(0b111, 0b111) == 0
    assert facts["slowest"].meant(0b111, 0b111) is None
    assert facts["slowest"].meant(0b011, 0b011) == 1


def test_a_speaker_says_what_is_needed_and_no_more():
    looks = (("star", "red", "small"), ("star", "blue", "small"), ("heart", "red", "small"))
    looks += (("star", "red", "large"), ("ring", "green", ""))
    objects = [
        {"x": 20 + 28 * i, "y": 50, "shape": shape, "color": color, "size": size}
        for i, (shape, color, size) in enumerate(looks)
    ]
    speaker = Speaker(make_sight(*objects))

    def sets(target: int, fact: Fact = NOTHING) -> set[tuple[str, ...]]:
        holders = speaker.holders[target]
        return {names for names in holders if speaker.singles_out(names, target, fact)}

    assert sets(0) == {("size", "color", "shape")}
    assert sets(1) == {("color",)}
    assert sets(2) == {("shape",)}
    assert sets(3) == {("size", "color"), ("size", "shape")}  # the ring may be large, too
    assert sets(4) == {("color",), ("shape",)}
    left = Fact("position", "left side", yes=0b00001, maybe=0b00101)
    assert sets(0, left) == {("shape",)}  # "the red one on the left" may be the heart
    assert sets(1, left) == set()
    assert speaker.singles_out(("color", "shape"), 1, NOTHING, spare="shape")
    assert not speaker.singles_out(("color", "shape"), 4, NOTHING, spare="shape")


def test_a_scene_without_an_expression_of_some_kind_is_refused():
    alike = [{"x": 40, "y": 50}, {"x": 100, "y": 50}]
    assert describe(make_sight(*alike), np.random.default_rng(0)) is None


@pytest.mark.parametrize("num_frames", [1, 2, 4])
def test_few_frames_show_no_motion(num_frames):
    video = generate_video(0, num_frames=num_frames)
    assert [expression.kind for expression in video.expressions] == [*KINDS[:3]]
