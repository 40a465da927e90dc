# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""The Auto classes and `pipeline` know ProxyFormer, in whatever order modules are imported.

Every case needs a fresh interpreter. One subprocess imports what takes long and registers nothing,
then forks for each case.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import proxyformer_hf

CASES_IN_FORKS = """
import json, os, sys, traceback
from importlib import import_module

def check_config():
    from transformers import AutoConfig
    assert type(AutoConfig.for_model("proxyformer")).__name__ == "ProxyFormerConfig"
    assert type(AutoConfig.for_model("video_swin")).__name__ == "VideoSwinConfig"
    assert type(AutoConfig.for_model("nanodet")).__name__ == "NanoDetConfig"

def registered(mapping, model_type):
    from transformers import AutoConfig
    return mapping[type(AutoConfig.for_model(model_type))]

def check_model():
    from transformers import AutoModel
    cls = registered(AutoModel._model_mapping, "proxyformer")
    assert cls.__name__ == "ProxyFormerModel"

def check_mask_generation():
    from transformers import AutoModelForMaskGeneration
    cls = registered(AutoModelForMaskGeneration._model_mapping, "proxyformer")
    assert cls.__name__ == "ProxyFormerForReferringSegmentation"

def check_backbone():
    from transformers import AutoBackbone
    assert registered(AutoBackbone._model_mapping, "video_swin").__name__ == "VideoSwinBackbone"
    assert registered(AutoBackbone._model_mapping, "nanodet").__name__ == "NanoDetBackbone"

def check_processor():
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING
    assert registered(PROCESSOR_MAPPING, "proxyformer").__name__ == "ProxyFormerProcessor"

def check_video_processor():
    from transformers.models.auto.video_processing_auto import VIDEO_PROCESSOR_MAPPING
    classes = registered(VIDEO_PROCESSOR_MAPPING, "proxyformer")
    classes = classes.values() if isinstance(classes, dict) else [classes]
    assert [cls.__name__ for cls in classes] == ["ProxyFormerVideoProcessor"]

def check_pipeline():
    from transformers.pipelines import PIPELINE_REGISTRY
    _, task, _ = PIPELINE_REGISTRY.check_task("referring-video-segmentation")
    assert task["impl"].__name__ == "ReferringVideoSegmentationPipeline"
    assert [cls.__name__ for cls in task["pt"]] == ["ProxyFormerForReferringSegmentation"]

def check_lightness():
    heavy = {"modeling_proxyformer", "processing_proxyformer", "video_io", "masks"}
    assert "transformers.modeling_utils" not in sys.modules
    assert not {"proxyformer_hf." + name for name in heavy} & {*sys.modules}

def run(case):
    imports, _, checks = case.partition(": ")
    for name in imports.split():
        import_module(name)
    for name in checks.split():
        globals()["check_" + name]()

def fork(case):
    reader, writer = os.pipe()
    if not os.fork():
        error = ""
        try:
            run(case)
        except BaseException:
            error = traceback.format_exc()
        os.write(writer, error.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as errors:
        print(json.dumps([case, errors.read()]))
    os.wait()

import torch, transformers
fork(sys.argv[1])  # the rest would hide what the package imports

import av, timm, torchvision
for name in ("backbone", "modeling", "processing", "video_processing"):
    import_module(f"transformers.{name}_utils")
extended = ("modeling_auto", "processing_auto", "video_processing_auto")
extended = {"transformers.pipelines", *(f"transformers.models.auto.{name}" for name in extended)}
assert not extended & {*sys.modules}
for case in sys.argv[2:]:
    fork(case)
"""

CHECKS = [
    "config",
    "model",
    "mask_generation",
    "backbone",
    "processor",
    "video_processor",
    "pipeline",
]
FIRST_IMPORTS = [
    f"proxyformer_hf.{path.stem}"
    for path in sorted(Path(proxyformer_hf.__file__).parent.glob("*.py"))
    if path.stem != "__init__"
]
AUTO = "transformers.models.auto"
EARLIER_IMPORTS = [
    f"{AUTO}.modeling_auto",
    f"{AUTO}.processing_auto",
    f"{AUTO}.video_processing_auto",
    "transformers.pipelines",
]
CASES = [
    "proxyformer_hf: lightness",
    *(f"proxyformer_hf: {check}" for check in CHECKS),
    *(f"{name}: {' '.join(CHECKS)}" for name in FIRST_IMPORTS),
    *(f"{name} proxyformer_hf: {' '.join(CHECKS)}" for name in EARLIER_IMPORTS),
]


@pytest.fixture(scope="module")
def errors() -> dict[str, str]:
    """The traceback of every case, empty if it went well."""
    command = [sys.executable, "-c", CASES_IN_FORKS, *CASES]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return dict(json.loads(line) for line in lines)


@pytest.mark.parametrize("case", CASES)
def test_registered_after(case, errors):
    assert not errors[case], errors[case]
