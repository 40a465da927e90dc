# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""From videos in any form to one padded batch of pixels, and from the model's output to masks of
the source's size."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Unpack

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from transformers import AutoVideoProcessor
from transformers.image_processing_base import BatchFeature
from transformers.image_utils import (
    IMAGENET_DEFAULT_MEAN,
    IMAGENET_DEFAULT_STD,
    ChannelDimension,
    PILImageResampling,
    SizeDict,
)
from transformers.processing_utils import VideosKwargs
from transformers.utils import TensorType
from transformers.utils.type_validators import positive_int
from transformers.video_processing_utils import BaseVideoProcessor
from transformers.video_utils import VideoMetadata, make_batched_metadata

from .configuration_proxyformer import ProxyFormerConfig
from .video_io import VideoInfo, fitted_size, probe_video, read_video, sample_frame_indices

# A path, an array (T, H, W, 3) or (T, 3, H, W), or a list of PIL images or of three-dimensional
# arrays.
Video = str | Path | np.ndarray | torch.Tensor | Sequence[Image.Image | np.ndarray | torch.Tensor]

MASK_STRIDE = 4  # of the model's masks, in pixels


def list_videos(videos: Video | Sequence[Video]) -> list[Video]:
    """One video or a batch of them, however nested, as a flat list of videos. A list of PIL images
    or of three-dimensional arrays is one video; an array of five dimensions is a batch."""
    if isinstance(videos, str | Path):
        return [videos]
    if isinstance(videos, np.ndarray | torch.Tensor):
        if videos.ndim == 5:
            return list(videos)
        if videos.ndim == 4:
            return [videos]
        raise ValueError(
            "a video is (num_frames, height, width, 3) or (num_frames, 3, height, width), "
            f"got an array of shape {tuple(videos.shape)}"
        )
    if not isinstance(videos, list | tuple):
        raise ValueError(
            "a video is a path, a list of PIL images or an array of four dimensions, "
            f"got {type(videos).__name__}"
        )
    if not videos:
        raise ValueError(
            "the video (or the batch of videos) is an empty list: give at least one frame"
        )
    if any(_is_frame(item) for item in videos):
        return [videos]
    return [video for item in videos for video in list_videos(item)]


def _is_frame(item: Any) -> bool:
    return isinstance(item, Image.Image) or (
        isinstance(item, np.ndarray | torch.Tensor) and item.ndim == 3
    )


def _stack_frames(frames: Sequence[Image.Image | np.ndarray | torch.Tensor]) -> torch.Tensor:
    """A list of frames as one tensor; PIL images of any mode become RGB."""
    arrays = []
    for index, frame in enumerate(frames):
        if not _is_frame(frame):
            raise ValueError(
                f"frame {index} is a {type(frame).__name__} but the frames before it are images: "
                "a list holds either the frames of one video or whole videos"
            )
        if isinstance(frame, Image.Image):
            frame = np.array(frame.convert("RGB"))
        arrays.append(torch.as_tensor(frame))
        if arrays[-1].shape != arrays[0].shape:
            raise ValueError(
                f"frame {index} has the shape {tuple(arrays[-1].shape)} but frame 0 has "
                f"{tuple(arrays[0].shape)}: frames of one video need one size"
            )
    return torch.stack(arrays)


def _channels_first(
    video: torch.Tensor, data_format: str | ChannelDimension | None
) -> torch.Tensor:
    """`(T, H, W, 3)` or `(T, 3, H, W)` to the latter. Without `data_format` the axis of length 3
    holds the channels."""
    axes = {ChannelDimension.FIRST: 1, ChannelDimension.LAST: 3}
    if data_format is not None:
        axes = {ChannelDimension(data_format): axes[ChannelDimension(data_format)]}
    axes = [axis for axis in axes.values() if video.shape[axis] == 3]
    if not axes:
        raise ValueError(
            "a video has 3 channels (RGB) and is (num_frames, height, width, 3) or (num_frames, 3, "
            f"height, width), got {tuple(video.shape)}"
            + (f" as {data_format}" if data_format else "")
        )
    if len(axes) > 1:
        raise ValueError(
            f"the shape {tuple(video.shape)} is ambiguous: pass "
            "input_data_format='channels_first' or 'channels_last'"
        )
    return video.movedim(axes[0], 1)


