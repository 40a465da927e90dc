# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
import json
import re
from collections import Counter, defaultdict
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch

from proxyformer_hf.data.augment import Camera
from proxyformer_hf.data.clips import (
    AbsentThings,
    ClipCollator,
    ClipRecipe,
    ImageScene,
    TrainingClips,
    image_weights,
    is_whole,
    rarity,
)
from proxyformer_hf.data.expressions import (
    CATS,
    DOGS,
    GIANTS,
    ROAD_VEHICLES,
    SYNONYMS,
    VEHICLES,
    VESSELS,
)
from proxyformer_hf.data.sources import Instance, LabelledImage, load_images, load_videos
from tests.toy_data import box_polygon, make_data_folder

RECIPE = ClipRecipe(video_size=(48, 80), image_size=(56, 72))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = make_data_folder(tmp_path_factory.mktemp("data"))
    return load_images(folder), load_videos(folder)


@pytest.fixture(scope="module")
def clips(data):
    return TrainingClips(*data, RECIPE, num_samples=120, seed=3)


def still_camera(height: int, width: int, flip: bool = False) -> Camera:
    matrix = np.diag([-1.0 if flip else 1.0, 1.0])[None]
    return Camera(matrix, np.array([[width if flip else 0.0, 0.0]]), (height, width), flip)


def scene_of(boxes, camera=None, written=(), unlabelled=()) -> ImageScene:
    instances = [
        Instance(
            i,
            category,
            [np.reshape(box_polygon(box), (-1, 2)).astype(float)],
            (box[2] - box[0]) * (box[3] - box[1]) / 20000,
            list(written) if i == 0 else [],
            colors={},
        )
        for i, (category, box) in enumerate(boxes)
    ]
    image = LabelledImage(Path(), 1, 100, 200, instances, frozenset(unlabelled))
    return ImageScene((image, camera or still_camera(100, 200)))


def test_samples_have_the_promised_form(clips):
    for i in range(len(clips)):
        sample = clips[i]
        assert sample["frames"].dtype == sample["masks"].dtype == torch.uint8
        count = len(sample["expressions"])
        assert 2 <= count <= 3 and all(sample["expressions"])
        assert sample["frames"].shape[:2] == (3, 3)
        assert sample["masks"].shape == (count, 3, *sample["frames"].shape[2:])
        assert set(sample["masks"].unique().tolist()) <= {0, 1}
        assert sample["masks"].any()


def test_samples_depend_on_seed_epoch_and_index_alone(data, clips):
    again = TrainingClips(*data, RECIPE, num_samples=120, seed=3)
    seed = TrainingClips(*data, RECIPE, num_samples=120, seed=4)
    epoch = TrainingClips(*data, RECIPE, num_samples=120, seed=3)
    epoch.set_epoch(1)
    for i in (7, 2):
        assert torch.equal(again[i]["frames"], clips[i]["frames"])
        assert again[i]["expressions"] == clips[i]["expressions"]
        assert torch.equal(again[i]["masks"], clips[i]["masks"])
    for other in (seed, epoch):
        assert any(other[i]["expressions"] != clips[i]["expressions"] for i in range(4))
    assert len({sample["id"] for k in (0, 1) for sample in (clips[k], epoch[k])}) == 4


def test_samples_mix_the_sources(clips):
    sizes = [tuple(clips[i]["frames"].shape[2:]) for i in range(len(clips))]
    assert set(sizes) == {(48, 80), (56, 72), (72, 56)}


def test_images_are_drawn_by_how_much_their_expressions_teach():
    boxes = {name: (name, (10, 10, 60, 60)) for name in ("dog", "cat")}
    scenes = [
        scene_of([boxes["dog"]], written=["the shaggy dog"]),
        scene_of([boxes["dog"], boxes["dog"]]),
        scene_of([boxes["dog"], boxes["cat"]]),
        scene_of([boxes["dog"]]),
    ]
    images = [image for scene in scenes for image, _ in scene.parts]
    weights = image_weights(images, {"dog": 4, "cat": 4})
    assert weights.sum() == pytest.approx(1)
    assert weights / weights[2] == pytest.approx([3, 2, 1, 1 / 3], abs=0.01)
    assert image_weights(images[-1:], {"dog": 1}) == pytest.approx([1])
    assert len(image_weights([], {})) == 0


