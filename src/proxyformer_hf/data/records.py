# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""The row that all benchmarks share, and the base of their builders.

A row is one expression of one video (A2D-Sentences: of one frame and instance; JHMDB-Sentences: of
one frame). It is light: names and references, no pixels; data/decoding.py turns it into tensors.

    benchmark       "ref-youtube-vos", "ref-davis17", "a2d-sentences", "jhmdb-sentences", "mevis",
                    "moving-shapes", "refcoco", "refcoco+", "refcocog" or "folder"
    video_id        official name of the video; RefCOCO: of the image, a video of one frame
    expression_id   official id, unique within the video: "0", "1", ... Ref-DAVIS17: 4 k + a, where
                    a is the expression set. A2D: "<instance>@<frame>", JHMDB: "<frame>", both
                    counting frames from 1 as their files do. RefCOCO: number in the split, from 1
    expression      the text as in the annotation file, neither stripped nor lower-cased
    object_ids      ids that the expression means; [] where they are not public, and where it means
                    all that a palette mask shows
    categories      of the object ids, in their order; [] where they are not known
    media           folder of frames or video file, relative to data_dir, with forward slashes
    frames          file names within media in temporal order; [] for a video file
    num_frames      of the video (A2D: as videoset.csv tells it)
    annotated       indices, from 0, of the frames with masks; [] where masks are not public
    masks           where the masks are:
        format      "palette": path is a folder of PNG files named as the frames (`frame_stems`);
                    pixel = object id
                    "h5": path is the folder of the video's files, one per frame, counted from 1
                    "mat": path is a puppet_mask.mat
                    "rle": path is a mask_dict.json; keys are its annotation ids and spans the bytes
                    [start, stop) where the codes of each lie, so that a mask is read without the
                    rest of the file
                    "coco": path is the annotation file, and the one key its annotation as json:
                    {"size": [height, width], "segmentation": COCO polygons or run-length code}
                    "moving-shapes": keys hold what the masks are drawn from again
                    "none": masks are not public
        path        relative to data_dir, with forward slashes; "" where there is none
        keys        [] but for "rle", "coco" and "moving-shapes"
        spans       [] but for "rle"
