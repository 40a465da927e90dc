# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""Imports of the package point one way: a module imports only what stands on a line above it."""

import ast
from pathlib import Path

import pytest

import proxyformer_hf

PACKAGE = Path(proxyformer_hf.__file__).parent

LAYERS = [
    {"configuration_video_swin", "configuration_proxyformer", "video_io"},
    {"masks", "registration"},
    {"modeling_video_swin", "loss_proxyformer", "video_processing_proxyformer", "visualization"},
    {"modeling_proxyformer", "processing_proxyformer"},
    {"pipeline_referring_video_segmentation"},
    {"cli"},
]
# Training stands beside the layers: its data are made from files, without model or processor.
TRAINING = [
    {"data.sources", "data.expressions"},
    {"data.augment"},
    {"data.clips"},
    {"training"},
]
ENTRY = {"__init__", "data.__init__"}
MODULES = sorted(
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts) for path in PACKAGE.rglob("*.py")
)


def imported_modules(module: str) -> set[str]:
    """Modules of the package that a module imports, at its top or anywhere within."""
    path = PACKAGE.joinpath(*module.split(".")).with_suffix(".py")
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = ["proxyformer_hf", *module.split(".")][: -node.level] if node.level else []
            source = ".".join([*parents, *filter(None, [node.module])])
            names.update({source, *(f"{source}.{alias.name}" for alias in node.names)})
    names = {name.removeprefix("proxyformer_hf.") for name in names}
    return names & {*MODULES}


def layer_of(module: str, layers: list[set[str]]) -> int | None:
    return next((index for index, layer in enumerate(layers) if module in layer), None)


def test_every_module_has_its_place():
    assert {*MODULES} == set().union(*LAYERS, *TRAINING, ENTRY)


@pytest.mark.parametrize("module", [name for name in MODULES if name not in ENTRY])
def test_imports_point_one_way(module):
    layers = LAYERS if layer_of(module, LAYERS) is not None else TRAINING
    own_layer = layer_of(module, layers)
    for name in imported_modules(module):
        layer = layer_of(name, layers)
        assert layer is not None and layer < own_layer, f"{module} imports {name}"


def test_imports_are_seen():
    assert imported_modules("data.clips") >= {"data.augment", "data.expressions", "data.sources"}
    assert "loss_proxyformer" in imported_modules("modeling_proxyformer")
    assert "modeling_video_swin" in imported_modules("modeling_proxyformer")
    assert "video_io" in imported_modules("cli")
