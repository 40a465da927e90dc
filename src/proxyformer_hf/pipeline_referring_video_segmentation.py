# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""`pipeline("referring-video-segmentation")`: a video and expressions in, masks at its size out."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import GeneratorType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch.utils.data import Dataset
from transformers.pipelines import PIPELINE_REGISTRY
from transformers.pipelines.base import ChunkPipeline
from transformers.utils import ModelOutput

from .cpu import keep_freed_memory
from .masks import keep_surest_region
from .modeling_proxyformer import (
    ProxyFormerForReferringSegmentation,
    ProxyFormerReferringSegmentationOutput,
    ProxyFormerVideoFeatures,
)
from .video_io import VideoInfo, iter_frames, probe_video, sample_frame_indices
from .video_processing_proxyformer import MASK_STRIDE, Video, resized

TASK = "referring-video-segmentation"
DEFAULT_CHECKPOINT = Path(__file__).parent / "checkpoints" / "proxyformer-lite"
GLANCES = 8  # frames per second that the detector and the classifier see at least
MAX_GLANCE_EVERY = 8  # frames, whatever rate a file claims
SHORT_CLIP = 8  # frames that may be seen at several sizes, and with class contrast

Frame = np.ndarray | torch.Tensor | Image.Image


def _open_video(
    video: Video, fps: float | None, num_frames: int | None, stride: int | None
) -> tuple[float | None, Iterable[tuple[int, Frame]]]:
    """The source's frame rate, and its sampled frames with their indices, decoded one at a time."""
    if isinstance(video, str | Path):
        return probe_video(video).fps, iter_frames(
            video, fps=fps, num_frames=num_frames, stride=stride
        )
    info = VideoInfo(height=0, width=0, num_frames=len(video))  # sampling asks for no size
    indices = sample_frame_indices(info, fps, num_frames, stride)
    return None, ((index, video[index]) for index in indices)


def _windows(
    frames: Iterable[tuple[int, Frame]], length: int
) -> Iterator[tuple[list[tuple[int, Frame]], bool]]:
    """Groups of `length` frames (the last may be shorter), and whether a group is the last one."""
    window: list[tuple[int, Frame]] = []
    for frame in frames:
        if len(window) == length:
            yield window, False
            window = []
        window.append(frame)
    if not window:
        raise ValueError("the video has no frames")
    yield window, True


class PastFrames:
    """Features of at most `count` of the frames that a video's windows have shown so far, spread
    evenly over them: the next window looks back on these, and so on the object chosen there."""

    maps = ("encoded_map", "class_map", "kind_logits")  # no lateral ones: masks are not wanted

    def __init__(self, count: int):
        self.count = count
        self.num_seen = 0
        self.places: list[int] = []  # of the frames that are kept, among those seen
        self.kept: dict[str, torch.Tensor] = {}  # maps (1, T, ...) of these

    def link(self, window: ProxyFormerVideoFeatures) -> ProxyFormerVideoFeatures:
        """The features of the frames kept and then those of the window, whose masks alone will be
        decoded. From then on the window has been seen, too."""
        num_new = window.encoded_map.shape[1]
        maps = {name: getattr(window, name) for name in self.maps}
        linked = {name: each for name, each in maps.items() if each is not None}
        if self.places:
            linked = {name: torch.cat([self.kept[name], new], 1) for name, new in linked.items()}
        places = np.array([*self.places, *range(self.num_seen, self.num_seen + num_new)])
        self.num_seen += num_new
        wanted = np.linspace(0, self.num_seen - 1, self.count)
        chosen = np.unique(np.abs(places - wanted[:, None]).argmin(1))
        self.places = places[chosen].tolist()
        self.kept = {name: each[:, chosen] for name, each in linked.items()}
        return replace(window, **linked)


