# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""Training clips: real videos, and images set in motion, each with several expressions and masks.

A sample is a dict of
    frames: uint8 (T, 3, height, width)
    expressions: E strings
    masks: uint8 (E, T, height, width), empty where an expression's object is not shown
    id: "stills-and-videos/<epoch>/<index>"
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .augment import (
    MIN_VISIBLE,
    Camera,
    crop_video,
    cut_out,
    cut_out_moving,
    jitter_colors,
    paste,
)
from .expressions import (
    CONFUSABLE,
    KINDRED,
    SYNONYMS,
    WORN,
    Seen,
    color_fractions,
    facts,
    is_positional,
    kin_names,
    phrase,
    swap_left_right,
    with_article,
)
from .seeded import Sample, SeededDataset
from .sources import (
    MIN_TARGET_AREA,
    NOUN_PHRASE,
    WHOLE_VIDEO,
    Instance,
    LabelledImage,
    LabelledVideo,
    rasterize,
)


@dataclass
class ClipRecipe:
    """What training clips look like. Sizes are (height, width); shares are probabilities."""

    num_frames: int = 3  # of clips of videos
    image_frames: int = 3  # of clips of images
    num_expressions: int = 3  # of a clip, at most
    video_share: float = 0.5  # of the samples; the others show images
    video_size: tuple[int, int] = (192, 352)
    image_size: tuple[int, int] = (224, 288)  # turned for portrait images
    written_share: float = 0.7  # of an object that has written expressions
    kin_share: float = 0.0  # of objects alone of their kind, called by a name that no label has
    absent_share: float = 0.3  # of image clips with an expression of something that is not there
    video_absent_share: float = 1.0  # the same, of video clips
    kindred_absent_share: float = 0.0  # of these things: like a dog where a cat is shown
    still_share: float = 0.15  # of image clips without motion
    paired_share: float = 0.0  # of image clips that show two images side by side
    paired_size: tuple[int, int] = (192, 336)  # of both together
    composed_share: float = 0.3  # of video clips into which an object is pasted
    look_alike_share: float = 0.0  # of these, where it can be: an object of the same kind
    own_motion_share: float = 0.0  # of the others: another video's object with its motion, no still
    passing_share: float = 0.0  # of the others: the object comes into view or goes out of it


ABSENT_FACTS = (
    *[("only",)] * 4,
    *[("side", "left"), ("side", "right"), ("middle",)],
    *[("color", color) for color in ("black", "white", "red")],
)
NEVER_TARGETS = ("dining table",)  # outlined as whole scenes, with everything that lies on them
MIN_LOOK_ALIKE, MAX_LOOK_ALIKE = 0.2, 0.8  # heights of the frame's
MAX_SHIFT = 0.2  # of the frame: an object moved further may have lost its written position


