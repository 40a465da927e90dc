# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""Training clips: real videos, and images set in motion, each with several expressions and their masks.

A sample is {"frames": uint8 (num_frames, 3, height, width), "expressions": E strings, "masks": uint8
(E, num_frames, height, width)}; the mask of an expression whose object is not shown is empty. Sample i
depends on (seed, i) alone, and all samples of a step have one size.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from .expressions import (
    CONFUSABLE,
    Seen,
    color_fractions,
    facts,
    is_positional,
    phrase,
    swap_left_right,
)
from .sources import MIN_TARGET_AREA, Instance, LabelledImage, LabelledVideo, rasterize


@dataclass
class ClipRecipe:
    """What training clips look like. Sizes are (height, width); shares are probabilities."""

    num_frames: int = 3
    num_expressions: int = 3
    video_share: float = 0.5  # of the steps; the others show images
    video_size: tuple[int, int] = (192, 352)
    image_size: tuple[int, int] = (224, 288)  # turned for portrait images
    written_share: float = 0.7  # of an object that has written expressions
    absent_share: float = 0.3  # of image clips with an expression of something that is not there
    still_share: float = 0.15  # of image clips without motion
    composed_share: float = 0.3  # of video clips into which an object of an image is pasted


NEVER_TARGETS = ("dining table",)  # outlined as whole scenes, with everything that lies on them
MIN_VISIBLE = 0.4  # of an object's area: less is no target
MAX_SHIFT = 0.2  # of the frame: an object moved further may have lost its written position


class Camera:
    """A smooth path of affine views of an image: target = matrix @ source + offset, in pixels."""

    def __init__(
        self, matrices: np.ndarray, offsets: np.ndarray, size: tuple[int, int], flip: bool
    ):
        self.matrices, self.offsets, self.size, self.flip = matrices, offsets, size, flip

    @classmethod
    def random(
        cls,
        rng: np.random.Generator,
        source: tuple[int, int],
        size: tuple[int, int],
        num_frames: int,
        still: bool,
    ) -> "Camera":
        """View `source` (height, width) at `size`: zoom 1-1.6 of a fit, pan, roll, shake, mirror."""
        (source_height, source_width), (height, width) = source, size
        fit = np.sqrt(height / source_height * width / source_width)
        zoom = fit * np.exp(rng.uniform(0, np.log(1.6)))
        stretch = np.exp(rng.uniform(-0.08, 0.08))
        flip = bool(rng.random() < 0.5)
        # The view's centre stays where little of the frame lies outside the image.
        slack = np.maximum(1 - np.array([width / source_width, height / source_height]) / zoom, 0)
        center = (0.5 + rng.uniform(-0.5, 0.5, 2) * slack) * (source_width, source_height)

        motion = 0.0 if still else 1.0
        time = np.linspace(-0.5, 0.5, num_frames) * motion
        shake = rng.normal(size=(4, num_frames)) * motion
        roll = np.radians(rng.uniform(-5, 5) + rng.uniform(-5, 5) * time + 0.4 * shake[0])
        scales = zoom * np.exp(rng.uniform(-0.15, 0.15) * time + 0.008 * shake[1])
        drift = rng.uniform(-0.12, 0.12, 2)[:, None] * time + 0.004 * shake[2:]
        matrices = np.empty((num_frames, 2, 2))
        for k in range(num_frames):
            c, s = np.cos(roll[k]), np.sin(roll[k])
            mirror = np.diag([-stretch if flip else stretch, 1 / stretch])
            matrices[k] = scales[k] * np.array([[c, -s], [s, c]]) @ mirror
        targets = (0.5 + drift.T) * (width, height)
        offsets = targets - np.einsum("kij,j->ki", matrices, center)
        return cls(matrices, offsets, size, flip)

    def frames(self, pixels: np.ndarray) -> np.ndarray:
        """The views of uint8 (height, width, 3) pixels, bilinear; black outside. (T, h, w, 3)."""
        image = Image.fromarray(pixels)
        shrink = min(1.0, float(np.sqrt(np.abs(np.linalg.det(self.matrices)).max())))
        if shrink < 0.85:  # resize is anti-aliased, transform is not
            small = (round(image.width * shrink), round(image.height * shrink))
            scale = np.array(small) / image.size
            image = image.resize(small, Image.Resampling.BILINEAR)
        else:
            scale = np.ones(2)
        height, width = self.size
        views = []
        for matrix, offset in zip(self.matrices, self.offsets, strict=True):
            inverse = np.diag(scale) @ np.linalg.inv(matrix)
            shift = -inverse @ offset
            coefficients = (*inverse[0], shift[0], *inverse[1], shift[1])
            views.append(
                image.transform(
                    (width, height),
                    Image.Transform.AFFINE,
                    coefficients,
                    resample=Image.Resampling.BILINEAR,
                )
            )
        return np.stack(views)

    def masks(self, polygons: list[np.ndarray]) -> np.ndarray:
        """The views of polygons as bool (T, height, width)."""
        height, width = self.size
        masks = np.zeros((len(self.matrices), height, width), bool)
        for k, (matrix, offset) in enumerate(zip(self.matrices, self.offsets, strict=True)):
            moved = [polygon @ matrix.T + offset for polygon in polygons]
            low = np.min([p.min(0) for p in moved], axis=0)
            high = np.max([p.max(0) for p in moved], axis=0)
            if (low < (width, height)).all() and (high > 0).all():
                masks[k] = rasterize(moved, height, width)
        return masks

    def shift(self, polygons: list[np.ndarray], source: tuple[int, int]) -> float:
        """How far the object's middle moved in the frame, as a fraction of it (largest of x, y, frames)."""
        points = np.concatenate(polygons)
        middle = (points.min(0) + points.max(0)) / 2
        before = middle / (source[1], source[0])
        if self.flip:
            before[0] = 1 - before[0]
        after = (self.matrices @ middle + self.offsets) / (self.size[1], self.size[0])
        return float(np.abs(after - before).max())


