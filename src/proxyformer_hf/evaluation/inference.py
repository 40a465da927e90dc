# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""A model's predictions for a benchmark, written as they come: resumable, on one process or many.

The answer to an expression is the model's own, `referred_masks`: of the proxy whose class
probability, averaged over the clip's frames, is the highest, as the published code takes it; or,
with `soft_selection`, the mixture that the model was trained to answer with.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import PartialState
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm
from transformers import BatchFeature

from ..cpu import keep_freed_memory
from ..data.decoding import read_frames
from ..data.records import Row, frame_stems
from ..data.sampling import split_into_windows, window_around
from ..masks import save_mask
from ..modeling_proxyformer import (
    ProxyFormerForReferringSegmentation,
    ProxyFormerReferringSegmentationOutput,
)
from ..processing_proxyformer import ProxyFormerProcessor
from ..video_processing_proxyformer import MASK_STRIDE
from .predictions import (
    ANNOTATIONS,
    IndexPart,
    annotator_folder,
    claim_folder,
    encode_mask,
    expression_folder,
    key_of,
    load_rows,
    merge_index,
    read_index,
    write_submission,
)
from .protocols import ExpressionMasks, FrameDetections, MergedObjects, Protocol

FRAMES_AT_ONCE = 144  # expressions times frames of one pass; bounds the memory
ANSWER = ("referred_masks", "referred_scores")  # fields of the model's output
QUERIES = ("pred_masks", "pred_logits")


def predict(
    model: ProxyFormerForReferringSegmentation,
    processor: ProxyFormerProcessor,
    protocol: Protocol,
    data_dir: str | Path | None,
    output_dir: str | Path,
    split: str | None = None,
    num_workers: int = 0,
) -> Path | None:
    """Write the predictions of a split, and of a whole one the zip for the benchmark's server.

    Videos that an interrupted run has finished are kept; the result is the same as without the
    interruption. It is also the same under `accelerate launch`, where each process takes its share.

    Args:
        model: on its device, in evaluation mode.
        processor: its `size` gives way to the protocol's.
        data_dir: the benchmark's folder (`None` for moving-shapes).
        output_dir: new, empty, or with the predictions of an interrupted run of the same settings.
        split: default: the protocol's.
        num_workers: processes that read and resize frames ahead.

    Returns:
        The path of the zip; `None` if the benchmark has no server or `protocol.num_videos` limits
        the split, and in all processes but the main one.

    Raises:
        ValueError: `output_dir` holds something else; the data are not as their download has them.
    """
    root, split = Path(output_dir), split or protocol.split
    state = join_processes(cpu=model.device.type == "cpu")
    if model.device.type == "cpu":
        keep_freed_memory()
    with state.main_process_first():
        rows = load_rows(protocol, data_dir, split)
        claim_folder(root, run_settings(model, processor, protocol, split, rows))
    groups = group_rows(rows, protocol)[state.process_index :: state.num_processes]
    done = read_index(root)
    groups = [group for group in groups if any(key_of(row) not in done for row in group)]
    clips = Clips(groups, protocol, data_dir, processor)
    loader = DataLoader(clips, batch_size=None, num_workers=num_workers)
    part, entries, lengths = IndexPart(root, state.process_index), [], []
    for clip in tqdm(loader, unit="clip", disable=None if state.is_main_process else True):
        if isinstance(clip, ValueError):
            raise clip
        entries.append(predict_clip(model, clip, protocol, root))
        lengths.append(len(clip.frames))
        if clip.is_last:
            part.append(average_scores(entries, lengths))
            entries, lengths = [], []
    state.wait_for_everyone()
    if not state.is_main_process:
        return None
    merge_index(root, map(key_of, rows))
    has_server = isinstance(protocol, ExpressionMasks) and protocol.submission is not None
    if has_server and protocol.num_videos is None:
        return write_submission(root, rows, protocol.submission)
    return None


def join_processes(cpu: bool) -> PartialState:
    """The place of this process among those of `accelerate launch`.

    Their shares take unlike times: who is done may have to wait for longer than is usual.
    """
    return PartialState(cpu=cpu, timeout=timedelta(days=1))


def run_settings(
    model: ProxyFormerForReferringSegmentation,
    processor: ProxyFormerProcessor,
    protocol: Protocol,
    split: str,
    rows: list[Row],
) -> dict[str, Any]:
    """All that predictions depend on, as JSON can hold it; data and weights as digests."""
    data = hashlib.sha256()
    for row in rows:
        data.update(json.dumps([*key_of(row), row["expression"], frame_stems(row)]).encode())
    return asdict(protocol) | {
        "split": split,
        "data": data.hexdigest(),
        "model": model_digest(model, processor),
        "versions": {name: version(name) for name in ("proxyformer-hf", "torch", "transformers")},
    }