def instance_colors(image: LabelledImage, instance: Instance) -> dict[str, float]:
    """Colour shares of an instance, computed once from at most 2000 of its pixels."""
    if instance.colors is None:
        pixels = image.pixels[rasterize(instance.polygons, image.height, image.width)]
        step = max(1, len(pixels) // 2000)
        instance.colors = color_fractions(pixels[::step]) if len(pixels) else {}
    return instance.colors


class ImageScene:
    """What a clip of images side by side shows: the masks of all instances, what is true of each.

    `parts` are (image, camera) from left to right, their views of one height.
    """

    def __init__(self, *parts: tuple[LabelledImage, Camera]):
        self.parts = parts
        self.instances = [instance for image, _ in parts for instance in image.instances]
        self.origins = [part for part in parts for _ in part[0].instances]
        edges = np.cumsum([0, *(camera.size[1] for _, camera in parts)])
        self.masks = [
            np.pad(camera.masks(i.polygons), ((0, 0), (0, 0), (left, edges[-1] - right)))
            for (image, camera), left, right in zip(parts, edges[:-1], edges[1:], strict=True)
            for i in image.instances
        ]
        colors = [instance_colors(image, i) for image, _ in parts for i in image.instances]
        self.views: list[list[Seen | None]] = [
            [
                Seen.from_mask(instance.category, masks[k], color)
                for instance, masks, color in zip(self.instances, self.masks, colors, strict=True)
            ]
            for k in range(len(parts[0][1].matrices))
        ]

    def frames(self) -> np.ndarray:
        """Pixels uint8 (T, height, width, 3)."""
        return np.concatenate([camera.frames(image.pixels) for image, camera in self.parts], axis=2)

    def targets(self) -> list[int]:
        """Instances large enough in each frame, of which enough is left in view."""
        found = []
        for i, (instance, (image, camera)) in enumerate(
            zip(self.instances, self.origins, strict=True)
        ):
            areas = self.masks[i].sum((1, 2))
            whole = np.abs(np.linalg.det(camera.matrices)) * image.height * image.width
            large = areas.min() >= MIN_TARGET_AREA * self.masks[i][0].size
            large = large and instance.category not in NEVER_TARGETS
            if any(instance.category in other.unlabelled for other, _ in self.parts):
                continue  # what is true of it may be true of another one
            if large and (areas >= MIN_VISIBLE * instance.area * whole).all():
                found.append(i)
        return found

    def facts(self, index: int) -> list[tuple[str, ...]]:
        """What singles out an instance in every frame, sorted."""
        return lasting_facts(self.views, index)

    def written(self, index: int) -> list[str]:
        """Written expressions that still hold after the crop, mirrored where the camera mirrors."""
        instance, (image, camera) = self.instances[index], self.origins[index]
        texts = instance.written
        if texts and len(self.parts) > 1:
            doubtful = with_confusable({instance.category})
            others = [other for other, its_camera in self.parts if its_camera is not camera]
            if any(i.category in doubtful for other in others for i in other.instances):
                return []
        size = (image.height, image.width)
        moved = len(self.parts) > 1 or camera.shift(instance.polygons, size) > MAX_SHIFT
        if texts and moved:
            texts = [text for text in texts if not is_positional(text)]
        return [swap_left_right(text) for text in texts] if camera.flip else texts

    def expression(
        self,
        index: int,
        rng: np.random.Generator,
        written_share: float,
        kin_share: float = 0.0,
    ) -> str | None:
        """One expression of an instance, or None when nothing singles it out."""
        category = self.instances[index].category
        others = [i.category for k, i in enumerate(self.instances) if k != index]
        names = kin_names(category, others)
        if names and rng.random() < kin_share:
            return call(names, rng)
        written = self.written(index)
        if written and rng.random() < written_share:
            return str(rng.choice(written))
        found = self.facts(index)
        if not found:
            return str(rng.choice(written)) if written else None
        seen = self.views[len(self.views) // 2][index]
        return phrase(found[rng.integers(len(found))], seen, rng)


def lasting_facts(views: list[list[Seen | None]], index: int) -> list[tuple[str, ...]]:
    """What singles out an object in every frame, sorted; `views` has all objects of each frame,
    None where one is out of sight."""
    found = None
    for view in views:
        position = sum(seen is not None for seen in view[:index])
        here = facts([seen for seen in view if seen is not None], position)
        found = here if found is None else found & here
    return sorted(found)


def call(names: list[str], rng: np.random.Generator) -> str:
    """One of the names, as an expression."""
    return with_article(str(rng.choice(names)), unique=True, plural=False, rng=rng)


def with_confusable(shown: set[str] | frozenset[str]) -> set[str]:
    """The categories and those easily taken for one of them."""
    return set(shown).union(*(group for group in CONFUSABLE if group & shown))


def is_whole(image: LabelledImage, instance: Instance) -> bool:
    """Whether an instance can be cut out: one large piece that no border of the image cuts."""
    if len(instance.polygons) > 1 or not 0.03 < instance.area < 0.6:
        return False
    low, high = instance.polygons[0].min(0), instance.polygons[0].max(0)
    inside = (low > 2).all() and (high < (image.width - 2, image.height - 2)).all()
    return bool(inside) and instance.category not in NEVER_TARGETS


def name_alone(
    image: LabelledImage, instance: Instance, masks: np.ndarray, rng: np.random.Generator
) -> str:
    """A template expression of the only object of its kind, true in all frames that show it."""
    colors = instance_colors(image, instance)
    views = [Seen.from_mask(instance.category, mask, colors) for mask in masks if mask.any()]
    found = lasting_facts([[seen] for seen in views], 0)
    return phrase(found[rng.integers(len(found))], views[0], rng)


class AbsentThings:
    """Expressions of things that a picture does not show, but that others do."""

    def __init__(self, images: list[LabelledImage]):
        counts = Counter(c for image in images for c in {i.category for i in image.instances})
        self.categories = sorted({*counts, *SYNONYMS})
        self.weights = np.sqrt([max(counts[category], 0.1) for category in self.categories])
        self.written: dict[str, list[str]] = {category: [] for category in self.categories}
        for image in images:
            for instance in image.instances:
                self.written[instance.category] += instance.written

    def expression(
        self, shown: set[str] | frozenset[str], rng: np.random.Generator, kindred_share: float = 0.0
    ) -> str | None:
        """An expression of a category neither in `shown` nor easily taken for one of these; None
        where there is none. At times, where there is one, of the kin (`KINDRED`) of one shown."""
        doubtful = with_confusable(shown)
        fitting = np.array([category not in doubtful for category in self.categories])
        weights = self.weights * fitting
        if kindred_share and rng.random() < kindred_share:
            kin = frozenset().union(*(group for group in KINDRED if group & shown))
            near = np.array([category in kin for category in self.categories]) & fitting
            weights = self.weights * near if near.any() else weights
        if not weights.any():
            return None
        category = self.categories[rng.choice(len(weights), p=weights / weights.sum())]
        if self.written[category] and rng.random() < 0.5:
            return str(rng.choice(self.written[category]))
        fact = ABSENT_FACTS[rng.integers(len(ABSENT_FACTS))]
        return phrase(fact, Seen(category, (0, 0, 1, 1), (0.5, 0.5), 1.0, {}), rng)


def rarity(instances: list[Instance], counts: Mapping[str, int]) -> float:
    """One over the square root of how often their rarest category that is large enough is shown."""
    shown = [counts[x.category] for x in instances if x.area >= MIN_TARGET_AREA]
    return min(shown) ** -0.5


def image_weights(images: list[LabelledImage], counts: Mapping[str, int]) -> np.ndarray:
    """How probable images (each with an object that is large enough) are to be drawn; sums to 1.

    Those with written expressions come three times, with look-alikes twice as often as others;
    those of a single object, which teach few words, three times as seldom. All that by `rarity`: a
    few cups shall be seen beside a thousand dogs.
    """
    worth = [
        3.0
        if any(x.written for x in image.instances)
        else 2.0
        if image.look_alikes()
        else 1.0
        if len(image.instances) > 1
        else 0.33
        for image in images
    ]
    weights = np.array(worth) * [rarity(image.instances, counts) for image in images]
    return weights / (weights.sum() or 1)


class TrainingClips(SeededDataset):
    """Training samples (see the module), `num_samples` in an epoch and others in each."""

    def __init__(
        self,
        images: list[LabelledImage],
        videos: list[LabelledVideo],
        recipe: ClipRecipe,
        num_samples: int,
        seed: int,
    ):
        super().__init__(seed)
        self.videos, self.recipe, self.num_samples = videos, recipe, num_samples
        self.absent = AbsentThings(images)
        usable = [i for i in images if any(x.area >= MIN_TARGET_AREA for x in i.instances)]
        self.counts = Counter(
            category
            for image in usable
            for category in {x.category for x in image.instances if x.area >= MIN_TARGET_AREA}
        )
        portrait = [image for image in usable if image.height > image.width]
        landscape = [image for image in usable if image.height <= image.width]
        self.portrait_share = len(portrait) / max(len(usable), 1)
        self.cut_outs = [(i, x) for i in images for x in i.instances if is_whole(i, x)]
        self.images = {True: portrait, False: landscape}
        self.weights = {
            key: image_weights(group, self.counts) for key, group in self.images.items()
        }

    def __len__(self) -> int:
        return self.num_samples

    def __getitem__(self, index: int) -> Sample:
        sample = self._sample(self.generator(index))
        return sample | {"id": f"stills-and-videos/{self.epoch}/{index}"}

    def _sample(self, rng: np.random.Generator) -> Sample:
        if rng.random() < self.recipe.video_share:
            return self._video_sample(rng)
        paired = bool(rng.random() < self.recipe.paired_share)
        portrait = bool(rng.random() < self.portrait_share)
        while True:
            scene = self._pair(rng) if paired else self._single(portrait, rng)
            sample = self._image_sample(scene, rng)
            if sample is not None:
                return sample

    def _single(self, portrait: bool, rng: np.random.Generator) -> ImageScene:
        size = self.recipe.image_size[::-1] if portrait else self.recipe.image_size
        return ImageScene(self._view(portrait, tuple(size), rng))

    def _pair(self, rng: np.random.Generator) -> ImageScene:
        """Two images side by side: more look-alikes, and things that are only in one half."""
        height, width = self.recipe.paired_size
        portraits = rng.random(2) < self.portrait_share
        views = [self._view(bool(portrait), (height, width // 2), rng) for portrait in portraits]
        return ImageScene(*views)

    def _view(
        self, portrait: bool, size: tuple[int, int], rng: np.random.Generator
    ) -> tuple[LabelledImage, Camera]:
        images = self.images[portrait]
        image = images[rng.choice(len(images), p=self.weights[portrait])]
        still = bool(rng.random() < self.recipe.still_share)
        source = (image.height, image.width)
        return image, Camera.random(rng, source, size, self.recipe.image_frames, still)

    def _image_sample(self, scene: ImageScene, rng: np.random.Generator):
        """Instances of a scene, look-alikes first; None when none can be described."""
        recipe = self.recipe
        count = recipe.num_expressions
        if rng.random() < recipe.absent_share:
            count -= 1
        chosen: list[tuple[str, int]] = []
        for target in self._order(scene, rng):
            text = scene.expression(target, rng, recipe.written_share, recipe.kin_share)
            if text is not None:
                chosen.append((text, target))
            if len(chosen) >= count:
                break
        if not chosen:
            return None
        empty = np.zeros_like(scene.masks[0])
        shown = {instance.category for instance in scene.instances}
        shown = shown.union(*(image.unlabelled for image, _ in scene.parts))
        texts, masks = [text for text, _ in chosen], [scene.masks[t] for _, t in chosen]
        for _, target in chosen * (count // len(chosen) - 1):  # in other words, where there are
            text = scene.expression(target, rng, recipe.written_share)
            if text is not None and text not in texts:
                texts.append(text)
                masks.append(scene.masks[target])
        if len(texts) == 1 < count:  # a clip has two at least
            texts, masks = texts * 2, masks * 2
        if count < recipe.num_expressions:
            text = self.absent.expression(shown, rng, recipe.kindred_absent_share)
            if text is not None:
                texts.append(text)
                masks.append(empty)
        return {
            "frames": jitter_colors(scene.frames(), rng),
            "expressions": texts,
            "masks": torch.from_numpy(np.stack(masks).astype(np.uint8)),
        }

    def _order(self, scene: ImageScene, rng: np.random.Generator) -> list[int]:
        """Targets in the order in which to describe them: look-alikes, then other categories."""
        targets = scene.targets()
        rng.shuffle(targets)
        groups: dict[str, list[int]] = {}
        for target in targets:
            groups.setdefault(scene.instances[target].category, []).append(target)
        written = {c: any(scene.written(t) for t in group) for c, group in groups.items()}
        ranked = sorted(groups, key=lambda c: -(len(groups[c]) > 1) - written[c] - rng.random())
        pairs = [target for category in ranked for target in groups[category][:2]]
        rest = [target for category in ranked for target in groups[category][2:]]
        return pairs + rest if rng.random() < 0.5 else pairs[:2] + rest + pairs[2:]

    def _video_sample(self, rng: np.random.Generator):
        """Wordings of a video's object, at times of a pasted object, and of one that is absent."""
        recipe = self.recipe
        video = self.videos[rng.integers(len(self.videos))]
        indices = self._frame_indices(video, rng)
        frames, masks = crop_video(video, indices, tuple(recipe.video_size), rng)
        if rng.random() < recipe.composed_share * recipe.look_alike_share:
            twins = self._compose_look_alike(video, frames, masks, rng)
            if twins is not None:
                return self._video_clip(*twins, rng)
        entries, shown = [], video.shown
        if rng.random() < recipe.composed_share:
            composed = self._compose(video, frames, masks, rng)
            if composed is not None:
                frames, masks, pasted, name, categories = composed
                entries.append((name, pasted))
                shown = shown | categories
        ids = [NOUN_PHRASE, *(i for i in video.expressions if i >= WHOLE_VIDEO)]
        ids += [i for i in (0, 1) if indices[0] < 8 or not is_positional(video.expressions[i])]
        wordings = [video.expressions[i] for i in rng.permutation(np.array(ids))]
        num_absent = int(rng.random() < recipe.video_absent_share)
        wordings = list(dict.fromkeys(wordings))
        wordings = wordings[: recipe.num_expressions - num_absent - len(entries)]
        entries += [(vary_article(text, rng), masks) for text in wordings]
        if wordings and len(video.targets) == 1:
            name = self._kin(*video.targets, shown - video.targets | video.bystanders, rng)
            if name is not None:
                entries[-1] = (name, masks)
        if num_absent:
            entries.append((self._absent_from(shown, rng), np.zeros_like(masks)))
        return self._video_clip(frames, entries, rng)

    def _video_clip(
        self, frames: np.ndarray, entries: list[tuple[str, np.ndarray]], rng: np.random.Generator
    ) -> Sample:
        """Frames, and expressions with their masks, mirrored half of the time."""
        texts, all_masks = [text for text, _ in entries], np.stack([mask for _, mask in entries])
        if rng.random() < 0.5:
            frames, all_masks = frames[:, :, ::-1], all_masks[..., ::-1]
            texts = [swap_left_right(text) for text in texts]
        return {
            "frames": jitter_colors(frames, rng),
            "expressions": texts,
            "masks": torch.from_numpy(all_masks.astype(np.uint8)),
        }

    def _compose(
        self,
        video: LabelledVideo,
        frames: np.ndarray,
        masks: np.ndarray,
        rng: np.random.Generator,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, str, frozenset[str]] | None:
        """What [`paste`] gives for an object unlike anything that the video shows, its expression
        and its categories."""
        height = round(frames.shape[1] * rng.uniform(0.3, 0.65))
        passing = bool(rng.random() < self.recipe.passing_share)
        if rng.random() >= self.recipe.own_motion_share:
            image, instance = self._foreign(video, rng)
            cut = cut_out(image, instance, height, rng)
            composed = paste(frames, masks, *cut, rng, passing)
            if composed is None:
                return None
            name = self._kin(instance.category, video.shown, rng)
            name = name or name_alone(image, instance, composed[2], rng)
            return *composed, name, frozenset({instance.category})
        doubtful = with_confusable(video.shown)
        others = [other for other in self.videos if not other.targets & doubtful]
        if not others:
            return None
        other = others[rng.integers(len(others))]
        cut = cut_out_moving(other, self._frame_indices(other, rng), height)
        composed = None if cut is None else paste(frames, masks, *cut, rng, passing)
        if composed is None:
            return None
        # the other expressions may tell of what surrounds it there
        name = vary_article(other.expressions[NOUN_PHRASE], rng)
        if len(other.targets) == 1:
            name = self._kin(*other.targets, video.shown, rng) or name
        return *composed, name, other.targets

    def _compose_look_alike(
        self,
        video: LabelledVideo,
        frames: np.ndarray,
        masks: np.ndarray,
        rng: np.random.Generator,
    ) -> tuple[np.ndarray, list[tuple[str, np.ndarray]]] | None:
        """The clip with a still of the video's kind of object, about as high as its own, and what
        tells the two apart, with their masks; None where that is nothing."""
        fitting = [pair for pair in self.cut_outs if {pair[1].category} == video.targets]
        rows = np.flatnonzero(masks.any((0, 2)))
        # people in the background are often left out of a video's content
        alone = not video.targets & (video.bystanders | {"person"})
        if not (fitting and rows.size and alone):
            return None
        image, instance = fitting[rng.integers(len(fitting))]
        low, high = (round(share * masks.shape[1]) for share in (MIN_LOOK_ALIKE, MAX_LOOK_ALIKE))
        height = int(np.clip(round(np.ptp(rows) * rng.uniform(0.6, 1.4)), low, high))
        composed = paste(frames, masks, *cut_out(image, instance, height, rng), rng)
        if composed is None:
            return None
        frames, *both = composed
        colors = [color_fractions(frames[mask]) for mask in both]
        views = [
            [
                Seen.from_mask(instance.category, mask, c)
                for mask, c in zip(here, colors, strict=True)
            ]
            for here in zip(*both, strict=True)
        ]
        if any(seen is None for view in views for seen in view):
            return None
        found = [lasting_facts(views, index) for index in (0, 1)]
        if not all(found):
            return None
        texts = [
            phrase(each[rng.integers(len(each))], seen, rng)
            for each, seen in zip(found, views[0], strict=True)
        ]
        return frames, [*zip(texts, both, strict=True)]

    def _kin(self, category: str, others: frozenset[str], rng: np.random.Generator) -> str | None:
        """At times, the name of a kin for what is alone of its kind."""
        names = kin_names(category, others)
        return call(names, rng) if names and rng.random() < self.recipe.kin_share else None

    def _foreign(self, video: LabelledVideo, rng: np.random.Generator):
        """An instance that can be cut out whole, unlike anything that the video shows."""
        doubtful = with_confusable(video.shown)
        fitting = [pair for pair in self.cut_outs if pair[1].category not in doubtful]
        weights = np.array([rarity([instance], self.counts) for _, instance in fitting])
        return fitting[rng.choice(len(fitting), p=weights / weights.sum())]

    def _frame_indices(self, video: LabelledVideo, rng: np.random.Generator) -> list[int]:
        count = self.recipe.num_frames
        stride = min(int(rng.integers(1, 7)), (len(video) - 1) // max(count - 1, 1))
        start = int(rng.integers(len(video) - stride * (count - 1)))
        return [start + k * stride for k in range(count)]

    def _absent_from(self, shown: frozenset[str], rng: np.random.Generator) -> str:
        """An expression of another video's object that is not shown, or of an absent category."""
        others = [other for other in self.videos if not other.targets & shown]
        if others and rng.random() < 0.5:
            other = others[rng.integers(len(others))]
            return vary_article(str(rng.choice(list(other.expressions.values()))), rng)
        if "person" in shown:
            shown = shown | WORN
        return self.absent.expression(shown, rng, self.recipe.kindred_absent_share)


def vary_article(text: str, rng: np.random.Generator) -> str:
    """'a black swan' as 'the black swan' or 'black swan', some of the time."""
    words = text.split(" ", 1)
    if len(words) == 2 and words[0] in ("a", "an", "the") and rng.random() < 0.3:
        return words[1] if rng.random() < 0.4 else f"the {words[1]}"
    return text


class ClipCollator:
    """Samples of any lengths and sizes, of up to E expressions each, as the model's inputs.

    Samples are those of this module; where one also has `annotated`, bool (T,), the masks of the
    other frames are unknown. A sample of fewer expressions than another one repeats its last, with
    unknown masks, so that it counts in no loss. The frames are normalised and padded by the
    processor, not resized.

    Returns:
        What the processor gives for B clips with E expressions each, and `mask_labels`, int8
        (B * E, T, height, width): 0 or 1, and -1 (unknown to the model) on frames without
        annotation and on all padding.
    """

    def __init__(self, processor: Callable[..., Mapping[str, Tensor]]):
        self.processor = processor

    def __call__(self, samples: list[Sample]) -> dict[str, Tensor]:
        texts = [sample["expressions"] for sample in samples]
        most = max(map(len, texts))
        batch = self.processor(
            videos=[sample["frames"] for sample in samples],
            text=[said + said[-1:] * (most - len(said)) for said in texts],
            do_resize=False,
            do_sample_frames=False,
            return_tensors="pt",
        )
        num_frames, _, *size = batch["pixel_values_videos"].shape[1:]
        labels = torch.full((len(batch["input_ids"]), num_frames, *size), -1, dtype=torch.int8)
        clips = labels.unflatten(0, (len(samples), -1))
        for clip, sample in zip(clips, samples, strict=True):
            masks = sample["masks"].to(torch.int8)
            if "annotated" in sample:
                masks = masks.masked_fill(~sample["annotated"][:, None, None], -1)
            count, length, height, width = masks.shape
            clip[:count, :length, :height, :width] = masks
        return {**batch, "mask_labels": labels}