def _glance_every(fps: float | None, frame_indices: list[int]) -> int:
    """One of how many frames the detector and the classifier need to see. A folder or an array of
    frames has no rate: they see all."""
    if fps is None:
        return 1
    span = max(frame_indices[-1] - frame_indices[0], 1)
    every = int(fps * (len(frame_indices) - 1) / span / GLANCES)
    return min(max(1, every), MAX_GLANCE_EVERY)


class ReferringVideoSegmentationPipeline(ChunkPipeline):
    """Segments the object that an expression refers to, window by window: any length of video fits.
    A window looks back on frames of those before it, spread over them, a quarter of its own number.
    Of a video file the model's detector and classifier see `GLANCES` frames a second or more. A
    clip of `SHORT_CLIP` frames at most, as a picture is, is seen more closely where the checkpoint
    says so (`short_clip_scales`, `class_contrast`).

    ```python
    pipe = pipeline("referring-video-segmentation")
    pipe("swan.mp4", "a black swan")                 # one result
    pipe("swan.mp4", ["a black swan", "the water"])  # one per expression; frames are encoded once
    pipe({"video": v, "text": "a dog"} for v in videos)  # lazily, one by one; a list works too
    ```

    A video is a path (a file or a folder of frames), a list of PIL images, or an array or tensor
    `(T, H, W, 3)` or `(T, 3, H, W)`. A result is a dict:

    - `label`: the expression;
    - `score`: probability in [0, 1] that the video shows the object, averaged over its frames;
    - `masks`: bool numpy array `(T, H, W)` at the source's size;
    - `boxes`: float numpy array `(T, 4)`, `x1y1x2y2` in pixels of the source;
    - `fps`: frames per second of the source, `None` if it has none;
    - `frame_indices`: for each of the T frames its index in the source.

    On a CPU with Linux, making a pipeline has the process keep what memory is freed (see
    [`keep_freed_memory`]).

    Parameters, for the constructor or a call:
        fps, num_frames, stride: which frames to take, see [`sample_frame_indices`]; default all.
        window: frames that the model sees at once; 36 is the Ref-DAVIS17 protocol's clip length.
        size: the video processor's `size`, when it should differ from the checkpoint's; then short
            clips are seen as others are.
        threshold: a pixel belongs to the object above this probability.
        min_score: a window that shows the object by less than this probability has empty masks.
    """

    _load_processor = True
    _load_tokenizer = False
    _load_image_processor = False
    _load_video_processor = False
    _load_feature_extractor = False

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if self.device.type == "cpu":
            keep_freed_memory()

    def __call__(
        self,
        video: Video | dict[str, Any] | list[dict[str, Any]] | GeneratorType | Dataset,
        text: str | Sequence[str] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Returns a dict for one expression and a list of dicts for several; for a list of
        {"video", "text"} a list of those, for a generator or a Dataset an iterator over them.
        """
        if kwargs.get("batch_size", self._batch_size) not in (None, 1):
            raise ValueError(
                "batch_size must be 1: a window of frames with all its expressions already is a "
                "batch; set its length with window="
            )
        if kwargs.get("num_workers", self._num_workers):
            raise ValueError("num_workers must be 0: a window looks back on those before it")
        if text is not None:
            return super().__call__({"video": video, "text": text}, **kwargs)
        if isinstance(video, list) and not video:
            return []
        is_request = isinstance(video, dict | GeneratorType | Dataset)
        if not is_request and not (isinstance(video, list) and isinstance(video[0], dict)):
            raise ValueError("an expression is missing: call pipe(video, 'the black swan')")
        return super().__call__(video, **kwargs)

    def stream(
        self, video: Video, text: str | Sequence[str], **kwargs: Any
    ) -> Iterator[dict[str, Any] | list[dict[str, Any]]]:
        """Yields the result of each window once it is there; joined they are what a call returns.

        Memory does not grow with the video's length.
        """
        preprocess, forward, postprocess = self._sanitize_parameters(**kwargs)
        windows = self.preprocess(
            {"video": video, "text": text}, **{**self._preprocess_params, **preprocess}
        )
        for window in windows:
            outputs = self.forward(window, **{**self._forward_params, **forward})
            yield self.postprocess([outputs], **{**self._postprocess_params, **postprocess})

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:
        """Writes the model and its processor, for `pipeline(task, model=save_directory)`.

        `Pipeline.save_pretrained` leaves the processor out and writes a `custom_pipelines` entry
        that transformers can resolve only for its own model classes.
        """
        self.model.save_pretrained(save_directory, **kwargs)
        # `pipeline(dtype=...)` hands it on to the tokenizer, which cannot write it
        self.processor.tokenizer.init_kwargs.pop("dtype", None)
        self.processor.save_pretrained(save_directory, **kwargs)

    def _sanitize_parameters(self, **kwargs: Any) -> tuple[dict, dict, dict]:
        before, after = (
            {"fps", "num_frames", "stride", "window", "size"},
            {"threshold", "min_score"},
        )
        unknown = kwargs.keys() - before - after
        if unknown:
            raise TypeError(f"unknown pipeline parameter: {', '.join(sorted(unknown))}")
        limits = {key: kwargs.pop(key) for key in after if key in kwargs}
        return kwargs, {}, limits

    def preprocess(
        self,
        inputs: dict[str, Any],
        fps: float | None = None,
        num_frames: int | None = None,
        stride: int | None = None,
        window: int = 36,
        size: dict[str, int] | None = None,
    ) -> Iterator[dict[str, Any]]:
        if window < 1:
            raise ValueError(f"window must be at least 1 frame, got {window}")
        text = inputs["text"]
        expressions = [text] if isinstance(text, str) else list(text)
        if not expressions:
            raise ValueError("got no expression: text is an empty list")
        source_fps, frames = _open_video(inputs["video"], fps, num_frames, stride)
        past = PastFrames(window // 4)
        for number, (indexed_frames, is_last) in enumerate(_windows(frames, window)):
            frame_indices, window_frames = map(list, zip(*indexed_frames, strict=True))
            is_short = number == 0 and is_last and len(window_frames) <= SHORT_CLIP
            texts, sizes = expressions, [size]
            if size is None:
                sizes = self._sizes(is_short)
                texts = expressions + self._classes(expressions) if is_short else expressions
            views = [
                self.processor(
                    videos=window_frames,
                    text=texts,
                    do_sample_frames=False,
                    return_metadata=True,
                    return_tensors="pt",
                    size=each,
                )
                for each in sizes
            ]
            for view in views:
                (metadata,) = view.pop("video_metadata")
                view.pop("frame_mask")  # of a single video: all frames are real
            yield {
                "is_last": is_last,
                "views": views,
                "past": past,
                "text": text,
                "size": (metadata.height, metadata.width),
                "fps": source_fps,
                "frame_indices": frame_indices,
            }

    def _sizes(self, is_short: bool) -> list[dict[str, int]]:
        """Sizes at which the model sees a window, by the video processor and, of a clip of a few
        frames, the configuration's `short_clip_scales`."""
        size = dict(self.processor.video_processor.size)
        scales = self.model.config.short_clip_scales if is_short else None
        return [
            {edge: round(scale * length) for edge, length in size.items()}
            for scale in scales or [1]
        ]

    def _classes(self, expressions: list[str]) -> list[str]:
        """With `class_contrast`, the name of the detector's class nearest to each expression."""
        config = self.model.config
        if not config.class_contrast:
            return []
        words = self.processor(text=expressions, return_tensors="pt").to(self.device)
        nearest = self.model.model.nearest_classes(**words).tolist()
        return [config.detector_config.id2label[k] for k in nearest]

    def _forward(self, window: dict[str, Any]) -> dict[str, Any]:
        views, past = window.pop("views"), window.pop("past")
        answers = []
        for view in views:
            features = self.model.get_video_features(
                view.pop("pixel_values_videos").to(self.dtype),
                pixel_mask=view.pop("pixel_mask"),
                glance_every=_glance_every(window["fps"], window["frame_indices"]),
            )
            # the sizes of a short clip, its only window, have nothing to do with one another
            linked = past.link(features) if len(views) == 1 else features
            answers.append(self.model(video_features=linked, **view))
        outputs = answers[0]
        num_expressions = 1 if isinstance(window["text"], str) else len(window["text"])
        if len(answers) > 1 or len(outputs.referred_scores) > num_expressions:
            outputs = self._mean(answers, num_expressions)
        # What the masks need and no more: it is kept until the video's last window is through.
        kept = {
            "referred_masks": outputs.referred_masks,
            "referred_boxes": outputs.referred_boxes[:, -len(window["frame_indices"]) :],
            "referred_scores": outputs.referred_scores,
            "frame_mask": None,
            "pixel_mask": outputs.pixel_mask,
        }
        return {**window, "outputs": ModelOutput(kept)}

    def _mean(
        self, answers: list[ProxyFormerReferringSegmentationOutput], num_expressions: int
    ) -> ProxyFormerReferringSegmentationOutput:
        """The mean of what the model says of a clip at each size: of its masks' logits, on the
        largest one's grid, of boxes and of scores. Rows beyond the expressions' are of their
        classes, which the masks are told from (`class_contrast`)."""
        largest = max(answers, key=lambda answer: answer.pixel_mask.shape[-2:])
        size = largest.pixel_mask.shape[-2:]
        seen = []
        for answer in answers:
            chosen = self.model.select(answer.pred_logits, answer.frame_mask)
            masks = torch.einsum("rn,rtnhw->rthw", chosen, answer.pred_masks)
            masks, of_classes = masks[:num_expressions], masks[num_expressions:]
            if len(of_classes):
                masks = masks + self.model.config.class_contrast * (masks - of_classes)
            pixels = resized(masks.float(), answer.pixel_mask.shape[-2:], size)
            rim = [side for length in reversed(size) for side in (0, -length % MASK_STRIDE)]
            seen.append(F.avg_pool2d(F.pad(pixels, rim, mode="replicate"), MASK_STRIDE))
        logits = torch.stack(seen).mean(0)
        if self.model.config.single_region:
            logits = keep_surest_region(logits)
        boxes, scores = (
            torch.stack([answer[name][:num_expressions] for answer in answers]).mean(0)
            for name in ("referred_boxes", "referred_scores")
        )
        return ProxyFormerReferringSegmentationOutput(
            referred_masks=logits,
            referred_boxes=boxes,
            referred_scores=scores,
            pixel_mask=largest.pixel_mask[:num_expressions],
        )

    def postprocess(
        self, windows: list[dict[str, Any]], threshold: float = 0.5, min_score: float = 0.0
    ) -> dict[str, Any] | list[dict[str, Any]]:
        text, size, fps = (windows[0][key] for key in ("text", "size", "fps"))
        expressions = [text] if isinstance(text, str) else list(text)
        parts = [
            self.processor.post_process_referring_segmentation(
                window["outputs"], [size] * len(expressions), threshold, min_score
            )
            for window in windows
        ]
        frame_indices = [index for window in windows for index in window["frame_indices"]]
        lengths = [len(window["frame_indices"]) for window in windows]
        results = [
            {
                "label": expression,
                "score": float(np.average([part["score"] for part in tube], weights=lengths)),
                "masks": torch.cat([part["masks"] for part in tube]).numpy(),
                "boxes": torch.cat([part["boxes"] for part in tube]).numpy(),
                "fps": fps,
                "frame_indices": frame_indices,
            }
            for expression, tube in zip(expressions, zip(*parts, strict=True), strict=True)
        ]
        return results[0] if isinstance(text, str) else results


PIPELINE_REGISTRY.register_pipeline(
    TASK,
    pipeline_class=ReferringVideoSegmentationPipeline,
    pt_model=ProxyFormerForReferringSegmentation,
    default={"model": (str(DEFAULT_CHECKPOINT), None)},
    type="multimodal",
)
