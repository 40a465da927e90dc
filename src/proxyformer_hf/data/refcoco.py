# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""RefCOCO and RefCOCO+ (Yu et al., ECCV 2016) and RefCOCOg (Mao et al., CVPR 2016; the split of
UMD): expressions of objects in images of COCO 2014. An image is a video of one frame."""

import json
import pickle
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath
from typing import Any, ClassVar

from .records import Row, RVOSBuilder, reading

IMAGES = "train2014"


class RefCOCO(RVOSBuilder):
    """Index of a split of RefCOCO, in either of two layouts, which give the same rows. As REFER
    (github.com/lichengunc/refer) gives it out:

        train2014/COCO_train2014_<number>.jpg
        refcoco/instances.json, refcoco/refs(unc).p

    or as ReferFormer's script converts it:

        refcoco/instances_refcoco_<split>.json

    RefCOCO+ and RefCOCOg have folders of their own, refcoco+ and refcocog, beside the same images;
    the latter has refs(umd).p. An image whose name begins with COCO_val2014 is sought in val2014.

    The rows of an image come together. The id of an expression is its number in the split, from 1,
    as the script counts them: by referred objects as refs(unc).p lists them.
    """

    benchmark = "refcoco"
    splits = ("train", "val", "testA", "testB")
    split_by: ClassVar[str] = "unc"

    @property
    def form(self) -> str:
        if self._converted.is_file():
            return (
                '{"images": [{"id", "file_name", "height", "width", "caption"}], "annotations": '
                '[{"image_id", "original_id", "category_id", "segmentation"}], "categories"}'
            )
        return "a pickled list of referred objects, with image_id, ann_id, split and sentences"

    @property
    def annotations(self) -> Path:
        return self._converted if self._converted.is_file() else self._refs

    @property
    def _converted(self) -> Path:
        return self.root / self.benchmark / f"instances_{self.benchmark}_{self.split}.json"

    @property
    def _refs(self) -> Path:
        return self.root / self.benchmark / f"refs({self.split_by}).p"

    @property
    def _instances(self) -> Path:
        return self.root / self.benchmark / "instances.json"

    def digested_files(self) -> Iterable[Path]:
        yield from (self._converted, self._refs, self._instances)

    def videos(self) -> list[tuple[str, Any]]:
        with reading(self.benchmark, self.annotations, self.form):
            told = list(self._read_converted() if self._converted.is_file() else self._read_refs())
        images = defaultdict(list)
        for number, (text, image, annotation, category) in enumerate(told, 1):
            entry = (str(number), text, image, annotation, category)
            images[PurePath(image["file_name"]).stem].append(entry)
        return list(images.items())

    def _read_converted(self) -> Iterator[tuple[str, dict, dict, str]]:
        """Expression, image, annotation and category; each has an image and an annotation of its
        own."""
        content = self.read_json(self._converted, self.form)
        categories = {category["id"]: category["name"] for category in content["categories"]}
        annotations = {told["image_id"]: told for told in content["annotations"]}
        for image in content["images"]:
            annotation = annotations[image["id"]]
            annotation = annotation | {"id": annotation["original_id"]}
            yield image["caption"], image, annotation, categories[annotation["category_id"]]

    def _read_refs(self) -> Iterator[tuple[str, dict, dict, str]]:
        """The same of the files of REFER, where the objects are those of COCO."""
        expected = f"a pickled list (or, as converted, {self._converted})"
        with reading(self.benchmark, self._refs, expected), self._refs.open("rb") as file:
            refs = PlainUnpickler(file, encoding="latin-1").load()
        content = self.read_json(self._instances, "COCO's images, annotations and categories")
        categories = {category["id"]: category["name"] for category in content["categories"]}
        images = {image["id"]: image for image in content["images"]}
        annotations = {annotation["id"]: annotation for annotation in content["annotations"]}
        for ref in refs:
            if ref["split"] == self.split:
                annotation = annotations[ref["ann_id"]]
                for sentence in ref["sentences"]:
                    category = categories[annotation["category_id"]]
                    yield sentence["sent"], images[ref["image_id"]], annotation, category

    def rows(self, video_id: str, entry: list[tuple[str, str, dict, dict, str]]) -> Iterator[Row]:
        for number, text, image, annotation, category in entry:
            file_name = image["file_name"]
            segmentation = {
                "size": [image["height"], image["width"]],
                "segmentation": annotation["segmentation"],
            }
            yield self.row(
                video_id,
                number,
                text,
                object_ids=[annotation["id"]],
                categories=[category],
                media="val2014" if file_name.startswith("COCO_val2014_") else IMAGES,
                frames=[file_name],
                num_frames=1,
                annotated=[0],
                masks={
                    "format": "coco",
                    "path": self._source.relative_to(self.root).as_posix(),
                    "keys": [json.dumps(segmentation)],
                },
            )

    @property
    def _source(self) -> Path:
        """The file with the segmentations."""
        return self._converted if self._converted.is_file() else self._instances


class RefCOCOPlus(RefCOCO):
    """Index of a split of RefCOCO+, see [`RefCOCO`]: no expression tells where the object is."""

    benchmark = "refcoco+"


class RefCOCOg(RefCOCO):
    """Index of a split of RefCOCOg, see [`RefCOCO`]: longer expressions."""

    benchmark = "refcocog"
    splits = ("train", "val", "test")
    split_by = "umd"


class PlainUnpickler(pickle.Unpickler):
    """Reads lists, dictionaries, strings and numbers. A pickle may hold any other thing, and run
    code as it is read: that is refused."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it holds a {module}.{name}, and may hold plain values alone")
