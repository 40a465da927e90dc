# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""Makes transformers' Auto classes and `pipeline` know ProxyFormer.

Each module registers its own classes at its end. Transformers has no plug-in mechanism that would
import them, and importing them all with the package would cost seconds. So they are imported right
after transformers loads the module that they extend: the first moment anyone could miss them.
"""

import importlib.util
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

from transformers import AutoConfig

from .configuration_nanodet import NanoDetConfig
from .configuration_proxyformer import ProxyFormerConfig
from .configuration_video_swin import VideoSwinConfig

EXTENSIONS = {
    "transformers.models.auto.modeling_auto": "proxyformer_hf.modeling_proxyformer",
    "transformers.models.auto.video_processing_auto": "proxyformer_hf.video_processing_proxyformer",
    "transformers.models.auto.processing_auto": "proxyformer_hf.processing_proxyformer",
    "transformers.pipelines": "proxyformer_hf.pipeline_referring_video_segmentation",
}


class ExtensionFinder(MetaPathFinder):
    """Finds a module of `EXTENSIONS` as Python does, and has its extension imported after it."""

    def __init__(self):
        self.pending = {name for name in EXTENSIONS if name not in sys.modules}

    def find_spec(self, fullname: str, path=None, target=None) -> ModuleSpec | None:
        if fullname not in self.pending:
            return None
        self.pending.remove(fullname)
        spec = importlib.util.find_spec(fullname)
        spec.loader = ExtendingLoader(spec.loader)
        return spec


class ExtendingLoader(Loader):
    def __init__(self, loader: Loader):
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType):
        module.__spec__.loader = module.__loader__ = self.loader
        self.loader.exec_module(module)
        importlib.import_module(EXTENSIONS[module.__name__])


def register():
    """Registers the configurations now, and all else when transformers loads its counterpart."""
    AutoConfig.register("nanodet", NanoDetConfig, exist_ok=True)
    AutoConfig.register("video_swin", VideoSwinConfig, exist_ok=True)
    AutoConfig.register("proxyformer", ProxyFormerConfig, exist_ok=True)
    sys.meta_path.insert(0, ExtensionFinder())
    for name, extension in EXTENSIONS.items():
        if name in sys.modules:
            importlib.import_module(extension)
