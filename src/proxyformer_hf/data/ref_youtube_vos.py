# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""Ref-YouTube-VOS (Seo et al., ECCV 2020), as the referring track of YouTube-VOS gives it out."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from .records import Row, RVOSBuilder


class RefYoutubeVOS(RVOSBuilder):
    """Index of Ref-YouTube-VOS.

        meta_expressions/{train,valid,test}/meta_expressions.json
        {train,valid,test}/JPEGImages/<video>/<frame>.jpg
        train/Annotations/<video>/<frame>.png, train/meta.json

    The validation file lists the test videos too: the validation set is what remains without them
    (202 of 507 videos). meta.json, which some downloads lack, tells the categories.

    The masks of the validation set were withheld until its author posted them in 2026; how they
    are laid out is not documented. They are used where they lie as those of the training set do
    (valid/Annotations) and an `obj_id` stands at the expressions of the validation file or of a
    valid/meta_expressions.json beside the masks.
    """

    benchmark = "ref-youtube-vos"
    splits = ("train", "valid", "test")
    form = '{"videos": {id: {"expressions": {id: {"exp": text, "obj_id": id}}, "frames": [names]}}}'

    @property
    def annotations(self) -> Path:
        return self._listing(self.split)

    def _listing(self, split: str) -> Path:
        return self.root / "meta_expressions" / split / "meta_expressions.json"

    @property
    def _objects(self) -> Path:
        return self.root / "valid/meta_expressions.json"

    def digested_files(self) -> Iterable[Path]:
        yield self.annotations
        yield self.root / self.split / "meta.json"
        if self.split == "valid":
            yield self._listing("test")
            yield self._objects

    def dated_paths(self) -> Iterable[Path]:
        if self.split == "valid":
            yield self.root / "valid/Annotations"

    def videos(self) -> list[tuple[str, Any]]:
        videos = self.read_videos(self.annotations, self.form)
        if self.split == "valid":
            test = self.read_videos(
                self._listing("test"), f"{self.form} of the test videos, which are left out"
            )
            told = self.read_videos(self._objects, self.form) if self._objects.is_file() else {}
            videos = {name: told.get(name, videos[name]) for name in videos.keys() - test.keys()}
        categories = self.read_categories(self.root / self.split / "meta.json")
        return [(name, (videos[name], categories.get(name, {}))) for name in sorted(videos)]

    def rows(self, video_id: str, entry: tuple[dict[str, Any], dict[str, str]]) -> Iterator[Row]:
        told, categories = entry
        names = sorted(told["frames"])
        folder = f"{self.split}/Annotations"
        posted = self.split == "valid" and (self.root / folder).is_dir()
        for expression_id, expression in told["expressions"].items():
            with_masks = self.split == "train" or (posted and "obj_id" in expression)
            object_id = expression["obj_id"] if with_masks else None
            yield self.row(
                video_id,
                expression_id,
                expression["exp"],
                object_ids=[int(object_id)] if with_masks else [],
                categories=[categories[object_id]] if object_id in categories else [],
                media=f"{self.split}/JPEGImages/{video_id}",
                frames=[f"{name}.jpg" for name in names],
                num_frames=len(names),
                annotated=range(len(names)) if with_masks else [],
                masks={"format": "palette", "path": f"{folder}/{video_id}"} if with_masks else None,
            )

    def contradictions(self) -> Iterable[str]:
        masks = self.root / "valid/Annotations"
        if self.split == "valid" and masks.is_dir():
            nameless = [
                name
                for name, (told, _) in self.videos()
                if not all("obj_id" in e for e in told["expressions"].values())
            ]
            if nameless:
                yield (
                    f"{masks} is not used for {len(nameless)} videos ({nameless[0]} ...), since "
                    f"neither {self.annotations} nor {self._objects} tells their obj_id"
                )
