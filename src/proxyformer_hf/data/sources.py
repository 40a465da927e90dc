# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""The labelled images and videos of a data folder, read lazily, and the fixed development split.

Expected under the data folder:
    coco_small/ images, instances.json (COCO polygons; an image may have `labelled_categories`, ids
        of those that were looked for in it, all by default), expressions.json (a list of {image_id,
        annotation_id, expression})
    davis16_train_240p/ JPEGImages, Annotations, meta_expressions.json (in Ref-YouTube-VOS form;
        expressions 0 and 1 describe the first frame, 2, 3 and from 5 on the whole video, 4 is a
        short noun phrase). Videos besides those of `VIDEO_CONTENT` say what they show there, as
        "content": [what the target consists of, bystanders]
"""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

DEV_VIDEOS = ("bear", "bus", "dance-jump", "flamingo", "motocross-bumps", "soccerball")

# Each has look-alikes of a category that can be told apart in words: 35 by written expressions (93
# images have these), 25 by templates alone. Of two images of one scene, none or both are here.
DEV_IMAGES_WRITTEN = (
    72, 110, 144, 247, 257, 260, 263, 312, 321, 491, 605, 612, 57345, 106499, 114174, 159269,
    161846, 163840, 173350, 188417, 212679, 284218, 344065, 352257, 384553, 425988, 442450,
    466547, 471345, 488571, 499716, 524291, 539216, 565004, 565248,
)  # fmt: skip
DEV_IMAGES_TEMPLATE = (
    308, 315, 564, 584, 1268, 1532, 1584, 2157, 9590, 106235, 114692, 128598, 129648, 223648,
    231125, 237517, 239627, 256353, 262145, 322864, 360449, 373381, 484641, 516168, 544238,
)  # fmt: skip
DEV_IMAGES = frozenset(DEV_IMAGES_WRITTEN + DEV_IMAGES_TEMPLATE)

MIN_TARGET_AREA = 0.008  # of the image: smaller objects are look-alikes, never targets
DUPLICATE_IOU = 0.6
NOUN_PHRASE = 4  # the id of a video's shortest expression, which tells of nothing around the object
WHOLE_VIDEO = 2  # the id from which on expressions tell of more than the first frame

# name -> (what the target consists of, bystanders), in COCO's words where it has one, so that a
# negative expression is certainly false of the video.
VIDEO_CONTENT = {
    "bear": (("bear",), ()),
    "bmx-bumps": (("person", "bicycle"), ()),
    "boat": (("boat",), ()),
    "breakdance-flare": (("person",), ()),
    "bus": (("bus",), ("car", "person", "truck")),
    "car-turn": (("car",), ()),
    "dance-jump": (("person",), ()),
    "dog-agility": (("dog",), ("person",)),
    "drift-turn": (("car",), ("person",)),
    "elephant": (("elephant",), ()),
    "flamingo": (("bird",), ()),
    "hike": (("person", "backpack"), ()),
    "hockey": (("person", "sports ball"), ()),
    "horsejump-low": (("person", "horse"), ()),
    "kite-walk": (("person", "surfboard", "kite"), ()),
    "lucia": (("person", "backpack"), ("bench",)),
    "mallard-fly": (("bird",), ()),
    "mallard-water": (("bird",), ()),
    "motocross-bumps": (("person", "motorcycle"), ()),
    "motorbike": (("person", "motorcycle"), ("car", "potted plant", "bicycle")),
    "paragliding": (("person", "kite"), ()),
    "rhino": (("rhino",), ("elephant",)),
    "rollerblade": (("person",), ()),
    "scooter-gray": (("person", "motorcycle"), ("car", "bicycle")),
    "soccerball": (("sports ball",), ()),
    "stroller": (("person",), ("car", "handbag", "bicycle")),
    "surf": (("person", "surfboard", "boat"), ("kite",)),
    "swing": (("person",), ("bench",)),
    "tennis": (("person", "tennis racket", "sports ball"), ()),
    "train": (("train",), ()),
}


@dataclass
class Instance:
    """One object of an image: polygons are (n, 2) arrays of x, y in pixels of the stored image."""

    annotation_id: int
    category: str
    polygons: list[np.ndarray]
    area: float  # fraction of the image
    written: list[str] = field(default_factory=list)
    colors: dict[str, float] | None = None  # by word; filled in when first needed


def rasterize(polygons: list[np.ndarray], height: int, width: int) -> np.ndarray:
    """Union of polygons, bool (height, width): pixels with their centre inside (even-odd)."""
    mask = np.zeros((height, width), bool)
    for polygon in polygons:
        low = np.clip(np.floor(polygon.min(0)).astype(int), 0, (width, height))
        high = np.clip(np.ceil(polygon.max(0)).astype(int), 0, (width, height))
        columns, rows = high - low
        if columns and rows:
            # An edge that crosses a row of pixel centres toggles all pixels right of there.
            (x1, y1), (x2, y2) = (polygon - low).T, (np.roll(polygon, -1, 0) - low).T
            centers = np.arange(rows)[:, None] + 0.5
            row, edge = np.nonzero((y1 > centers) != (y2 > centers))
            slope = (x2 - x1)[edge] / (y2 - y1)[edge]
            crossing = x1[edge] + (row + 0.5 - y1[edge]) * slope
            column = np.clip(np.ceil(crossing - 0.5).astype(int), 0, columns)
            toggles = np.bincount(row * (columns + 1) + column, minlength=rows * (columns + 1))
            inside = toggles.reshape(rows, columns + 1)[:, :-1].cumsum(1) % 2 == 1
            mask[low[1] : high[1], low[0] : high[0]] |= inside
    return mask


class LabelledImage:
    """An image and its instances; pixels are uint8 (height, width, 3), read once. `unlabelled` are
    the categories of which it may show more."""

    def __init__(
        self,
        path: Path,
        image_id: int,
        height: int,
        width: int,
        instances: list[Instance],
        unlabelled: frozenset[str] = frozenset(),
    ):
        self.path, self.image_id, self.height, self.width = path, image_id, height, width
        self.instances, self.unlabelled = instances, unlabelled

    @cached_property
    def pixels(self) -> np.ndarray:
        with Image.open(self.path) as image:
            return np.asarray(image.convert("RGB"))

    def look_alikes(self) -> dict[str, list[Instance]]:
        """Category -> its instances large enough to be targets, for categories with two or more."""
        groups = defaultdict(list)
        for instance in self.instances:
            if instance.area >= MIN_TARGET_AREA:
                groups[instance.category].append(instance)
        return {category: group for category, group in groups.items() if len(group) > 1}


class LabelledVideo:
    """A video with a mask of one object (or one union) a frame and its expressions by id; `content`
    is as in `VIDEO_CONTENT`."""

    def __init__(
        self,
        root: Path,
        name: str,
        frames: list[str],
        expressions: dict[int, str],
        content: tuple[Sequence[str], Sequence[str]],
    ):
        self.root, self.name, self.frames, self.expressions = root, name, frames, expressions
        targets, bystanders = content
        self.targets, self.bystanders = frozenset(targets), frozenset(bystanders)
        self.shown = self.targets | self.bystanders
        self._cache: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def __len__(self) -> int:
        return len(self.frames)

    def frame(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Pixels uint8 (height, width, 3) and mask bool (height, width) of a frame, read once."""
        if index not in self._cache:
            frame = self.frames[index]
            with Image.open(self.root / "JPEGImages" / self.name / f"{frame}.jpg") as image:
                pixels = np.asarray(image.convert("RGB"))
            with Image.open(self.root / "Annotations" / self.name / f"{frame}.png") as image:
                mask = np.asarray(image) > 0
            self._cache[index] = pixels, mask
        return self._cache[index]