def model_digest(
    model: ProxyFormerForReferringSegmentation, processor: ProxyFormerProcessor
) -> str:
    """Of weights, configuration and what becomes of the frames before the model sees them."""
    weights = hashlib.sha256(f"{model.config}{processor.video_processor}".encode())
    for name, tensor in model.state_dict().items():
        weights.update(name.encode())
        weights.update(tensor.cpu().flatten().view(torch.uint8).numpy())
    return weights.hexdigest()


def group_rows(rows: list[Row], protocol: Protocol) -> list[list[Row]]:
    """Rows that share their clips: those of a video, or of an annotated frame."""
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        frame = row["annotated"][0] if isinstance(protocol, FrameDetections) else None
        groups.setdefault((row["video_id"], frame), []).append(row)
    return list(groups.values())


@dataclass
class Clip:
    """What the model is given at once.

    Attributes:
        rows: the expressions, all of one video.
        frames: indices of the frames in the video.
        is_last: no other clip of these rows follows.
        inputs: the processor's output.
        size: height and width of the video in pixels.
    """

    rows: list[Row]
    frames: list[int]
    is_last: bool
    inputs: BatchFeature
    size: tuple[int, int]


class Clips(Dataset):
    """The clips of groups of rows, in order, as the model takes them.

    In place of one that cannot be read stands the error: raised in a worker, it would reach the
    user wrapped in the worker's traceback.
    """

    def __init__(
        self,
        groups: list[list[Row]],
        protocol: Protocol,
        data_dir: str | Path | None,
        processor: ProxyFormerProcessor,
    ):
        self.data_dir, self.processor = data_dir, processor
        self.size = {"shortest_edge": protocol.shortest_edge}
        if protocol.longest_edge is not None:
            self.size["longest_edge"] = protocol.longest_edge
        self.clips = []
        for rows in groups:
            num_frames = rows[0]["num_frames"]
            if isinstance(protocol, FrameDetections):
                windows = [window_around(rows[0]["annotated"][0], num_frames, protocol.window)]
            else:
                windows = split_into_windows(num_frames, protocol.window)
            self.clips += [(rows, list(frames), frames is windows[-1]) for frames in windows]

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> Clip | ValueError:
        rows, frames, is_last = self.clips[index]
        try:
            pixels = read_frames(self.data_dir, rows[0], frames)
        except ValueError as error:
            return error
        inputs = self.processor(
            videos=pixels,
            text=[row["expression"] for row in rows],
            size=self.size,
            do_sample_frames=False,
            return_tensors="pt",
        )
        return Clip(rows, frames, is_last, inputs, tuple(pixels.shape[-2:]))


@torch.inference_mode()
def predict_clip(
    model: ProxyFormerForReferringSegmentation, clip: Clip, protocol: Protocol, root: Path
) -> list[dict[str, Any]]:
    """Run the model, write the clip's PNG files and return an index entry per row."""
    is_detection = isinstance(protocol, FrameDetections)
    outputs = run_model(model, clip.inputs, ANSWER + QUERIES if is_detection else ANSWER)
    entries = [
        {"video_id": row["video_id"], "expression_id": row["expression_id"], "score": score}
        for row, score in zip(clip.rows, outputs.referred_scores.tolist(), strict=True)
    ]
    if is_detection:
        is_mixture = model.config.soft_selection
        detections = encode_detections(outputs, clip, protocol.threshold, is_mixture)
        entries = [entry | found for entry, found in zip(entries, detections, strict=True)]
    elif isinstance(protocol, MergedObjects):
        write_object_maps(outputs, clip, protocol, root)
    else:
        write_masks(outputs, clip, protocol.threshold, root)
    return entries