def _checked_pixels(video: torch.Tensor) -> torch.Tensor:
    """A `(T, 3, H, W)` video with pixels that can be used: integers become uint8, floats are
    finite."""
    if 0 in video.shape:
        raise ValueError(f"the video has no frames or no pixels: its shape is {tuple(video.shape)}")
    if video.is_floating_point():
        if not video.isfinite().all():
            raise ValueError("the video has NaN or infinite pixels")
        return video.float()
    if video.min() < 0 or video.max() > 255:
        raise ValueError(f"integer pixels must be in [0, 255], got [{video.min()}, {video.max()}]")
    return video.to(torch.uint8)


class ProxyFormerVideoProcessorKwargs(VideosKwargs, total=False):
    r"""
    stride (`int`, *optional*):
        Keep every `stride`-th frame. At most one of `fps`, `num_frames` and `stride` may be given.
    """

    stride: Annotated[int | None, positive_int()]


class ProxyFormerVideoProcessor(BaseVideoProcessor):
    r"""
    Turns videos into the pixel inputs of ProxyFormer and its outputs into masks.

    A video is a path (str or pathlib.Path) to a video file or to a folder of frames, a list of PIL
    images, or a numpy or torch array `(num_frames, height, width, 3)` or `(num_frames, 3, height,
    width)`, uint8 or float in [0, 1] (which is not rescaled twice) or [0, 255]. A batch is a list
    of them; its members may differ in kind, length and size.

    Frames are sampled (`fps`, `num_frames` or `stride`, when given), resized, rescaled to [0, 1]
    and normalised with `image_mean` and `image_std`. The default size is the field's evaluation
    setting: short side 360, long side at most 640.

    Calling it returns a [`BatchFeature`] with
        `pixel_values_videos`: float32 `(batch, num_frames, 3, height, width)`, padded with zeros at
            the end, right and bottom;
        `frame_mask`: bool `(batch, num_frames)`, True for real frames;
        `pixel_mask`: bool `(batch, height, width)`, True for real pixels;
        `video_metadata` with `return_metadata=True`: a list of
        [`~transformers.video_utils.VideoMetadata`] of the sources.
    """

    resample = PILImageResampling.BILINEAR
    image_mean = IMAGENET_DEFAULT_MEAN
    image_std = IMAGENET_DEFAULT_STD
    size = {"shortest_edge": 360, "longest_edge": 640}
    default_to_square = False
    do_resize = True
    do_rescale = True
    do_normalize = True
    do_sample_frames = True
    stride = None
    valid_kwargs = ProxyFormerVideoProcessorKwargs
    model_input_names = ["pixel_values_videos", "frame_mask", "pixel_mask"]

    def preprocess(
        self, videos: Video | Sequence[Video], **kwargs: Unpack[ProxyFormerVideoProcessorKwargs]
    ) -> BatchFeature:
        data_format = kwargs.pop("input_data_format", None)
        videos = [self._as_tensor(video, data_format) for video in list_videos(videos)]
        sampling = ("fps", "num_frames", "stride")
        if any(kwargs.get(name) is not None for name in sampling):
            # An argument of the call takes the place of whatever way of sampling the processor was
            # saved with.
            kwargs |= {name: kwargs.get(name) for name in sampling}
        return super().preprocess(videos, **kwargs)

    def _as_tensor(self, video: Video, data_format: str | None) -> torch.Tensor | str | Path:
        """`(T, 3, H, W)` pixels; a path stays a path until the frames to decode are known."""
        if isinstance(video, str | Path):
            return video
        if isinstance(video, list | tuple):
            video = _stack_frames(video)
        return _checked_pixels(_channels_first(torch.as_tensor(video), data_format))

    def sample_frames(
        self,
        metadata: VideoMetadata,
        num_frames: int | None = None,
        fps: float | None = None,
        stride: int | None = None,
        **kwargs,
    ) -> list[int]:
        """Indices of the frames to keep, see [`~video_io.sample_frame_indices`]."""
        info = VideoInfo(metadata.height, metadata.width, metadata.total_num_frames, metadata.fps)
        return sample_frame_indices(info, fps, num_frames, stride)

    def fetch_videos(
        self, video_url_or_urls: str | Path | list, sample_indices_fn: Callable | None = None
    ) -> tuple[np.ndarray, VideoMetadata] | list:
        """Decode a video file or a folder of frames with our own reader: frames uint8 `(T, H, W,
        3)` and metadata. For a list of paths, a list with the tuple of all frames and the tuple of
        all metadata."""
        if isinstance(video_url_or_urls, list):
            fetched = [self.fetch_videos(path, sample_indices_fn) for path in video_url_or_urls]
            return list(zip(*fetched, strict=True))
        info = probe_video(video_url_or_urls)
        metadata = VideoMetadata(
            total_num_frames=info.num_frames,
            fps=info.fps,
            width=info.width,
            height=info.height,
            duration=info.duration,
            video_backend="pyav",
        )
        indices = sample_indices_fn(metadata=metadata) if sample_indices_fn else None
        frames, _, metadata.frames_indices = read_video(video_url_or_urls, frame_indices=indices)
        return frames, metadata

    def _decode_and_sample_videos(
        self,
        videos: list[torch.Tensor | str | Path],
        video_metadata: Any,
        do_sample_frames: bool | None = None,
        sample_indices_fn: Callable | None = None,
    ) -> tuple[list[torch.Tensor], list[VideoMetadata]]:
        given_metadata = [None] * len(videos)
        if video_metadata is not None:
            given_metadata = make_batched_metadata(videos, video_metadata)
        sampled = []
        for video, metadata in zip(videos, given_metadata, strict=True):
            if isinstance(video, str | Path):
                frames, metadata = self.fetch_videos(video, sample_indices_fn)
                video = torch.from_numpy(frames).movedim(-1, 1)
            else:
                num_frames, _, height, width = video.shape
                metadata = metadata or VideoMetadata(num_frames, height=height, width=width)
                metadata.frames_indices = list(range(num_frames))
                if sample_indices_fn:
                    metadata.frames_indices = sample_indices_fn(metadata=metadata)
                    video = video[metadata.frames_indices]
            sampled.append((video, metadata))
        videos, metadata = zip(*sampled, strict=True)
        return list(videos), list(metadata)

    def _prepare_input_videos(
        self, videos: list[torch.Tensor], device: str | torch.device | None = None, **kwargs
    ) -> list[torch.Tensor]:
        return [video.to(device) for video in videos]

    def resize(
        self, image: torch.Tensor, size: SizeDict, resample: Any = None, **kwargs
    ) -> torch.Tensor:
        """Resize `(..., height, width)`. With a shortest and a longest edge the size is that of the
        field's code (ReferFormer and before it DETR): the short side is rounded where the longest
        edge binds, the long side truncated."""
        if size.shortest_edge and size.longest_edge:
            height, width = fitted_size(*image.shape[-2:], size.shortest_edge, size.longest_edge)
            size = SizeDict(height=height, width=width)
        return super().resize(image, size, resample, **kwargs)

    def _preprocess(
        self,
        videos: list[torch.Tensor],
        do_rescale: bool,
        rescale_factor: float,
        return_tensors: str | TensorType | None = None,
        **kwargs,
    ) -> BatchFeature:
        if do_rescale:
            videos = [_in_255(video) for video in videos]
        videos = super()._preprocess(
            videos, do_rescale=do_rescale, rescale_factor=rescale_factor, **kwargs
        )["pixel_values_videos"]
        return BatchFeature(_pad_batch(videos), tensor_type=return_tensors)

    def post_process_referring_segmentation(
        self,
        outputs: Any,
        target_sizes: Sequence[tuple[int, int]],
        threshold: float = 0.5,
        min_score: float = 0.0,
    ) -> list[dict[str, Any]]:
        """Masks at the size of the source.

        The mask probabilities of the real pixels are upsampled to the size that the model saw and
        from there to the target size, both bilinearly, frame by frame, so that one frame at full
        size is held at a time. Of logits, the larger would move the outline: a background surer
        than the object eats the object's rim.

        Args:
            outputs: [`ProxyFormerReferringSegmentationOutput`], one row per expression.
            target_sizes: (height, width) in pixels of the source, one per row.
            threshold: a pixel belongs to the object where its probability is above it.
            min_score: masks are empty where the clip shows the object by less than this
                probability.

        Returns:
            Per row a dict of `masks`, bool `(num_frames, height, width)` for the real frames;
            `score`, the probability that the clip shows the object; `boxes`, float
            `(num_frames, 4)`, x1y1x2y2 in pixels of the source.
        """
        rows = len(outputs.referred_masks)
        if len(target_sizes) != rows:
            raise ValueError(
                f"give one target size per row of the output: {len(target_sizes)} for {rows}"
            )
        results = []
        for row, (height, width) in enumerate(target_sizes):
            logits, boxes = outputs.referred_masks[row], outputs.referred_boxes[row]
            input_size = [MASK_STRIDE * side for side in logits.shape[-2:]]
            # The masks of the inputs may have one row per video, each with several expressions.
            if outputs.pixel_mask is not None:
                pixels = outputs.pixel_mask[row * len(outputs.pixel_mask) // rows]
                input_size = [int(pixels.any(1).sum()), int(pixels.any(0).sum())]
            if outputs.frame_mask is not None:
                frames = outputs.frame_mask[row * len(outputs.frame_mask) // rows].bool()
                logits, boxes = logits[frames], boxes[frames]
            size = (int(height), int(width))
            score = outputs.referred_scores[row].item()
            limit = threshold if score >= min_score else 1.0
            masks = [
                resized(frame[None, None].float().sigmoid(), input_size, size)[0, 0] > limit
                for frame in logits
            ]
            results.append(
                {
                    "masks": torch.stack(masks),
                    "score": score,
                    "boxes": _pixel_corners(boxes.float(), *size),
                }
            )
        return results


def _in_255(video: torch.Tensor) -> torch.Tensor:
    """Float pixels in [0, 1] scaled to [0, 255]; others as they are."""
    if not video.is_floating_point():
        return video
    low, high = video.aminmax()
    if low < 0 or high > 255:
        raise ValueError(
            f"float pixels must be in [0, 1] or [0, 255], got [{low:.4g}, {high:.4g}]; "
            "for pixels that are normalised already pass do_rescale=False and do_normalize=False"
        )
    return video * 255 if high <= 1 else video


def _pad_batch(videos: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    num_frames, _, height, width = (
        max(sizes) for sizes in zip(*(v.shape for v in videos), strict=True)
    )
    batch, device = len(videos), videos[0].device
    pixel_values = torch.zeros(batch, num_frames, 3, height, width, device=device)
    frame_mask = torch.zeros(batch, num_frames, dtype=torch.bool, device=device)
    pixel_mask = torch.zeros(batch, height, width, dtype=torch.bool, device=device)
    for row, video in enumerate(videos):
        frames, _, rows, columns = video.shape
        pixel_values[row, :frames, :, :rows, :columns] = video
        frame_mask[row, :frames] = True
        pixel_mask[row, :rows, :columns] = True
    return {"pixel_values_videos": pixel_values, "frame_mask": frame_mask, "pixel_mask": pixel_mask}


def resized(
    masks: torch.Tensor, input_size: Sequence[int], target_size: Sequence[int]
) -> torch.Tensor:
    """Of masks `(n, num_frames, h, w)` of padded frames, probabilities or logits, the part that is
    real, of `input_size`, at `target_size`: `(n, num_frames, height, width)`."""
    rows, columns = (math.ceil(side / MASK_STRIDE) for side in input_size)
    masks = masks[..., :rows, :columns]
    masks = F.interpolate(masks, scale_factor=MASK_STRIDE, mode="bilinear", align_corners=False)
    masks = masks[..., : input_size[0], : input_size[1]]
    return F.interpolate(masks, size=tuple(target_size), mode="bilinear", align_corners=False)


def _pixel_corners(boxes: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """cxcywh in [0, 1] to x1y1x2y2 in pixels, inside the frame."""
    centre, extent = boxes[..., :2], boxes[..., 2:]
    corners = torch.cat([centre - extent / 2, centre + extent / 2], -1).clamp(0, 1)
    return corners * corners.new_tensor([width, height, width, height])


AutoVideoProcessor.register(ProxyFormerConfig, ProxyFormerVideoProcessor, exist_ok=True)
