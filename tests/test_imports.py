# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""Imports of the package point one way: a module imports only what stands on a line above it."""

import ast
from pathlib import Path

import pytest

import proxyformer_hf

PACKAGE = Path(proxyformer_hf.__file__).parent

LAYERS = [
    {"configuration_nanodet"},
    {"configuration_video_swin", "configuration_proxyformer", "video_io", "cpu"},
    {"masks", "registration"},
    # Data are made from files, without model or processor.
    {"data.sources", "data.expressions", "data.records", "data.sampling", "data.seeded"},
    {"data.augment", "data.transforms", "data.shape_scenes", "data.shape_wordings"},
    {"data.clips", "data.pseudo_clips", "data.shape_expressions"},
    {"data.ref_youtube_vos", "data.ref_davis17", "data.a2d_sentences", "data.jhmdb_sentences"},
    {"data.mevis", "data.moving_shapes", "data.refcoco", "data.folder"},
    {"data.load", "data.decoding"},
    {"data.check", "data.referring_clips"},
    # Scores are made of stored predictions, without a model too.
    {"metrics.region_boundary", "evaluation.protocols"},
    {"metrics.mask_precision", "evaluation.predictions"},
    {"metrics.mask_map", "metrics.evaluate_modules.mask_precision"},
    {"metrics.evaluate_modules.region_boundary", "metrics.evaluate_modules.mask_map"},
    {"evaluation.scoring"},
    {"evaluation.report"},
    {"modeling_video_swin", "modeling_nanodet", "timm_networks", "loss_proxyformer"},
    {"video_processing_proxyformer", "visualization"},
    {"modeling_proxyformer", "processing_proxyformer"},
    {"pipeline_referring_video_segmentation", "evaluation.inference"},
    {"training.recipe", "training.agreement"},
    {"training.datasets", "training.checkpoints", "training.tracking", "training.optimization"},
    {"training.preflight", "model_card"},
    {"hub", "training.loop"},
    {"cli"},
]
ENTRIES = ("", "data.", "metrics.", "metrics.evaluate_modules.", "evaluation.", "training.")
ENTRY = {f"{package}__init__" for package in ENTRIES}
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


def layer_of(module: str) -> int | None:
    return next((index for index, layer in enumerate(LAYERS) if module in layer), None)


def test_every_module_has_its_place():
    assert {*MODULES} == set().union(*LAYERS, ENTRY)


@pytest.mark.parametrize("module", [name for name in MODULES if name not in ENTRY])
def test_imports_point_one_way(module):
    for name in imported_modules(module):
        layer = layer_of(name)
        assert layer is not None and layer < layer_of(module), f"{module} imports {name}"


@pytest.mark.parametrize("module", [name for name in MODULES if name.startswith("modeling_")])
def test_models_know_no_data_and_no_metrics(module):
    assert not {name for name in imported_modules(module) if "." in name}


def test_imports_are_seen():
    assert imported_modules("data.clips") >= {"data.augment", "data.expressions", "data.sources"}
    assert "loss_proxyformer" in imported_modules("modeling_proxyformer")
    assert imported_modules("modeling_proxyformer") >= {"modeling_video_swin", "modeling_nanodet"}
    assert "video_io" in imported_modules("cli")
