# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""What scripts/evaluate_dev.py asks of the development videos and images; the same each time."""

from typing import NamedTuple

import numpy as np

from proxyformer_hf.data.augment import cut_out, paste
from proxyformer_hf.data.clips import (
    AbsentThings,
    Camera,
    ImageScene,
    is_whole,
    name_alone,
    with_confusable,
)
from proxyformer_hf.data.expressions import phrase
from proxyformer_hf.data.sources import NOUN_PHRASE, LabelledImage, LabelledVideo

MAX_LOOK_ALIKES = 4  # of a category in an image, the largest
ABSENT = 6  # expressions of each image and video
SCENE_FRAMES, SCENE_STRIDE = 4, 3


# Images


class Expression(NamedTuple):
    """Of an image: `instance` is the index of the object, `fact` the kind of a template's fact."""

    kind: str  # written, template: of look-alikes; any: of all objects; absent, blind: of none
    instance: int | None
    text: str
    fact: str | None = None


def template(
    kind: str, scene: ImageScene, index: int, found: list[tuple[str, ...]], rng: np.random.Generator
) -> Expression:
    """One of the facts `found` of an instance in words."""
    fact = found[rng.integers(len(found))]
    return Expression(kind, index, phrase(fact, scene.views[0][index], rng), fact[0])


def dev_expressions(image: LabelledImage) -> list[Expression]:
    """Of all instances with a look-alike that has an expression of the same kind."""
    scene, rng = ImageScene((image, Camera.still(image))), np.random.default_rng(image.image_id)
    expressions = []
    for category in sorted(image.look_alikes()):
        group = [i for i in scene.targets() if image.instances[i].category == category]
        group.sort(key=lambda i: -image.instances[i].area)
        written = [
            Expression("written", i, image.instances[i].written[0])
            for i in group
            if image.instances[i].written
        ]
        described = [(i, found) for i in group if (found := scene.facts(i))][:MAX_LOOK_ALIKES]
        templates = [template("template", scene, i, found, rng) for i, found in described]
        expressions += [e for each in (written, templates) if len(each) > 1 for e in each]
    return expressions


def any_expressions(image: LabelledImage) -> list[Expression]:
    """A template expression of each instance, where two or more can be described."""
    scene = ImageScene((image, Camera.still(image)))
    rng = np.random.default_rng([image.image_id, 1])  # dev_expressions draws from [image_id]
    described = [(i, found) for i in scene.targets() if (found := scene.facts(i))]
    if len(described) < 2:
        return []
    return [template("any", scene, i, found, rng) for i, found in described]


def absent_expressions(image: LabelledImage, things: AbsentThings) -> list[Expression]:
    """Of things that the image does not show."""
    shown = frozenset(instance.category for instance in image.instances)
    texts = absent_texts(shown, things, [image.image_id, 2])
    return [Expression("absent", None, text) for text in texts]


def absent_texts(shown: frozenset[str], things: AbsentThings, seed: list[int]) -> list[str]:
    """`ABSENT` expressions of categories that are not shown, nor easily taken for one that is."""
    rng = np.random.default_rng(seed)
    return [things.expression(shown, rng) for _ in range(ABSENT)]


def mask_of(image: LabelledImage, index: int) -> np.ndarray:
    """The instance's mask, bool (1, height, width)."""
    return Camera.still(image).masks(image.instances[index].polygons)


# Videos


def read_frames(video: LabelledVideo, indices: range) -> tuple[np.ndarray, np.ndarray]:
    """Pixels uint8 (T, height, width, 3) and masks bool (T, height, width)."""
    pixels, masks = zip(*map(video.frame, indices), strict=True)
    return np.stack(pixels), np.stack(masks)


class Scene(NamedTuple):
    """A video's clip with a pasted object. Expressions and masks are those of the video's own
    object and of the pasted one."""

    frames: np.ndarray  # uint8 (T, height, width, 3)
    expressions: list[str]
    masks: list[np.ndarray]  # bool (T, height, width), what is visible


def compose(
    video: LabelledVideo, images: list[LabelledImage], number: int, passing: bool = False
) -> Scene:
    """Scene `number` of a video: with a whole object of an image, unlike all that it shows; with
    `passing` one that is not in view at the beginning or at the end."""
    rng = np.random.default_rng([number, *video.name.encode()])
    doubtful = with_confusable(video.shown)
    whole = [(image, i) for image in images for i in image.instances if is_whole(image, i)]
    fitting = [(image, i) for image, i in whole if i.category not in doubtful]
    start = int(rng.integers(len(video) - SCENE_STRIDE * (SCENE_FRAMES - 1)))
    indices = range(start, start + SCENE_STRIDE * SCENE_FRAMES, SCENE_STRIDE)
    frames, masks = read_frames(video, indices)
    composed = None
    while composed is None:  # until enough of both is in view
        image, instance = fitting[rng.integers(len(fitting))]
        height = round(frames.shape[1] * rng.uniform(0.3, 0.65))
        cut = cut_out(image, instance, height, rng)
        composed = paste(frames, masks, *cut, rng, passing)
    frames, visible, pasted = composed
    name = name_alone(image, instance, pasted, rng)
    return Scene(frames, [video.expressions[NOUN_PHRASE], name], [visible, pasted])
