# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""The protocols behind the numbers that papers report, one frozen record each.

Sizes, windows, merging, thresholds and averages are those of ReferFormer's code, which the field
compares with; what is named otherwise is what other papers do instead.
"""

from dataclasses import dataclass, field
from typing import Any

PUBLISHED = "published"


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """What all protocols fix.

    Attributes:
        benchmark: name of the data set.
        name: of the protocol, unique within the benchmark.
        split: the one that papers report on.
        num_videos: only the first videos of the split, for a quick look at a model in training;
            `None`: all, as papers report.
        shortest_edge: of what the model is given, in pixels.
        longest_edge: its limit in pixels, which lowers the shortest edge; `None`: unlimited.
        window: frames that the model sees at once; `None`: the whole video.
        threshold: a pixel belongs to the object above this probability.
        options: of `load_rvos_dataset`.
    """

    benchmark: str
    name: str = PUBLISHED
    split: str
    num_videos: int | None = None
    options: dict[str, Any] = field(default_factory=dict)
    shortest_edge: int = 360
    longest_edge: int | None = None
    window: int | None = None
    threshold: float = 0.5


@dataclass(frozen=True, kw_only=True)
class ExpressionMasks(Protocol):
    """A mask per expression and frame; J and F are means over frames, then over expressions.

    The answer's logits are resized bilinearly from stride 4 straight to the video's own size, then
    thresholded. Scores compare with the union of the expression's objects; no pixel is void.

    Attributes:
        submission: top folder in the zip that the benchmark's server takes ("": none); `None`: the
            benchmark has no server.
        absent_video_is_zero: a video without a folder scores 0, as MeViS' script has it, instead of
            ending the scoring with an error.
    """

    submission: str | None = None
    absent_video_is_zero: bool = False


@dataclass(frozen=True, kw_only=True)
class MergedObjects(Protocol):
    """Ref-DAVIS17: one map of objects per annotator, scored as DAVIS 2017 unsupervised.

    Each object's probability at the video's own size, 0 below `threshold`, competes with the other
    objects of the same annotator and with a constant background; ties go to the lower id. J and F
    on all frames outside void pixels, predicted ids matched to annotated ones by the Hungarian
    method, means over objects, then over annotators.

    Attributes:
        annotators: sets of expressions; expression 4 k + a is set a's of the k-th object.
        background: probability of the background.
    """

    annotators: int = 4
    background: float = 0.1


@dataclass(frozen=True, kw_only=True)
class FrameDetections(Protocol):
    """A2D- and JHMDB-Sentences: one annotated frame in a window of frames, COCO mAP and IoU.

    The mask logits of the annotated frame are enlarged 4 times bilinearly, thresholded, and brought
    to the frame's own size by the nearest neighbour. A query's score is its class probability in
    that frame.

    Attributes:
        detections: whose masks COCO's mAP counts as detections: of "all" queries, or of the "best"
            one. Precision at K, overall and mean IoU are always the best one's.
    """

    detections: str = "all"
    longest_edge: int | None = 640
    window: int | None = 5


PROTOCOLS: tuple[Protocol, ...] = (
    ExpressionMasks(benchmark="ref-youtube-vos", split="valid", submission="Annotations"),
    MergedObjects(benchmark="ref-davis17", split="valid", window=36),
    # As VISA, Sa2VA and GLUS report it. Not comparable with the published protocol.
    ExpressionMasks(benchmark="ref-davis17", name="per-expression", split="valid", window=36),
    FrameDetections(benchmark="a2d-sentences", split="test"),
    FrameDetections(benchmark="a2d-sentences", name="top-1", split="test", detections="best"),
    FrameDetections(benchmark="jhmdb-sentences", split="test"),
    FrameDetections(benchmark="jhmdb-sentences", name="top-1", split="test", detections="best"),
    ExpressionMasks(benchmark="mevis", split="valid_u", submission="", absent_video_is_zero=True),
    ExpressionMasks(
        benchmark="moving-shapes",
        name="per-expression",
        split="valid",
        options={"num_videos": 500, "num_frames": 5},
        shortest_edge=96,
    ),
    # J is the mean IoU that papers on referring image segmentation report.
    *(
        ExpressionMasks(benchmark=name, name="per-expression", split="val", longest_edge=640)
        for name in ("refcoco", "refcoco+", "refcocog")
    ),
    ExpressionMasks(  # at the size of the packaged checkpoint
        benchmark="folder",
        name="per-expression",
        split="valid",
        shortest_edge=256,
        longest_edge=512,
        window=36,
    ),
)


def find_protocol(benchmark: str, name: str | None = None) -> Protocol:
    """The protocol of that name, or the benchmark's first one.

    Raises:
        ValueError: there is none; the message lists those that there are.
    """
    benchmarks = dict.fromkeys(protocol.benchmark for protocol in PROTOCOLS)
    if benchmark not in benchmarks:
        raise ValueError(f"there is no benchmark {benchmark!r}: choose {', '.join(benchmarks)}")
    found = {protocol.name: protocol for protocol in PROTOCOLS if protocol.benchmark == benchmark}
    if name is not None and name not in found:
        raise ValueError(f"{benchmark} has no protocol {name!r}: choose {', '.join(found)}")
    return next(iter(found.values())) if name is None else found[name]
