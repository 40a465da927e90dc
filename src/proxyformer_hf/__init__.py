# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""ProxyFormer for Hugging Face Transformers: name an object, get its mask in every frame.

Importing this package registers its classes with transformers' Auto classes and its pipeline. What
needs torch is imported when it is first used.
"""

import importlib

from . import registration
from .configuration_nanodet import NanoDetConfig
from .configuration_proxyformer import ProxyFormerConfig
from .configuration_video_swin import VideoSwinConfig

__version__ = "0.1.0"

_LAZY = {
    "NanoDetBackbone": "modeling_nanodet",
    "ProxyFormerForReferringSegmentation": "modeling_proxyformer",
    "ProxyFormerModel": "modeling_proxyformer",
    "ProxyFormerPreTrainedModel": "modeling_proxyformer",
    "ProxyFormerProcessor": "processing_proxyformer",
    "ProxyFormerVideoProcessor": "video_processing_proxyformer",
    "ReferringVideoSegmentationPipeline": "pipeline_referring_video_segmentation",
    "VideoSwinBackbone": "modeling_video_swin",
    "load_rvos_dataset": "data.load",
}
__all__ = ["NanoDetConfig", "ProxyFormerConfig", "VideoSwinConfig", *_LAZY]


def __getattr__(name: str):
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_LAZY[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])


registration.register()