def test_images_of_rare_things_are_drawn_more_often():
    boxes = [(name, (10, 10, 60, 60)) for name in ("dog", "cup")]
    images = [scene_of([box]).parts[0][0] for box in boxes]
    both = scene_of(boxes).parts[0][0]
    counts = {"dog": 100, "cup": 4}
    weights = image_weights([*images, both], counts)
    assert weights[1] / weights[0] == pytest.approx(5)
    assert weights[2] / weights[1] == pytest.approx(1 / 0.33)  # as rare, and of two objects
    # rare things are cut out and pasted by the same rule
    assert rarity(both.instances, counts) == rarity(images[1].instances, counts) == 0.5


def test_clips_of_images_have_their_own_length(data):
    recipe = ClipRecipe(video_share=0, image_frames=1, image_size=(56, 72))
    sample = TrainingClips(*data, recipe, num_samples=1, seed=0)[0]
    assert sample["frames"].shape[0] == sample["masks"].shape[1] == 1


@pytest.mark.parametrize(("absent_share", "num_absent"), [(0, 0), (1, 1)])
def test_objects_of_images_are_described_in_turn_while_there_is_room(
    data, absent_share, num_absent
):
    recipe = ClipRecipe(
        video_share=0, num_expressions=6, absent_share=absent_share, image_size=(56, 72)
    )
    images = TrainingClips(*data, recipe, num_samples=40, seed=0)
    most = defaultdict(int)  # by the number of objects described
    for i in range(len(images)):
        texts = images[i]["expressions"]
        assert len(set(texts)) == len(texts)
        masks = [mask.numpy().tobytes() for mask in images[i]["masks"].bool() if mask.any()]
        assert len(texts) - len(masks) == num_absent
        times = Counter(masks)
        most[len(times)] = max(most[len(times)], *times.values())
    assert most == {1: 6 - num_absent, 2: (6 - num_absent) // 2}


def test_left_and_right_are_true_after_crop_and_flip(data):
    recipe = ClipRecipe(video_share=0, image_size=(56, 72), absent_share=0)
    dogs = TrainingClips(data[0][:1], data[1], recipe, num_samples=40, seed=0)
    compared = 0
    for i in range(len(dogs)):
        sample = dogs[i]
        columns = {}
        for text, mask in zip(sample["expressions"], sample["masks"], strict=True):
            for side in ("left", "right"):
                if side in text and "dog" in text and mask.any():
                    columns[side] = mask.nonzero()[:, 2].float().mean()
        if len(columns) == 2:
            compared += 1
            assert columns["left"] < columns["right"]
    assert compared > 10


def test_written_colours_follow_their_object_through_flips(data):
    recipe = ClipRecipe(video_share=0, image_size=(56, 72))
    blue = TrainingClips(data[0][1:2], data[1], recipe, num_samples=30, seed=0)
    found = 0
    for i in range(len(blue)):
        sample = blue[i]
        for text, mask in zip(sample["expressions"], sample["masks"], strict=True):
            if "blue" in text and mask.any():
                found += 1
                pixels = sample["frames"].transpose(1, 0).float()[:, mask.bool()].mean(1)
                assert pixels.argmax() == 2
    assert found > 10


def test_only_what_is_alone_of_its_kind_is_called_by_the_name_of_a_kin(data):
    recipe = ClipRecipe(video_share=0, kin_share=1, absent_share=0, image_size=(56, 72))
    # two dogs; a dog and a cat, which are of two groups; a cat
    dogs, both, cat = (TrainingClips([image], data[1], recipe, 10, seed=0) for image in data[0])
    last_words = {text.split()[-1] for k in range(10) for text in dogs[k]["expressions"]}
    assert last_words.isdisjoint([*CATS, *DOGS])
    for k in range(10):
        assert cat[k]["expressions"][0].split()[-1] in CATS
        assert both[k]["expressions"][0].split()[-1] in (*CATS, *DOGS)


def test_objects_of_videos_are_called_by_the_names_of_their_kin(data):
    recipe = ClipRecipe(video_share=1, kin_share=1, composed_share=0, video_size=(48, 80))
    videos = TrainingClips([], data[1], recipe, num_samples=30, seed=0)
    kin = {"boat": VESSELS, "elephant": GIANTS, "bus": ROAD_VEHICLES}
    for i in range(len(videos)):
        sample = videos[i]
        name = next(name for name in kin if name in sample["expressions"][0])
        called = [t.split()[-1] in kin[name] for t in sample["expressions"]]
        shown = [mask.any().item() for mask in sample["masks"]]
        # a bus may show beside a car and a truck, which are of its group
        assert called == [False, name != "bus", False] and shown == [True, True, False]


def test_negative_expressions_of_videos_are_empty(data):
    recipe = ClipRecipe(video_share=1, video_size=(48, 80), composed_share=0)
    videos = TrainingClips(*data, recipe, num_samples=20, seed=0)
    names = {"boat": "elephant", "elephant": "boat"}
    for i in range(len(videos)):
        sample = videos[i]
        shown = [mask.any().item() for mask in sample["masks"]]
        assert shown == [True, True, False]
        positive = [name for name in names if name in sample["expressions"][0]]
        assert positive and positive[0] not in sample["expressions"][2]


def test_composed_videos_name_both_objects(data):
    recipe = ClipRecipe(video_share=1, video_size=(48, 80), composed_share=1)
    videos = TrainingClips(*data, recipe, num_samples=30, seed=0)
    composed = 0
    for i in range(len(videos)):
        texts, masks = videos[i]["expressions"], videos[i]["masks"].bool()
        if "cat" in texts[0] or "dog" in texts[0]:
            composed += 1
            assert masks[0].any() and masks[1].any() and not masks[2].any()
            assert not (masks[0] & masks[1]).any()
    assert composed > 5


def test_objects_of_other_videos_are_pasted_with_their_motion(data):
    recipe = ClipRecipe(
        video_share=1,
        video_size=(48, 80),
        composed_share=1,
        own_motion_share=1,
        video_absent_share=0,
    )
    videos = TrainingClips([], data[1], recipe, num_samples=30, seed=0)
    colors = {"boat": 0, "bus": 0, "elephant": 2}  # red, red, blue
    composed = 0
    for i in range(len(videos)):
        sample = videos[i]
        pasted, own, *_ = texts = sample["expressions"]
        names = [next(name for name in colors if name in text) for text in texts]
        if names[0] == names[1]:
            continue
        composed += 1
        assert pasted.removeprefix("a ").removeprefix("the ") == names[0]
        assert not (sample["masks"][0] & sample["masks"][1]).any()
        for name, mask in zip(names[:2], sample["masks"], strict=False):
            pixels = sample["frames"].transpose(1, 0).float()[:, mask.bool()].mean(1)
            assert pixels.argmax() == colors[name]
    assert composed > 5


def test_what_is_pasted_is_called_by_the_names_of_its_kin(data):
    recipe = ClipRecipe(
        video_share=1,
        video_absent_share=0,
        kin_share=1,
        video_size=(48, 80),
        composed_share=1,
        own_motion_share=0.5,
    )
    videos = TrainingClips(*data, recipe, num_samples=30, seed=0)
    kin = {"boat": VESSELS, "elephant": GIANTS}
    called = 0
    for i in range(len(videos)):
        texts = videos[i]["expressions"]
        own = next((kin[name] for name in kin if name in texts[1]), None)
        names = next((names for names in (VESSELS, GIANTS) if texts[0].split()[-1] in names), None)
        if own is not None and names is not None:
            called += 1
            assert names != own
    assert called > 5


@pytest.mark.parametrize("own_motion_share", [0, 1])
def test_what_passes_is_described_where_it_is_not_in_view(data, own_motion_share: int):
    recipe = ClipRecipe(
        video_share=1,
        video_size=(48, 80),
        video_absent_share=0,
        composed_share=1,
        own_motion_share=own_motion_share,
        passing_share=0.5,
    )
    videos = TrainingClips(*data, recipe, num_samples=60, seed=0)
    counts = Counter()
    for i in range(len(videos)):
        texts, masks = videos[i]["expressions"], videos[i]["masks"].bool()
        if not torch.equal(masks[0], masks[1]):  # of what is pasted, and of the video's own object
            in_view = masks.any(3).any(2).tolist()
            counts[tuple(in_view[0])] += 1
            assert all(in_view[1]) and texts[0] != texts[1]
    assert {*counts} == {(True, True, True), (False, True, True), (True, True, False)}
    assert min(counts.values()) > 3


def data_of_a_dog(root: Path, bystanders: list[str]):
    """The toy images, and the video of a red box: it is a dog, bystanders are shown, too."""
    folder = make_data_folder(root)
    file = folder / "davis16_train_240p/meta_expressions.json"
    meta = json.loads(file.read_text())
    meta["videos"]["boat"]["content"] = [["dog"], bystanders]
    file.write_text(json.dumps(meta))
    return load_images(folder), load_videos(folder, ["boat"])


def test_look_alikes_in_videos_are_told_apart_by_what_is_true(tmp_path: Path):
    """The toy video's box is red; a red and a blue dog are pasted beside it."""
    data = data_of_a_dog(tmp_path, bystanders=[])
    recipe = ClipRecipe(video_share=1, video_size=(48, 80), composed_share=1, look_alike_share=1)
    clips = TrainingClips(*data, recipe, 60, seed=0)
    told = Counter()
    for sample in map(clips.__getitem__, range(60)):
        if len(sample["expressions"]) != 2:  # something else is pasted, as no path was found
            continue
        own, pasted = masks = sample["masks"].bool()
        assert own.any() and pasted.any() and not (own & pasted).any()
        for k, text in enumerate(sample["expressions"]):
            mine, other = masks[k][0], masks[1 - k][0]
            (y, x), (v, u) = (each.nonzero().float().mean(0) for each in (mine, other))
            truths = {
                r"\b(left)": x < u,
                r"\b(right)": x > u,
                r"\b(top|upper)": y < v,
                r"\b(bottom|lower)": y > v,
                r"\b(bigger|larger|in front|closer|nearer)": mine.sum() > other.sum(),
                r"\b(smaller)": mine.sum() < other.sum(),
            }
            told.update(pattern for pattern in truths if re.search(pattern, text))
            assert all(true for pattern, true in truths.items() if re.search(pattern, text)), text
    assert min(told[r"\b(left)"], told[r"\b(right)"]) > 5 and len(told) > 3


def test_an_object_beside_one_of_its_kind_gets_no_look_alike_and_no_kin_name(tmp_path: Path):
    recipe = ClipRecipe(
        video_share=1, video_size=(48, 80), composed_share=0.5, look_alike_share=1, kin_share=1
    )
    for bystanders, expected in (([], True), (["dog"], False)):
        data = data_of_a_dog(tmp_path / "_".join(["dog", *bystanders]), bystanders)
        clips = TrainingClips(*data, recipe, 30, seed=0)
        texts = [text for k in range(30) for text in clips[k]["expressions"]]
        assert any(text.split()[-1] in {*DOGS} - {*CATS} for text in texts) == expected
        assert any("dog" in text.split() for text in texts) == expected


def test_targets_are_large_and_mostly_in_view():
    boxes = [("dog", (10, 10, 60, 60)), ("dog", (100, 50, 110, 60)), ("dog", (150, 10, 196, 60))]
    assert scene_of(boxes).targets() == [0, 2]
    panned = Camera(np.eye(2)[None], np.array([[34.0, 0.0]]), (100, 200), flip=False)
    assert scene_of(boxes, panned).targets() == [0]  # 16 of the third one's 46 columns are left


def test_facts_hold_in_every_frame():
    boxes = [("dog", (10, 10, 60, 60)), ("dog", (140, 10, 190, 60))]
    assert scene_of(boxes).facts(0) == [("side", "left")]
    # The second dog leaves in the last frame, where the first is the only one.
    matrices, offsets = np.eye(2)[None].repeat(2, 0), np.array([[0.0, 0.0], [100.0, 0.0]])
    assert scene_of(boxes, Camera(matrices, offsets, (100, 200), flip=False)).facts(0) == []


def pair_of(first, second, written=()) -> ImageScene:
    return ImageScene(*scene_of(first, written=written).parts, *scene_of(second).parts)


def test_images_side_by_side_make_one_scene():
    scene = pair_of([("dog", (110, 20, 150, 60))], [("dog", (10, 20, 50, 60))])
    assert [mask.shape for mask in scene.masks] == [(1, 100, 400)] * 2
    assert [np.flatnonzero(mask[0].any(0))[[0, -1]].tolist() for mask in scene.masks] == [
        [110, 149],
        [210, 249],
    ]
    assert scene.targets() == [0, 1]
    assert scene.facts(0) == [("side", "left")] and scene.facts(1) == [("side", "right")]


def test_written_expressions_of_a_pair_hold_for_both_images():
    texts = ["the dog on the left", "the shaggy dog"]
    dog, sheep, cup = ([(category, (10, 10, 60, 60))] for category in ("dog", "sheep", "cup"))
    assert pair_of(dog, cup, texts).written(0) == ["the shaggy dog"]
    assert pair_of(dog, dog, texts).written(0) == pair_of(dog, sheep, texts).written(0) == []


def test_what_another_image_of_a_pair_may_show_as_well_is_no_target():
    boxes = [("dog", (10, 10, 60, 60)), ("cup", (100, 10, 160, 60))]
    unsure = scene_of([("dog", (10, 10, 60, 60))], unlabelled=("cup",))
    assert ImageScene(*scene_of(boxes).parts, *unsure.parts).targets() == [0, 2]


def test_what_an_image_may_show_unlabelled_is_not_called_absent(data):
    images, labelled = deepcopy(data[0]), {"cat", "dog", "airplane"}
    for image in images:
        image.unlabelled = frozenset(SYNONYMS) - labelled
    recipe = ClipRecipe(video_share=0, absent_share=1)
    samples = TrainingClips(images, data[1], recipe, num_samples=40, seed=0)
    absent = {
        text
        for sample in map(samples.__getitem__, range(40))
        for text, mask in zip(sample["expressions"], sample["masks"], strict=True)
        if not mask.any()
    }
    words = {name for category in labelled for name in SYNONYMS.get(category, (category,))}
    assert any("plane" in text for text in absent)
    assert all(any(word in text for word in words) for text in absent)


def test_paired_clips_have_their_own_size_and_show_both_images(data):
    recipe = ClipRecipe(video_share=0, paired_share=1, paired_size=(56, 96))
    paired = TrainingClips(*data, recipe, num_samples=20, seed=0)
    halves = set()
    for i in range(len(paired)):
        sample = paired[i]
        assert sample["frames"].shape == (3, 3, 56, 96)
        for half, columns in (("left", np.s_[..., :48]), ("right", np.s_[..., 48:])):
            assert sample["frames"][columns].any()
            if sample["masks"][columns].any():
                halves.add(half)
    assert halves == {"left", "right"}


def test_written_expressions_are_mirrored_and_dropped_when_the_object_moves():
    boxes, texts = [("dog", (10, 10, 60, 60))], ["the dog on the left", "the shaggy dog"]
    assert scene_of(boxes, written=texts).written(0) == texts
    mirrored = scene_of(boxes, still_camera(100, 200, flip=True), texts)
    assert mirrored.written(0) == ["the dog on the right", "the shaggy dog"]
    panned = Camera(np.eye(2)[None], np.array([[90.0, 0.0]]), (100, 200), flip=False)
    assert scene_of(boxes, panned, texts).written(0) == ["the shaggy dog"]


def test_what_cannot_be_told_apart_has_no_expression():
    scene = scene_of([("dog", (10, 10, 60, 60)), ("dog", (12, 12, 62, 62))])
    assert scene.expression(0, np.random.default_rng(0), written_share=1.0) is None


def test_absent_things_are_not_shown_nor_confusable(data):
    absent, rng = AbsentThings(data[0]), np.random.default_rng(0)
    texts = {absent.expression({"cat"}, rng) for _ in range(100)}
    assert any("dog" in text for text in texts)
    assert not any(word in text for text in texts for word in ("cat", "kitty"))
    # A dog may pass for a horse.
    assert not any("dog" in absent.expression({"horse"}, rng) for _ in range(100))
    assert absent.expression({*SYNONYMS}, rng) is None


def test_absent_things_may_be_kin_of_what_is_shown(data):
    absent, rng = AbsentThings(data[0]), np.random.default_rng(0)
    kinds = VEHICLES & {*SYNONYMS} - {"bicycle", "motorcycle"}
    vehicles = [name for kind in kinds for name in (kind, *SYNONYMS[kind])]
    texts = {absent.expression({"bicycle"}, rng, kindred_share=1) for _ in range(100)}
    assert len(texts) > 10 and all(any(name in text for name in vehicles) for text in texts)
    texts = {absent.expression({"bicycle"}, rng, kindred_share=0.3) for _ in range(100)}
    assert not all(any(name in text for name in vehicles) for text in texts)
    texts = {absent.expression({"clock"}, rng, kindred_share=1) for _ in range(100)}  # without kin
    assert any("dog" in text for text in texts)


def test_what_people_wear_is_not_absent_from_their_videos(data):
    videos = TrainingClips(*data, ClipRecipe(video_share=1), num_samples=1, seed=0)
    videos.videos = []  # whose expressions would be asked for, too
    videos.absent.categories = ["cat", "shirt", "tie"]
    videos.absent.weights = np.ones(3)
    videos.absent.written.update(shirt=[], tie=[])
    rng = np.random.default_rng(0)
    of_people = [videos._absent_from(frozenset({"person"}), rng) for _ in range(50)]
    assert not any(worn in text for text in of_people for worn in ("shirt", "tie"))
    of_boats = [videos._absent_from(frozenset({"boat"}), rng) for _ in range(50)]
    assert any("shirt" in text for text in of_boats)


@pytest.mark.parametrize(
    ("box", "whole"),
    [((20, 20, 90, 80), True), ((0, 20, 70, 80), False), ((20, 20, 40, 40), False)],
)
def test_only_large_objects_off_the_border_are_cut_out(box, whole):
    ((image, _),) = scene_of([("dog", box)]).parts
    assert is_whole(image, image.instances[0]) is whole


def test_collator_gives_rows_of_texts_and_masks(clips):
    asked = {}

    def processor(**kwargs):
        asked.update(kwargs)
        return {"pixel_values_videos": torch.stack(kwargs["videos"]), "input_ids": torch.ones(6, 2)}

    samples = [
        clip for clip in map(clips.__getitem__, range(40)) if clip["frames"].shape[2:] == (48, 80)
    ][:2]
    batch = ClipCollator(processor)(samples)
    assert set(batch) == {"pixel_values_videos", "input_ids", "mask_labels"}
    assert torch.equal(batch["mask_labels"], torch.cat([s["masks"] for s in samples]).char())
    assert asked["text"] == [s["expressions"] for s in samples]
    assert asked["do_resize"] is asked["do_sample_frames"] is False


def test_collator_repeats_an_expression_with_unknown_masks_where_others_have_more(clips):
    asked = {}

    def processor(**kwargs):
        asked.update(kwargs)
        return {"pixel_values_videos": torch.stack(kwargs["videos"]), "input_ids": torch.ones(6, 2)}

    first, second = [
        clip for clip in map(clips.__getitem__, range(40)) if clip["frames"].shape[2:] == (48, 80)
    ][:2]
    fewer = first | {"expressions": first["expressions"][:2], "masks": first["masks"][:2]}
    labels = ClipCollator(processor)([fewer, second])["mask_labels"]
    assert asked["text"][0] == [*fewer["expressions"], fewer["expressions"][1]]
    assert torch.equal(labels[:2], fewer["masks"].char()) and labels[2].eq(-1).all()
    assert torch.equal(labels[3:], second["masks"].char())