def load_videos(data_dir: str | Path, names: Sequence[str] | None = None) -> list[LabelledVideo]:
    """The videos of a data folder: those named, or all that are not for development.

    Raises:
        ValueError: of a video it is not known what it shows.
    """
    root = Path(data_dir) / "davis16_train_240p"
    videos = json.loads((root / "meta_expressions.json").read_text())["videos"]
    if names is None:
        names = [name for name in videos if name not in DEV_VIDEOS]
    content = {name: videos[name].get("content", VIDEO_CONTENT.get(name)) for name in names}
    if unknown := [name for name in names if content[name] is None]:
        raise ValueError(
            f"what {', '.join(unknown)} shows is not known: give it in meta_expressions.json as "
            '"content": [["dog"], ["person"]], what the target is and what else there is'
        )
    return [
        LabelledVideo(
            root,
            name,
            videos[name]["frames"],
            {int(i): entry["exp"] for i, entry in videos[name]["expressions"].items()},
            content[name],
        )
        for name in names
    ]


def load_images(data_dir: str | Path, dev: bool = False) -> list[LabelledImage]:
    """The images of `data_dir/coco_small` kept for development (`dev`), or all the others."""
    root = Path(data_dir) / "coco_small"
    coco = json.loads((root / "instances.json").read_text())
    written = defaultdict(list)
    for entry in json.loads((root / "expressions.json").read_text()):
        written[entry["annotation_id"]].append(entry["expression"])
    categories = {category["id"]: category["name"] for category in coco["categories"]}
    sizes = {i["id"]: i["width"] * i["height"] for i in coco["images"]}
    instances = defaultdict(list)
    for annotation in coco["annotations"]:
        instances[annotation["image_id"]].append(
            Instance(
                annotation["id"],
                categories[annotation["category_id"]],
                [np.reshape(p, (-1, 2)) for p in annotation["segmentation"]],
                annotation["area"] / sizes[annotation["image_id"]],
                written[annotation["id"]],
            )
        )
    return [
        LabelledImage(
            root / "images" / image["file_name"],
            image["id"],
            image["height"],
            image["width"],
            without_duplicates(instances[image["id"]], image["height"], image["width"]),
            frozenset(
                name
                for i, name in categories.items()
                if i not in image.get("labelled_categories", categories)
            ),
        )
        for image in coco["images"]
        if (image["id"] in DEV_IMAGES) == dev
    ]


def without_duplicates(instances: list[Instance], height: int, width: int) -> list[Instance]:
    """Drop an instance that overlaps one of its category by IoU > 0.6; written ones are kept first.

    COCO's merged annotations outline some objects twice.
    """
    kept: list[tuple[Instance, np.ndarray]] = []
    for instance in sorted(instances, key=lambda i: (not i.written, -i.area)):
        mask = rasterize([p / 4 for p in instance.polygons], height // 4 + 1, width // 4 + 1)
        duplicate = any(
            other.category == instance.category
            and (mask & other_mask).sum() > DUPLICATE_IOU * (mask | other_mask).sum()
            for other, other_mask in kept
        )
        if not duplicate:
            kept.append((instance, mask))
    return [instance for instance, _ in kept]