"""

import csv
import hashlib
import io
import json
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, ClassVar

import datasets
from datasets import Features, List, Value

Row = dict[str, Any]

FEATURES = Features(
    {
        "benchmark": Value("string"),
        "video_id": Value("string"),
        "expression_id": Value("string"),
        "expression": Value("string"),
        "object_ids": List(Value("int64")),
        "categories": List(Value("string")),
        "media": Value("string"),
        "frames": List(Value("string")),
        "num_frames": Value("int32"),
        "annotated": List(Value("int32")),
        "masks": {
            "format": Value("string"),
            "path": Value("string"),
            "keys": List(Value("string")),
            "spans": List(List(Value("int64"))),
        },
    }
)
NO_MASKS = {"format": "none", "path": "", "keys": [], "spans": []}

DOWNLOADS = {  # what a complete folder holds is unzipped from these
    "ref-youtube-vos": "train.zip, valid.zip, test.zip and meta_expressions.zip of the referring "
    "track of YouTube-VOS (github.com/skynbe/Refer-Youtube-VOS)",
    "ref-davis17": "DAVIS-2017-Unsupervised-trainval-480p.zip and DAVIS-2017_semantics-480p.zip "
    "(davischallenge.org) and davis_text_annotations.zip (mpi-inf.mpg.de, 'Video Object "
    "Segmentation with Language Referring Expressions')",
    "a2d-sentences": "A2D (Release/) and the text and instance annotations of A2D-Sentences "
    "(kgavrilyuk.github.io/publication/actor_action); the lists in json are MTTR's",
    "jhmdb-sentences": "Rename_Images and puppet_mask of JHMDB (jhmdb.is.tue.mpg.de) and "
    "jhmdb_annotation.txt (kgavrilyuk.github.io/publication/actor_action); the sample list in "
    "json is MTTR's",
    "mevis": "MeViS (github.com/henghuiding/MeViS), one folder a split",
    **{
        name: f"train2014.zip (cocodataset.org) and {name}.zip (github.com/lichengunc/refer)"
        for name in ("refcoco", "refcoco+", "refcocog")
    },
}


class DataError(ValueError):
    """A data set on disk is not as its official download lays it out.

    Attributes:
        finding: the message without the official download that it names.
        path: the path that is wrong, if it is one.
    """

    def __init__(self, finding: str, download: str | None = None, path: Path | None = None):
        super().__init__(f"{finding}. Official download: {download}" if download else finding)
        self.finding, self.path = finding, path


def data_error(benchmark: str, path: Path, problem: str, expected: str) -> DataError:
    """An error that names the path, what is wrong, what was expected and where it is to be had."""
    return DataError(f"{path} {problem}: expected {expected}", DOWNLOADS.get(benchmark), path)


@contextmanager
def reading(benchmark: str, path: Path, expected: str) -> Iterator[None]:
    """Whatever goes wrong with a file becomes a `DataError` that names it."""
    try:
        yield
    except DataError:
        raise
    except FileNotFoundError as error:
        raise data_error(benchmark, path, "is missing", expected) from error
    except Exception as error:  # the readers of json, h5, mat, jpg, png and mp4 raise many kinds
        problem = f"cannot be read ({type(error).__name__}: {error})"
        raise data_error(benchmark, path, problem, expected) from error


@dataclass
class RVOSConfig(datasets.BuilderConfig):
    """The split, and a digest of all that its index is made of: another digest, another cache."""

    split: str = ""
    digest: str = ""


class RVOSBuilder(datasets.GeneratorBasedBuilder):
    """Index of one split of a benchmark.

    The builder of a benchmark tells `benchmark`, `splits`, `form` and `annotations`, and defines
    `videos` and `rows`; `digested_files` and `dated_paths` tell what its index is made of. One that
    generates its videos is not `on_disk`.

    Args:
        data_dir: the folder of the benchmark (moving-shapes has none).
        split: one of `splits`.
        streaming: the rows will be streamed, not cached, so that no digest is needed.
        cache_dir: of the index. Default: that of the `datasets` library.
        options: further fields of the builder's `BUILDER_CONFIG_CLASS`.

    Raises:
        DataError: `data_dir` is missing or no folder.
        ValueError: there is no such split.
    """

    BUILDER_CONFIG_CLASS = RVOSConfig

    benchmark: ClassVar[str]
    splits: ClassVar[tuple[str, ...]]
    on_disk: ClassVar[bool] = True
    form: ClassVar[str]  # what `annotations` is to look like, for messages
    annotations: Path  # the file with the split's expressions

    def __init__(
        self,
        data_dir: str | Path | None,
        split: str,
        *,
        streaming: bool = False,
        cache_dir: str | Path | None = None,
        **options: Any,
    ):
        if split not in self.splits:
            raise ValueError(
                f"{self.benchmark} has no split {split!r}: give one of {', '.join(self.splits)}"
            )
        self.split = split
        if self.on_disk:
            if data_dir is None:
                download = DOWNLOADS.get(self.benchmark)
                raise DataError(f"{self.benchmark} needs data_dir, its folder", download)
            self.root = Path(data_dir).resolve()
            options["data_dir"] = str(self.root)
            if not self.root.is_dir():
                raise self.error(self.root, "is no folder", "the folder of the data set")
        super().__init__(
            cache_dir=str(cache_dir) if cache_dir else None,
            hash=_code_digest(type(self)),
            split=split,
            digest="" if streaming else self._annotation_digest(),
            **options,
        )

    def digested_files(self) -> Iterable[Path]:
        """Files, there or not, whose content decides the index."""
        return ()

    def dated_paths(self) -> Iterable[Path]:
        """Folders that the index lists, and files too many or too large to hash: told by size and
        time of change."""
        return ()

    def videos(self) -> list[tuple[str, Any]]:
        """The ids of the split's videos, each with what `rows` needs of the annotation files."""
        raise NotImplementedError

    def rows(self, video_id: str, entry: Any) -> Iterator[Row]:
        """The rows of a video. Only here may the folders of a video be listed."""
        raise NotImplementedError

    def contradictions(self) -> Iterable[str]:
        """What in the annotation files does not fit together and is left out, for check-data."""
        return ()

    def checked_rows(self, video_id: str, entry: Any) -> Iterator[Row]:
        """`rows`; an entry that is not of the expected form is a `DataError`."""
        try:
            yield from self.rows(video_id, entry)
        except DataError:
            raise
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            problem = f"is malformed at video {video_id} ({type(error).__name__}: {error})"
            raise self.error(self.annotations, problem, self.form) from error

    def row(
        self,
        video_id: str,
        expression_id: str,
        expression: str,
        media: str,
        num_frames: int,
        frames: Sequence[str] = (),
        object_ids: Sequence[int] = (),
        categories: Sequence[str] = (),
        annotated: Sequence[int] = (),
        masks: dict[str, Any] | None = None,
    ) -> Row:
        return {
            "benchmark": self.benchmark,
            "video_id": video_id,
            "expression_id": expression_id,
            "expression": expression,
            "object_ids": object_ids,
            "categories": categories,
            "media": media,
            "frames": frames,
            "num_frames": num_frames,
            "annotated": annotated,
            "masks": NO_MASKS | (masks or {}),
        }

    def error(self, path: Path, problem: str, expected: str) -> DataError:
        return data_error(self.benchmark, path, problem, expected)

    def read_text(self, path: Path, expected: str, encoding: str = "utf-8") -> str:
        with reading(self.benchmark, path, expected):
            return path.read_text(encoding)

    def read_json(self, path: Path, expected: str) -> Any:
        with reading(self.benchmark, path, expected):
            return json.loads(path.read_text("utf-8"))

    def read_csv(
        self, path: Path, expected: str, widths: Collection[int], header: bool = True
    ) -> list[list[str]]:
        """Rows of one of the widths, without blank lines and without a header, which is checked."""
        rows = [row for row in csv.reader(io.StringIO(self.read_text(path, expected))) if row]
        if header:
            if not rows or rows[0][0] != "video_id":
                raise self.error(path, "has no header", expected)
            rows = rows[1:]
        for row in rows:
            if len(row) not in widths:
                raise self.error(path, f"has the row {row}", expected)
        return rows

    def read_videos(self, path: Path, expected: str) -> dict[str, Any]:
        """What the json file `path` tells of each video."""
        content = self.read_json(path, expected)
        videos = content.get("videos") if isinstance(content, dict) else None
        if not isinstance(videos, dict):
            raise self.error(path, 'has no dictionary of "videos"', expected)
        return videos

    def read_categories(self, path: Path) -> dict[str, dict[str, str]]:
        """Video id -> object id -> category, of a meta.json; nothing where there is none."""
        if not path.is_file():
            return {}
        form = '{"videos": {id: {"objects": {id: {"category": name}}}}}'
        with reading(self.benchmark, path, form):
            return {
                video_id: {i: told["category"] for i, told in entry["objects"].items()}
                for video_id, entry in self.read_videos(path, form).items()
            }

    def _annotation_digest(self) -> str:
        digest = hashlib.sha256()
        for path in self.digested_files():
            content = path.read_bytes() if path.is_file() else b""
            digest.update(f"{path} {path.is_file()} {len(content)}\n".encode())
            digest.update(content)
        for path in self.dated_paths():
            found = path.stat() if path.exists() else None
            digest.update(f"{path} {found and (found.st_size, found.st_mtime_ns)}\n".encode())
        return digest.hexdigest()

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo(features=FEATURES)

    def _split_generators(self, dl_manager) -> list[datasets.SplitGenerator]:
        videos = self.videos()
        if not videos:
            raise self.error(self.annotations, f"has nothing of the split {self.split}", self.form)
        # A list, which streaming divides among the workers.
        return [datasets.SplitGenerator(name=self.split, gen_kwargs={"videos": videos})]

    def _generate_examples(self, videos: list[tuple[str, Any]]) -> Iterator[tuple[str, Row]]:
        for video_id, entry in videos:
            for row in self.checked_rows(video_id, entry):
                yield f"{video_id}/{row['expression_id']}", row


def frame_stems(row: Row) -> list[str]:
    """Names, without extension, of the frames of a row's video: those of its files, or for a video
    file 00000, 00001, ..."""
    if row["frames"]:
        return [PurePath(frame).stem for frame in row["frames"]]
    return [f"{index:05d}" for index in range(row["num_frames"])]


def _code_digest(builder: type[RVOSBuilder]) -> str:
    """Of the code that makes the rows: what an older version of it cached is not served either."""
    modules = [cls.__module__ for cls in builder.__mro__ if issubclass(cls, RVOSBuilder)]
    code = b"".join(Path(sys.modules[name].__file__).read_bytes() for name in modules)
    return hashlib.sha256(code).hexdigest()[:16]
