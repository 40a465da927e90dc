# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""MeViS (Ding et al., ICCV 2023): motion expressions, each of which may mean several objects."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from .records import Row, RVOSBuilder

# No code holds a quotation mark: a quoted number before a list is an annotation id.
ANNOTATION = re.compile(rb'"(\d+)"\s*:\s*\[')
LONGEST_MATCH = 64  # bytes, and more than any annotation id takes
CHUNK = 1 << 24


class MeViS(RVOSBuilder):
    """Index of MeViS.

        {train,valid_u,valid}/meta_expressions.json
        {train,valid_u,valid}/JPEGImages/<video>/<frame>.jpg
        {train,valid_u}/mask_dict.json

    An expression means the union of its annotations (`anno_id`). Their run-length codes lie in
    mask_dict.json, {annotation id: [code or null for each frame]}, of hundreds of megabytes: the
    file is scanned once, in pieces, and the rows tell where in it the codes of each annotation lie.
    """

    benchmark = "mevis"
    splits = ("train", "valid_u", "valid")
    form = (
        '{"videos": {id: {"expressions": {id: {"exp": text, "obj_id": [ids], "anno_id": [ids]}}, '
        '"frames": [names]}}}, without ids where masks are not public'
    )

    @property
    def annotations(self) -> Path:
        return self.root / self.split / "meta_expressions.json"

    @property
    def _mask_dict(self) -> Path:
        return self.root / self.split / "mask_dict.json"

    def digested_files(self) -> Iterable[Path]:
        yield self.annotations

    def dated_paths(self) -> Iterable[Path]:
        yield self._mask_dict

    def videos(self) -> list[tuple[str, Any]]:
        spans = find_annotations(self._mask_dict) if self._mask_dict.is_file() else {}
        videos = self.read_videos(self.annotations, self.form)
        return [(video_id, (told, spans)) for video_id, told in videos.items()]

    def rows(
        self, video_id: str, entry: tuple[dict[str, Any], dict[str, tuple[int, int]]]
    ) -> Iterator[Row]:
        told, spans = entry
        names = sorted(told["frames"])
        for expression_id, expression in told["expressions"].items():
            keys = [str(i) for i in expression.get("anno_id", [])]
            missing = [key for key in keys if key not in spans]
            if missing:
                raise self.error(
                    self._mask_dict,
                    f"lacks the annotations {', '.join(missing)} of video {video_id}"
                    if self._mask_dict.is_file()
                    else "is missing",
                    "{annotation id: [run-length code or null for each frame]}",
                )
            masks = {"format": "rle", "path": f"{self.split}/mask_dict.json"}
            masks |= {"keys": keys, "spans": [spans[key] for key in keys]}
            yield self.row(
                video_id,
                expression_id,
                expression["exp"],
                object_ids=expression.get("obj_id", []),
                media=f"{self.split}/JPEGImages/{video_id}",
                frames=[f"{name}.jpg" for name in names],
                num_frames=len(names),
                annotated=range(len(names)) if keys else [],
                masks=masks if keys else None,
            )


def find_annotations(path: Path) -> dict[str, tuple[int, int]]:
    """Where the codes of each annotation lie in a mask_dict.json: bytes [start, stop), from the
    opening bracket to the next annotation's name. The file is never held as a whole."""
    found = {}  # annotation id -> where its name starts, where its list starts
    with path.open("rb") as file:
        offset, block = 0, b""
        while chunk := file.read(CHUNK):
            # A name that the end of a chunk cuts in two is whole in that chunk's tail and the next.
            tail = block[-LONGEST_MATCH:]
            offset, block = offset + len(block) - len(tail), tail + chunk
            for match in ANNOTATION.finditer(block):
                found[match[1].decode()] = (offset + match.start(), offset + match.end() - 1)
    stops = [name for name, _ in found.values()][1:] + [offset + len(block)]
    return {
        key: (start, stop) for (key, (_, start)), stop in zip(found.items(), stops, strict=False)
    }
