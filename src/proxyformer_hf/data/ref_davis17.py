# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""Ref-DAVIS17 (Khoreva et al., ACCV 2018): DAVIS 2017 with four sets of expressions."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from .records import Row, RVOSBuilder

# Expression set a of four: two annotators, who saw the first frame or the whole video. The files
# of the second annotator are in Latin-1.
EXPRESSION_SETS = (
    ("Davis17_annot1.txt", "utf-8"),
    ("Davis17_annot1_full_video.txt", "utf-8"),
    ("Davis17_annot2.txt", "latin-1"),
    ("Davis17_annot2_full_video.txt", "latin-1"),
)
RENAMED = {"clasic-car": "classic-car", "dog-scale": "dogs-scale", "motor-bike": "motorbike"}


class RefDavis17(RVOSBuilder):
    """Index of Ref-DAVIS17, in either of two layouts, which give the same rows. As unzipped:

        DAVIS/JPEGImages/480p/<sequence>/<frame>.jpg
        DAVIS/Annotations_unsupervised/480p/<sequence>/<frame>.png
        DAVIS/ImageSets/2017/{train,val}.txt, DAVIS/davis_semantics.json
        davis_text_annotations/Davis17_annot{1,2}{,_full_video}.txt

    or as ReferFormer's script converts it to the form of Ref-YouTube-VOS, which moves frames and
    masks out of DAVIS/:

        meta_expressions/{train,valid}/meta_expressions.json
        {train,valid}/{JPEGImages,Annotations}/<sequence>/, {train,valid}/meta.json

    Expression 4 k + a of a sequence is the k-th of its expression set a, sorted by object id.
    davis_semantics.json and meta.json tell the categories alone and may be absent.
    """

    benchmark = "ref-davis17"
    splits = ("train", "valid")

    @property
    def form(self) -> str:
        if self._converted.is_file():
            return (
                '{"videos": {id: {"expressions": {id: {"exp": text, "obj_id": id}}, '
                '"frames": [names]}}}'
            )
        return 'lines of: sequence, object id, "expression"'

    @property
    def annotations(self) -> Path:
        return self._converted if self._converted.is_file() else self._texts

    @property
    def _converted(self) -> Path:
        return self.root / "meta_expressions" / self.split / "meta_expressions.json"

    @property
    def _texts(self) -> Path:
        return self.root / "davis_text_annotations"

    @property
    def _sequences(self) -> Path:
        name = {"train": "train.txt", "valid": "val.txt"}[self.split]
        return self.root / "DAVIS/ImageSets/2017" / name

    @property
    def _categories(self) -> Path:
        return self.root / "DAVIS/davis_semantics.json"

    def _folder(self, kind: str) -> str:
        """Where frames or masks are: after the conversion DAVIS/ may be unzipped again, or not."""
        moved = f"{self.split}/{kind}"
        original = {"JPEGImages": "JPEGImages", "Annotations": "Annotations_unsupervised"}[kind]
        return moved if (self.root / moved).is_dir() else f"DAVIS/{original}/480p"

    def digested_files(self) -> Iterable[Path]:
        yield self._converted
        yield self.root / self.split / "meta.json"
        yield self._sequences
        yield self._categories
        yield from (self._texts / name for name, _ in EXPRESSION_SETS)

    def dated_paths(self) -> Iterable[Path]:
        for kind in ("Annotations", "JPEGImages"):
            yield (folder := self.root / self._folder(kind))
            if not self._converted.is_file():
                yield from sorted(folder.glob("*"))

    def videos(self) -> list[tuple[str, Any]]:
        if self._converted.is_file():
            told = self.read_videos(self._converted, self.form)
            categories = self.read_categories(self.root / self.split / "meta.json")
        else:
            told = self._read_expression_sets()
            categories = {}
            if self._categories.is_file():
                categories = self.read_json(self._categories, "{sequence: {object id: category}}")
        return [(name, (told[name], categories.get(name, {}))) for name in told]

    def _read_expression_sets(self) -> dict[str, dict[str, Any]]:
        """The text files, interleaved to what the converted layout holds, without frames."""
        expected = f"a sequence a line (or, in the converted layout, {self._converted})"
        sequences = self.read_text(self._sequences, expected).split()
        sets = [self._read_expressions(name, encoding) for name, encoding in EXPRESSION_SETS]
        told = {}
        for sequence in sequences:
            for (name, _), expressions in zip(EXPRESSION_SETS, sets, strict=True):
                if sequence not in expressions:
                    raise self.error(
                        self._texts / name, f"has no expression of {sequence}", self.form
                    )
            # As the script does: what one set has beyond another is dropped.
            groups = zip(*(expressions[sequence] for expressions in sets), strict=False)
            interleaved = [expression for group in groups for expression in group]
            told[sequence] = {"expressions": {str(i): e for i, e in enumerate(interleaved)}}
        return told

    def _read_expressions(self, name: str, encoding: str) -> dict[str, list[dict[str, str]]]:
        """Sequence -> its expressions in one set, sorted by object id as text ("10" before "2")."""
        path = self._texts / name
        expressions = defaultdict(list)
        # Not splitlines: it would also part lines at Latin-1's control characters.
        for line in self.read_text(path, self.form, encoding).split("\n"):
            if not line.strip():
                continue
            try:
                sequence, object_id, *words = line.split()
            except ValueError as error:
                raise self.error(path, f"has the line {line!r}", self.form) from error
            expression = {"exp": " ".join(words)[1:-1], "obj_id": object_id}
            expressions[RENAMED.get(sequence, sequence)].append(expression)
        return {name: sorted(e, key=lambda e: e["obj_id"]) for name, e in expressions.items()}

    def rows(self, video_id: str, entry: tuple[dict[str, Any], dict[str, str]]) -> Iterator[Row]:
        told, categories = entry
        media = f"{self._folder('JPEGImages')}/{video_id}"
        masks = f"{self._folder('Annotations')}/{video_id}"
        frames = [f"{name}.jpg" for name in told.get("frames") or self._frame_names(media, masks)]
        frames.sort()
        for expression_id, expression in told["expressions"].items():
            object_id = expression["obj_id"]
            yield self.row(
                video_id,
                expression_id,
                expression["exp"],
                object_ids=[int(object_id)],
                categories=[categories[object_id]] if object_id in categories else [],
                media=media,
                frames=frames,
                num_frames=len(frames),
                annotated=range(len(frames)),
                masks={"format": "palette", "path": masks},
            )

    def _frame_names(self, media: str, masks: str) -> set[str]:
        """Of all frames with pixels or masks, so that one which lacks either is not overlooked."""
        names = {path.stem for path in (self.root / media).glob("*.jpg")}
        if not names:
            raise self.error(self.root / media, "holds no frames", "00000.jpg and so on")
        return names | {path.stem for path in (self.root / masks).glob("*.png")}
