# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""Videos and expressions to one batch for ProxyFormer."""

import warnings
from collections.abc import Sequence
from typing import Any, Unpack

from transformers import AutoProcessor
from transformers.image_processing_base import BatchFeature
from transformers.processing_utils import ProcessingKwargs, ProcessorMixin
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from .configuration_proxyformer import ProxyFormerConfig
from .video_processing_proxyformer import (
    ProxyFormerVideoProcessor,
    ProxyFormerVideoProcessorKwargs,
    Video,
    list_videos,
)

# The positions of RoBERTa and BERT. It holds where the tokenizer tells no limit of its own, as one
# built from a vocabulary.
MAX_TOKENS = 512


class ProxyFormerProcessorKwargs(ProcessingKwargs, total=False):
    videos_kwargs: ProxyFormerVideoProcessorKwargs


class ProxyFormerProcessor(ProcessorMixin):
    r"""
    A [`ProxyFormerVideoProcessor`] and the tokenizer of the text encoder (RoBERTa's, or any other)
    in one.

    Args:
        video_processor: samples, resizes, normalises and pads videos.
        tokenizer: its `model_max_length` is lowered to 512 if it is larger; longer expressions are
            truncated with a warning.
    """

    valid_processor_kwargs = ProxyFormerProcessorKwargs
    text_kwargs = {"padding": True, "truncation": True, "return_token_type_ids": False}

    def __init__(
        self,
        video_processor: ProxyFormerVideoProcessor | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        **kwargs,
    ):
        super().__init__(video_processor, tokenizer, **kwargs)
        tokenizer.model_max_length = min(tokenizer.model_max_length, MAX_TOKENS)

    @property
    def unused_input_names(self) -> list[str]:
        return ["token_type_ids"]

    def __call__(
        self,
        videos: Video | Sequence[Video] | None = None,
        text: str | Sequence[str] | Sequence[Sequence[str]] | None = None,
        **kwargs: Unpack[ProxyFormerProcessorKwargs],
    ) -> BatchFeature:
        r"""
        Args:
            videos: one video or a batch, see [`ProxyFormerVideoProcessor`].
            text: the expressions. One string is asked of every video. A list of strings is for one
                video any number of expressions, for several videos one each. A list of lists holds
                the expressions of each video, equally many; they come out one after another, so
                that with E per video rows b * E to (b + 1) * E - 1 belong to video b. Expressions
                are lower-cased and their blanks made single, as the field's training code does
                (RoBERTa itself knows case, the annotations of the data sets use it inconsistently).
            kwargs: of the video processor and the tokenizer. `stride` is the stride between frames.

        Returns:
            What the video processor returns, and `input_ids` and `attention_mask`, int64 `(rows,
            num_words)`; never `token_type_ids`, which RoBERTa does not have and a single sentence
            does not need.

        Raises:
            ValueError: an expression is empty or blank, or the number of expressions does not fit
                that of the videos.
        """
        if videos is None and text is None:
            raise ValueError("give videos, text or both")
        # Some tokenizers are saved with a stride (of overflowing words), which must not become one
        # between frames.
        tokenizer_kwargs = {k: v for k, v in self.tokenizer.init_kwargs.items() if k != "stride"}
        merged = self._merge_kwargs(tokenizer_init_kwargs=tokenizer_kwargs, **kwargs)
        merged["text_kwargs"].pop("stride", None)
        data = {}
        if text is not None:
            num_videos = None if videos is None else len(list_videos(videos))
            data |= self._tokenize(_flat_expressions(text, num_videos), **merged["text_kwargs"])
        if videos is not None:
            data |= self.video_processor(videos, **merged["videos_kwargs"])
        return BatchFeature(
            data,
            tensor_type=merged["text_kwargs"].get("return_tensors"),
            skip_tensor_conversion=self.skip_tensor_conversion,
        )

    def _tokenize(self, expressions: list[str], **kwargs) -> dict[str, Any]:
        limit = kwargs.get("max_length") or self.tokenizer.model_max_length
        lengths = [len(ids) for ids in self.tokenizer(expressions, verbose=False)["input_ids"]]
        if kwargs["truncation"]:
            for expression, length in zip(expressions, lengths, strict=True):
                if length > limit:
                    warnings.warn(
                        f"an expression of {length} tokens is truncated to {limit}: "
                        f"{expression[:60]!r}...",
                        stacklevel=3,
                    )
        return self.tokenizer(expressions, **kwargs)

    def post_process_referring_segmentation(
        self,
        outputs: Any,
        target_sizes: Sequence[tuple[int, int]],
        threshold: float = 0.5,
        min_score: float = 0.0,
    ) -> list[dict[str, Any]]:
        """See [`ProxyFormerVideoProcessor.post_process_referring_segmentation`]."""
        return self.video_processor.post_process_referring_segmentation(
            outputs, target_sizes, threshold, min_score
        )


def _flat_expressions(text: Any, num_videos: int | None) -> list[str]:
    """The expressions row by row, cleaned, after a check that they fit the number of videos
    (`None`: no videos)."""
    if isinstance(text, str):
        text = [text] * (num_videos or 1)
    kinds = {type(item) for item in text} if isinstance(text, list | tuple) else {type(text)}
    if kinds - {str} and kinds - {list, tuple}:
        raise ValueError("text is a string, a list of strings or a list of lists of strings")
    if str in kinds:
        if num_videos not in (None, 1, len(text)):
            raise ValueError(
                f"{len(text)} expressions for {num_videos} videos: give one each, or a list of "
                "expressions per video"
            )
        return [_clean_expression(expression) for expression in text]
    counts = [len(expressions) for expressions in text]
    if sum(counts) == 0:
        raise ValueError("text is an empty list: give at least one expression")
    if num_videos not in (None, len(text)) or len(set(counts)) > 1:
        raise ValueError(
            f"{num_videos} videos with lists of {counts} expressions: give one list per video, "
            "all of one length"
        )
    return [_clean_expression(expression) for expressions in text for expression in expressions]


def _clean_expression(expression: str) -> str:
    if not isinstance(expression, str):
        raise ValueError(f"an expression is a string, got {type(expression).__name__}")
    cleaned = " ".join(expression.lower().split())
    if not cleaned:
        raise ValueError(f"the expression {expression!r} is blank: say which object to segment")
    return cleaned


AutoProcessor.register(ProxyFormerConfig, ProxyFormerProcessor, exist_ok=True)