def jitter_colors(frames: np.ndarray, rng: np.random.Generator) -> Tensor:
    """Brightness, contrast, saturation and white balance of a clip, slightly different in each frame.

    Mild enough that colour words stay true. uint8 (T, h, w, 3) -> uint8 (T, 3, h, w).
    """
    count = len(frames)

    def around(low: float, high: float) -> np.ndarray:
        return rng.uniform(low, high) + rng.normal(size=count) * (high - low) * 0.03

    saturation, contrast, brightness = around(0.7, 1.3), around(0.75, 1.25), around(-22, 22)
    balance = rng.uniform(0.94, 1.06, 3)
    jittered = []
    for k, frame in enumerate(frames):
        matrix = saturation[k] * np.eye(3) + (1 - saturation[k]) / 3
        matrix = contrast[k] * balance[:, None] * matrix
        offset = balance * (
            110 * (1 - contrast[k]) + brightness[k]
        )  # contrast turns about level 110
        image = Image.fromarray(frame)
        image = image.convert("RGB", tuple(np.column_stack([matrix, offset]).ravel()))
        jittered.append(np.asarray(image).transpose(2, 0, 1))
    return torch.from_numpy(np.stack(jittered))


def instance_colors(image: LabelledImage, instance: Instance) -> dict[str, float]:
    """Colour shares of an instance, computed once from at most 2000 of its pixels."""
    if instance.colors is None:
        pixels = image.pixels[rasterize(instance.polygons, image.height, image.width)]
        step = max(1, len(pixels) // 2000)
        instance.colors = color_fractions(pixels[::step]) if len(pixels) else {}
    return instance.colors


class ImageScene:
    """What a clip of an image shows: the masks of all instances and what can be said of each."""

    def __init__(self, image: LabelledImage, camera: Camera):
        self.image, self.camera = image, camera
        self.masks = [camera.masks(instance.polygons) for instance in image.instances]
        self.views: list[list[Seen | None]] = [
            [
                Seen.from_mask(instance.category, masks[k], instance_colors(image, instance))
                for instance, masks in zip(image.instances, self.masks, strict=True)
            ]
            for k in range(len(camera.matrices))
        ]

    def targets(self) -> list[int]:
        """Instances large enough in each frame, of which enough is left in view."""
        scale = np.abs(np.linalg.det(self.camera.matrices)) * self.image.height * self.image.width
        found = []
        for i, (instance, masks) in enumerate(zip(self.image.instances, self.masks, strict=True)):
            areas = masks.sum((1, 2))
            large = areas.min() >= MIN_TARGET_AREA * masks[0].size
            large = large and instance.category not in NEVER_TARGETS
            if large and (areas >= MIN_VISIBLE * instance.area * scale).all():
                found.append(i)
        return found

    def facts(self, index: int) -> list[tuple[str, ...]]:
        """What singles out an instance in every frame, sorted."""
        found = None
        for view in self.views:
            position = sum(seen is not None for seen in view[:index])
            here = facts([seen for seen in view if seen is not None], position)
            found = here if found is None else found & here
        return sorted(found)

    def written(self, index: int) -> list[str]:
        """Written expressions that still hold after the crop, mirrored where the camera mirrors."""
        instance = self.image.instances[index]
        texts = instance.written
        size = (self.image.height, self.image.width)
        if texts and self.camera.shift(instance.polygons, size) > MAX_SHIFT:
            texts = [text for text in texts if not is_positional(text)]
        return [swap_left_right(text) for text in texts] if self.camera.flip else texts

    def expression(self, index: int, rng: np.random.Generator, written_share: float) -> str | None:
        """One expression of an instance, or None when nothing singles it out."""
        written = self.written(index)
        if written and rng.random() < written_share:
            return str(rng.choice(written))
        found = self.facts(index)
        if not found:
            return str(rng.choice(written)) if written else None
        seen = self.views[len(self.views) // 2][index]
        return phrase(found[rng.integers(len(found))], seen, rng)


class AbsentThings:
    """Expressions of things that a picture does not show, as frequent as such things are elsewhere."""

    def __init__(self, images: list[LabelledImage]):
        counts = Counter(c for image in images for c in {i.category for i in image.instances})
        self.categories = sorted(counts)
        self.weights = np.sqrt([counts[category] for category in self.categories])
        self.written: dict[str, list[str]] = {category: [] for category in self.categories}
        for image in images:
            for instance in image.instances:
                self.written[instance.category] += instance.written

    def expression(self, shown: set[str] | frozenset[str], rng: np.random.Generator) -> str:
        """An expression of a category that is neither in `shown` nor easily taken for one of these."""
        doubtful = set(shown).union(*(group for group in CONFUSABLE if group & set(shown)))
        weights = np.array(
            [0 if c in doubtful else w for c, w in zip(self.categories, self.weights, strict=True)]
        )
        category = self.categories[rng.choice(len(weights), p=weights / weights.sum())]
        if self.written[category] and rng.random() < 0.5:
            return str(rng.choice(self.written[category]))
        sides = (("only",), ("only",), ("side", "left"), ("side", "right"), ("middle",))
        colors = [("color", color) for color in ("black", "white", "red", "blue", "brown")]
        fact = (*sides, colors[rng.integers(len(colors))])[rng.integers(len(sides) + 1)]
        return phrase(fact, Seen(category, (0, 0, 1, 1), (0.5, 0.5), 1.0, {}), rng)


class TrainingClips(Dataset):
    """Deterministic training samples for `num_steps` batches of `batch_size` clips (module docstring)."""

    def __init__(
        self,
        images: list[LabelledImage],
        videos: list[LabelledVideo],
        recipe: ClipRecipe,
        num_steps: int,
        batch_size: int,
        seed: int,
    ):
        self.videos, self.recipe = videos, recipe
        self.num_steps, self.batch_size, self.seed = num_steps, batch_size, seed
        self.absent = AbsentThings(images)
        usable = [i for i in images if any(x.area >= MIN_TARGET_AREA for x in i.instances)]
        portrait = [image for image in usable if image.height > image.width]
        landscape = [image for image in usable if image.height <= image.width]
        self.portrait_share = len(portrait) / max(len(usable), 1)
        self.images = {True: portrait, False: landscape}
        self.weights = {key: self._weights(group) for key, group in self.images.items()}

    @staticmethod
    def _weights(images: list[LabelledImage]) -> np.ndarray:
        """Images with written expressions come three times, with look-alikes twice as often."""
        weights = [
            3.0 if any(x.written for x in image.instances) else 2.0 if image.look_alikes() else 1.0
            for image in images
        ]
        return np.array(weights) / max(sum(weights), 1)

    def __len__(self) -> int:
        return self.num_steps * self.batch_size

    def __getitem__(self, index: int) -> dict[str, Tensor | list[str]]:
        step_rng = np.random.default_rng((self.seed, index // self.batch_size))
        rng = np.random.default_rng((self.seed, index, 1))
        if step_rng.random() < self.recipe.video_share:
            return self._video_sample(rng)
        portrait = bool(step_rng.random() < self.portrait_share)
        while True:
            sample = self._image_sample(portrait, rng)
            if sample is not None:
                return sample

    def _image_sample(self, portrait: bool, rng: np.random.Generator):
        """Instances of one image, look-alikes first; None when none can be described."""
        recipe = self.recipe
        images = self.images[portrait]
        image = images[rng.choice(len(images), p=self.weights[portrait])]
        size = recipe.image_size[::-1] if portrait else recipe.image_size
        still = bool(rng.random() < recipe.still_share)
        source = (image.height, image.width)
        camera = Camera.random(rng, source, tuple(size), recipe.num_frames, still)
        scene = ImageScene(image, camera)
        count = recipe.num_expressions
        if rng.random() < recipe.absent_share:
            count -= 1
        chosen: list[tuple[str, int]] = []
        for target in self._order(scene, rng):
            text = scene.expression(target, rng, recipe.written_share)
            if text is not None:
                chosen.append((text, target))
            if len(chosen) == count:
                break
        if not chosen:
            return None
        empty = np.zeros_like(scene.masks[0])
        shown = {instance.category for instance in image.instances}
        texts, masks = [text for text, _ in chosen], [scene.masks[t] for _, t in chosen]
        while len(texts) < count:  # another wording of the same objects
            text, target = chosen[rng.integers(len(chosen))]
            other = scene.expression(target, rng, recipe.written_share)
            texts.append(other or text)
            masks.append(scene.masks[target])
        while len(texts) < recipe.num_expressions:
            texts.append(self.absent.expression(shown, rng))
            masks.append(empty)
        frames = jitter_colors(camera.frames(image.pixels), rng)
        return {
            "frames": frames,
            "expressions": texts,
            "masks": torch.from_numpy(np.stack(masks).astype(np.uint8)),
        }

    def _order(self, scene: ImageScene, rng: np.random.Generator) -> list[int]:
        """Targets in the order in which to describe them: two look-alikes, then other categories."""
        targets = scene.targets()
        rng.shuffle(targets)
        groups: dict[str, list[int]] = {}
        for target in targets:
            groups.setdefault(scene.image.instances[target].category, []).append(target)
        written = {c: any(scene.written(t) for t in group) for c, group in groups.items()}
        ranked = sorted(groups, key=lambda c: -(len(groups[c]) > 1) - written[c] - rng.random())
        pairs = [target for category in ranked for target in groups[category][:2]]
        rest = [target for category in ranked for target in groups[category][2:]]
        return pairs + rest if rng.random() < 0.5 else pairs[:2] + rest + pairs[2:]

    def _video_sample(self, rng: np.random.Generator):
        """Two wordings of a video's object and one expression of something it does not show."""
        recipe = self.recipe
        video = self.videos[rng.integers(len(self.videos))]
        indices = self._frame_indices(video, rng)
        frames, masks = crop_video(video, indices, tuple(recipe.video_size), rng)
        ids = [2, 3, 4, 4]
        ids += [i for i in (0, 1) if indices[0] < 8 or not is_positional(video.expressions[i])]
        present = [video.expressions[i] for i in rng.permutation(np.array(ids))]
        texts = list(dict.fromkeys(present))[: recipe.num_expressions - 1]
        texts = [vary_article(text, rng) for text in texts]
        texts.append(self._absent_from(video, rng))
        if rng.random() < 0.5:
            frames, masks = frames[:, :, ::-1], masks[:, :, ::-1]
            texts = [swap_left_right(text) for text in texts]
        all_masks = [masks] * (len(texts) - 1) + [np.zeros_like(masks)]
        return {
            "frames": jitter_colors(frames, rng),
            "expressions": texts,
            "masks": torch.from_numpy(np.stack(all_masks).astype(np.uint8)),
        }

    def _frame_indices(self, video: LabelledVideo, rng: np.random.Generator) -> list[int]:
        count = self.recipe.num_frames
        stride = min(int(rng.integers(1, 7)), (len(video) - 1) // max(count - 1, 1))
        start = int(rng.integers(len(video) - stride * (count - 1)))
        return [start + k * stride for k in range(count)]

    def _absent_from(self, video: LabelledVideo, rng: np.random.Generator) -> str:
        """An expression of another video whose object is not shown here, or of an absent category."""
        others = [other for other in self.videos if not other.targets & video.shown]
        if others and rng.random() < 0.5:
            other = others[rng.integers(len(others))]
            return vary_article(other.expressions[int(rng.integers(5))], rng)
        return self.absent.expression(video.shown, rng)


def vary_article(text: str, rng: np.random.Generator) -> str:
    """'a black swan' as 'the black swan' or 'black swan', some of the time."""
    words = text.split(" ", 1)
    if len(words) == 2 and words[0] in ("a", "an", "the") and rng.random() < 0.3:
        return words[1] if rng.random() < 0.4 else f"the {words[1]}"
    return text


def crop_video(
    video: LabelledVideo, indices: list[int], size: tuple[int, int], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Frames uint8 (T, h, w, 3) and masks bool (T, h, w) of one random crop that keeps the object."""
    height, width = size
    read = [video.frame(index) for index in indices]
    source_height, source_width = read[0][1].shape
    zoom = np.exp(rng.uniform(0, np.log(1.6)))
    aspect = width / height * np.exp(rng.uniform(-0.1, 0.1))
    crop_height = min(source_height, source_width / aspect) / zoom
    crop = np.array([crop_height * aspect, crop_height])
    limit = np.array([source_width, source_height]) - crop
    low, high = np.zeros(2), limit
    shown = np.logical_or.reduce([mask for _, mask in read])
    if shown.any():
        xs, ys = np.flatnonzero(shown.any(0)), np.flatnonzero(shown.any(1))
        first, last = np.array([xs[0], ys[0]]), np.array([xs[-1] + 1, ys[-1] + 1])
        # Hold the object's box where it fits, else a crop inside of the box.
        edges = np.sort(np.stack([last - crop, first.astype(float)]), axis=0)
        low, high = np.clip(edges[0], 0, limit), np.clip(edges[1], 0, limit)
    corner = rng.uniform(low, np.maximum(high, low))
    box = (*corner, *(corner + crop))
    frames, masks = [], []
    for pixels, mask in read:
        image = Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR, box)
        soft = Image.fromarray(mask.astype(np.uint8) * 255)
        soft = soft.resize((width, height), Image.Resampling.BILINEAR, box)
        frames.append(np.asarray(image))
        masks.append(np.asarray(soft) > 127)
    return np.stack(frames), np.stack(masks)


def collate(samples: list[dict], processor) -> dict[str, Tensor]:
    """The model's inputs of a batch: B clips of one size, B * E texts and `mask_labels` (B * E, T, H, W)."""
    batch = processor(
        videos=[sample["frames"] for sample in samples],
        text=[sample["expressions"] for sample in samples],
        do_resize=False,
        do_sample_frames=False,
        return_tensors="pt",
    )
    return {
        # No frame_mask and pixel_mask: nothing is padded.
        "pixel_values_videos": batch["pixel_values_videos"],
        "input_ids": batch["input_ids"],
        "attention_mask": batch["attention_mask"],
        "mask_labels": torch.cat([sample["masks"] for sample in samples]),
    }