def run_model(
    model: ProxyFormerForReferringSegmentation, inputs: BatchFeature, names: Sequence[str]
) -> ProxyFormerReferringSegmentationOutput:
    """The outputs `names` for all expressions of one video, which is encoded once."""
    inputs = inputs.to(model.device)
    words = {name: inputs.pop(name) for name in ("input_ids", "attention_mask")}
    inputs["pixel_values_videos"] = inputs["pixel_values_videos"].to(model.dtype)
    features = model.get_video_features(**inputs)
    rows_at_once = max(1, FRAMES_AT_ONCE // features.encoded_map.shape[1])
    parts = [
        model(
            **{name: ids[start : start + rows_at_once] for name, ids in words.items()},
            video_features=features,
        )
        for start in range(0, len(words["input_ids"]), rows_at_once)
    ]
    return ProxyFormerReferringSegmentationOutput(
        {name: torch.cat([part[name] for part in parts]) for name in names}
    )


def write_masks(
    outputs: ProxyFormerReferringSegmentationOutput, clip: Clip, threshold: float, root: Path
) -> None:
    """A PNG per expression and frame."""
    for row, logits in zip(clip.rows, outputs.referred_masks, strict=True):
        folder, stems = expression_folder(root / ANNOTATIONS, row), frame_stems(row)
        folder.mkdir(parents=True, exist_ok=True)
        for index, frame_logits in zip(clip.frames, logits, strict=True):
            (probability,) = native_probabilities(frame_logits[None], clip.size)
            save_mask(folder / f"{stems[index]}.png", (probability > threshold).cpu().numpy())


def write_object_maps(
    outputs: ProxyFormerReferringSegmentationOutput,
    clip: Clip,
    protocol: MergedObjects,
    root: Path,
) -> None:
    """A PNG per annotator and frame. Expression 4 k + a is annotator a's of the object k + 1."""
    stems = frame_stems(clip.rows[0])
    rows_of: dict[int, dict[int, int]] = {}
    for position, row in enumerate(clip.rows):
        order, annotator = divmod(int(row["expression_id"]), protocol.annotators)
        rows_of.setdefault(annotator, {})[order] = position
    for annotator, positions in rows_of.items():
        folder = annotator_folder(root, annotator, clip.rows[0])
        folder.mkdir(parents=True, exist_ok=True)
        logits = outputs.referred_masks[[positions[order] for order in sorted(positions)]]
        ids = np.array([0, *(order + 1 for order in sorted(positions))], np.uint8)
        for t, index in enumerate(clip.frames):
            probabilities = native_probabilities(logits[:, t], clip.size)
            merged = merge_objects(probabilities, protocol.threshold, protocol.background)
            save_mask(folder / f"{stems[index]}.png", ids[merged.cpu().numpy()])


def encode_detections(
    outputs: ProxyFormerReferringSegmentationOutput, clip: Clip, threshold: float, is_mixture: bool
) -> list[dict[str, Any]]:
    """Per row the queries' scores and masks in the annotated frame and, where it is a mixture
    of theirs, the answer's mask."""
    frame = clip.frames.index(clip.rows[0]["annotated"][0])
    input_size = clip.inputs["pixel_values_videos"].shape[-2:]
    scores = outputs.pred_logits[:, frame].float().sigmoid().tolist()
    logits = torch.cat([outputs.pred_masks[:, frame], outputs.referred_masks[:, frame, None]], 1)
    entries = []
    for row_scores, row_logits in zip(scores, logits, strict=True):
        masks = detected_masks(row_logits, input_size, clip.size, threshold).cpu().numpy()
        *queries, answer = [encode_mask(mask) for mask in masks]
        entries.append({"scores": row_scores, "masks": queries})
        if is_mixture:
            entries[-1]["answer"] = answer
    return entries


def average_scores(entries: list[list[dict[str, Any]]], lengths: list[int]) -> list[dict[str, Any]]:
    """The entries of a video's clips as one per expression, its score the mean over the frames."""
    return [
        parts[0] | {"score": float(np.average([part["score"] for part in parts], weights=lengths))}
        for parts in zip(*entries, strict=True)
    ]


def native_probabilities(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Mask logits `(masks, h, w)` at stride 4 as probabilities `(masks, height, width)`.

    Interpolated as probabilities, as the processor does, where the published code interpolates
    logits; merging and thresholds are the published ones.
    """
    masks = logits[None].float().sigmoid()
    return F.interpolate(masks, size, mode="bilinear", align_corners=False)[0]


def merge_objects(probabilities: Tensor, threshold: float, background: float) -> Tensor:
    """Which object each pixel belongs to: int64 `(height, width)`, 0 where it is the background.

    Args:
        probabilities: `(objects, height, width)`; those below `threshold` count as 0.
        background: probability that an object must exceed.
    """
    objects = probabilities.where(probabilities >= threshold, 0.0)
    return torch.cat([torch.full_like(objects[:1], background), objects]).argmax(0)


def detected_masks(
    logits: Tensor, input_size: tuple[int, int], size: tuple[int, int], threshold: float
) -> Tensor:
    """Mask logits `(masks, h, w)` at stride 4 as bool masks `(masks, height, width)`: enlarged to
    the model's input, thresholded, cropped to it, and brought to `size` by the nearest neighbour.
    """
    logits = F.interpolate(
        logits[None].float(), scale_factor=MASK_STRIDE, mode="bilinear", align_corners=False
    )
    masks = logits.sigmoid()[..., : input_size[0], : input_size[1]] > threshold
    return F.interpolate(masks.float(), size, mode="nearest")[0].bool()
