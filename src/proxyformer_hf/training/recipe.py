# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""The recipe of a training run: yaml files that hold what differs from the defaults below.

The defaults are ReferFormer's recipe for Ref-YouTube-VOS without pretraining, for one process with
one clip. A file may name others, which it builds on:

    base: [common.yaml]
    model: {vision: swin3d_t}
    run: {epochs: 10, gradient_accumulation_steps: 8}

Mappings are merged, lists and other values replaced; the last of several has the last word.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from huggingface_hub.errors import StrictDataclassError
from pydantic import (
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    TypeAdapter,
    ValidationError,
    with_config,
)
from typing_extensions import TypedDict

from ..configuration_proxyformer import ProxyFormerConfig
from ..data.clips import ClipRecipe

# All of transformers' that need no further settings.
Scheduler = Literal[
    "multistep",
    "linear",
    "cosine",
    "cosine_with_restarts",
    "polynomial",
    "constant",
    "constant_with_warmup",
    "inverse_sqrt",
]

# Rows of the paper's ablation tables, by the fields of ProxyFormerConfig that make them.
_NO_LAYERS = {"text_to_video": False}  # an option of the CMIE layers
_NO_JSC = {"jsc_semantics": "none"}  # VI and VII agree with IV (2) where N is 5 and K is 4
VARIANTS: dict[str, dict[str, Any]] = {
    "baseline": {"interaction": "conditional", "jsc_semantics": "none", **_NO_LAYERS},  # IV (1)
    "cmie": {"interaction": "decoupled", "jsc_semantics": "none"},  # IV (2), V "none"
    "full": {"interaction": "full", "jsc_semantics": "none"},  # IV (3)
    "no-p2v": {"proxy_to_video": False, "jsc_semantics": "none"},  # IV (4)
    "cmie-jsc": {"interaction": "decoupled", "jsc_semantics": "both"},  # IV (5), the paper's model
    "jsc-video": {"jsc_semantics": "video"},  # V
    "jsc-text": {"jsc_semantics": "text"},
    "jsc-both": {"jsc_semantics": "both"},
    **{f"queries-{n}": {"num_queries": n, **_NO_JSC} for n in (1, 3, 5, 8)},  # VI
    **{f"layers-{k}": {"num_hidden_layers": k, **_NO_JSC} for k in (2, 3, 4, 5)},  # VII
    "no-proxies": {"interaction": "direct", **_NO_LAYERS},  # VIII (b)
    "full-jsc": {"interaction": "full", "jsc_semantics": "both"},  # VIII (d)
}


@dataclass
class ModelRecipe:
    """What is trained.

    Attributes:
        vision: for `from_backbones`: a folder, a Hub, torchvision or timm name. Or the fields of a
            backbone's config (`model_type`: "timm_backbone" by default), untrained.
        text: a folder or Hub name. Or the fields of a text encoder's config (`model_type`:
            "roberta" by default), untrained, with a tokenizer trained on the training expressions.
        config: fields of `ProxyFormerConfig`; text and vision come from the above.
        start_from: folder or Hub name of a checkpoint that gives model and processor in place of
            `vision`, `text` and the image statistics; `config` changes fields of its config.
        attention: implementation, of transformers' names; "eager" is faster on CPUs.
        image_mean, image_std: of the pixels in [0, 1], per channel.
        vision_weights: file for `scripts/convert_deeplab_mobilenetv2.py`.
        detector: a folder that `scripts/convert_nanodet.py` wrote, or a Hub name.
        classifier: a folder that `scripts/convert_efficientnet_lite.py` wrote, or a Hub name; it
            joins the model of `start_from`, too.
    """

    vision: str | dict[str, Any] = "resnet50"
    text: str | dict[str, Any] = "FacebookAI/roberta-base"
    config: dict[str, Any] = field(default_factory=dict)
    start_from: str | None = None
    attention: str = "sdpa"
    image_mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    image_std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    vision_weights: str | None = None
    detector: str | None = None
    classifier: str | None = None


@with_config(ConfigDict(extra="forbid"))
class ShortSides(TypedDict):
    """Arguments of `RandomShortSide`, in pixels."""

    short_sides: list[PositiveInt]
    max_size: PositiveInt


@dataclass
class DataRecipe:
    """One source of training clips; all sources together are one data set.

    Attributes:
        name: of `load_rvos_dataset`, or "stills-and-videos" (data/clips.py).
        data_dir: the folder of the official download.
        split: of the source.
        options: more arguments of `load_rvos_dataset`.
        num_frames: frames T of a clip.
        transform: "video" or "image", ReferFormer's augmentation; {short_sides: [..], max_size: N},
            a random mirror and one of these sizes alone; or none (all in data/transforms.py).
        sampling: "random" frames around the sample's own as ReferFormer; or "consecutive" ones.
        expressions: expressions E of a clip.
        clips: what the clips of "stills-and-videos" look like.
    """

    name: str
    data_dir: str | None = None
    split: str = "train"
    options: dict[str, Any] = field(default_factory=dict)
    num_frames: PositiveInt = 5
    transform: Literal["video", "image"] | ShortSides | None = "video"
    sampling: Literal["random", "consecutive"] = "random"
    expressions: PositiveInt = 1
    clips: ClipRecipe = field(default_factory=ClipRecipe)


@dataclass
class OptimizerRecipe:
    """AdamW and its schedule.

    Attributes:
        learning_rate: of everything that is in no backbone.
        vision_learning_rate, text_learning_rate: of the backbones.
        weight_decay: of matrices; norms, biases and other vectors do not decay.
        gradient_clip: largest norm of the gradient of all parameters.
        scheduler: "multistep" or one of transformers'.
        warmup_steps: updates over which the learning rate rises from 0.
        milestones: of "multistep", in epochs: where the learning rate is multiplied by `decay`.
        ema_decay: of the moving average of the weights, which is then what is exported; null: none.
        freeze_text: whether the text encoder stays as it is.
    """

    learning_rate: PositiveFloat = 1e-4
    vision_learning_rate: NonNegativeFloat = 5e-5
    text_learning_rate: NonNegativeFloat = 1e-5
    weight_decay: NonNegativeFloat = 5e-4
    gradient_clip: PositiveFloat = 0.1
    scheduler: Scheduler = "multistep"
    warmup_steps: NonNegativeInt = 0
    milestones: list[PositiveFloat] = field(default_factory=lambda: [6, 8])
    decay: Annotated[float, Field(gt=0, le=1)] = 0.1
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    freeze_text: bool = True


@dataclass
class RunRecipe:
    """How long, how fast and how safe. Steps are updates of the weights.

    Attributes:
        epochs, max_steps: the length of the run; exactly one is given.
        batch_size: clips per process and micro-batch.
        gradient_accumulation_steps: micro-batches per update.
        mixed_precision: "no" or "bf16".
        activation_checkpointing: compute activations again in the backward pass.
        compile: `torch.compile`; shapes should not vary much.
        seed: of weights, data and dropout.
        num_workers: processes per process that make clips.
        checkpoint_every: steps between checkpoints.
        checkpoint_limit: checkpoints that are kept.
        log_every: steps between entries in the trackers.
        trackers: of accelerate.
    """

    epochs: PositiveInt | None = None
    max_steps: PositiveInt | None = None
    batch_size: PositiveInt = 1
    gradient_accumulation_steps: PositiveInt = 1
    mixed_precision: Literal["no", "bf16"] = "no"
    activation_checkpointing: bool = False
    compile: bool = False
    seed: NonNegativeInt = 0
    num_workers: NonNegativeInt = 1
    checkpoint_every: PositiveInt = 1000
    checkpoint_limit: PositiveInt = 2
    log_every: PositiveInt = 10
    trackers: list[str] = field(default_factory=lambda: ["tensorboard"])


@dataclass
class ValidationRecipe:
    """Scores and pictures on the way.

    Attributes:
        benchmark: of evaluation/protocols.py; or "dev", the quick scores of
            `scripts/evaluate_dev.py`.
        protocol: of the benchmark; null: the published one.
        data_dir: the folder of the official download.
        split: the protocol's by default.
        num_videos: the first videos of the split; null: all.
        every: steps between validations.
        num_pictures: clips of the split whose predictions are drawn.
    """

    benchmark: str
    protocol: str | None = None
    data_dir: str | None = None
    split: str | None = None
    num_videos: PositiveInt | None = None
    every: PositiveInt = 1000
    num_pictures: NonNegativeInt = 4


@with_config(ConfigDict(extra="forbid"))
@dataclass
class Recipe:
    """Everything that a run depends on, besides the code and the number of processes."""

    data: Annotated[list[DataRecipe], Field(min_length=1)]
    model: ModelRecipe = field(default_factory=ModelRecipe)
    optimizer: OptimizerRecipe = field(default_factory=OptimizerRecipe)
    run: RunRecipe = field(default_factory=RunRecipe)
    validation: ValidationRecipe | None = None


_ADAPTER = TypeAdapter(Recipe)

# What may differ when a run is resumed: nothing of it reaches the weights.
_FREE = ("num_workers", "checkpoint_every", "checkpoint_limit", "log_every", "trackers")


def load_recipe(
    path: str | Path, variant: str | None = None, overrides: Sequence[str] = ()
) -> Recipe:
    """Reads a recipe with the files that it builds on.

    Args:
        path: the yaml file.
        variant: a name of `VARIANTS`.
        overrides: "field=value" each, the field by its dotted name ("data.0.data_dir"), the value
            in yaml. They have the last word.

    Raises:
        ValueError: a file is missing or not yaml; a field is unknown, missing or of another type;
            settings contradict each other; there is no such variant. Names the file (or variant, or
            override) and the field.
    """
    layers = _read_layers(Path(path))
    if variant is not None:
        if variant not in VARIANTS:
            raise ValueError(f"there is no variant {variant!r}: give one of {', '.join(VARIANTS)}")
        layers.append((f"--variant {variant}", {"model": {"config": VARIANTS[variant]}}))
    layers += [(f"--set {override}", _override(override)) for override in overrides]
    values: Any = {}
    for source, layer in layers:
        try:
            values = _merge(values, layer)
        except LookupError as error:
            raise ValueError(f"{source}: {error.args[0]}") from None
    try:
        recipe = _ADAPTER.validate_python(values)
    except ValidationError as error:
        raise ValueError("\n".join(_describe(error, layers, Path(path)))) from None
    try:
        _check(recipe)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return recipe


def save_recipe(recipe: Recipe, path: Path) -> None:
    """Writes all settings, those left at their defaults too; `load_recipe` reads them."""
    path.write_text(yaml.safe_dump(_ADAPTER.dump_python(recipe, mode="json"), sort_keys=False))


def changed_settings(recipe: Recipe, other: Recipe) -> list[str]:
    """Dotted names of the settings with which a resumed run would not be the same run."""
    one, two = asdict(recipe), asdict(other)
    for values in (one, two):
        del values["validation"]
        for name in _FREE:
            del values["run"][name]
    return list(_differences(one, two))


def _differences(one: Any, two: Any, name: str = "") -> Iterator[str]:
    if isinstance(one, dict) and isinstance(two, dict):
        for key in {**one, **two}:
            yield from _differences(one.get(key), two.get(key), f"{name}.{key}".lstrip("."))
    elif one != two:
        yield name


class _Loader(yaml.SafeLoader):
    """Reads 1e-4 as a number and no as a word, as YAML 1.2 does."""

    yaml_implicit_resolvers = {
        first: [(tag, form) for tag, form in resolvers if tag != "tag:yaml.org,2002:bool"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"(true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def _read_layers(path: Path, readers: tuple[Path, ...] = ()) -> list[tuple[str, dict[str, Any]]]:
    """(file, its values) of all files that a file builds on, and of itself last."""
    if path.resolve() in readers:
        raise ValueError(f"{readers[-1]}: base: leads back to {path}")
    try:
        values = yaml.load(path.read_text(), _Loader) or {}
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}: give a recipe's yaml file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a yaml file: {error}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path}: must be a mapping of settings, got {values!r}")
    bases = values.pop("base", [])
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise ValueError(f"{path}: base: must be a list of files, got {bases!r}")
    layers = []
    for base in bases:
        layers += _read_layers(path.parent / base, (*readers, path.resolve()))
    return [*layers, (str(path), values)]


def _override(text: str) -> dict[str, Any]:
    """ "a.b=1" as {"a": {"b": 1}}."""
    name, equals, value = text.partition("=")
    try:
        layer = yaml.load(value, _Loader)
    except yaml.YAMLError:
        equals = ""
    if not equals or not all(name.split(".")):
        raise ValueError(f"--set {text}: must be FIELD=VALUE, such as run.seed=1")
    for key in reversed(name.split(".")):
        layer = {key: layer}
    return layer


def _merge(values: Any, layer: Any) -> Any:
    """`values` with what `layer` replaces; a mapping of positions replaces within a list."""
    if not isinstance(layer, dict) or not isinstance(values, dict | list):
        return layer
    if isinstance(values, dict):
        return {**values, **{key: _merge(values.get(key), layer[key]) for key in layer}}
    unknown = {*layer} - {str(position) for position in range(len(values))}
    if unknown:
        raise LookupError(f"a list of {len(values)} has no entry {', '.join(sorted(unknown))}")
    return [_merge(entry, layer.get(str(i), entry)) for i, entry in enumerate(values)]


def _describe(
    error: ValidationError, layers: list[tuple[str, dict[str, Any]]], path: Path
) -> Iterator[str]:
    """A line per problem: where the value stands, its dotted name, what is wrong."""
    for problem in error.errors():
        place = problem["loc"]
        depth, source = 0, path
        for candidate, layer in layers:  # the last one that says most about the place
            if (found := _depth(layer, place)) and found >= depth:
                depth, source = found, candidate
        if problem["type"] == "missing":
            yield f"{path}: {'.'.join(map(str, place))}: missing"
            continue
        message = problem["msg"].replace("Unexpected keyword argument", "unknown setting")
        name = ".".join(map(str, place[:depth]))  # pydantic adds the kinds of a union
        yield f"{source}: {name}: {message}, got {problem['input']!r}"


def _depth(values: Any, place: tuple[str | int, ...]) -> int:
    """How many steps of the place lead to something in `values`."""
    for depth, key in enumerate(place):
        if isinstance(values, list):
            values = dict(enumerate(values))
        entries = {str(k): v for k, v in values.items()} if isinstance(values, dict) else {}
        if str(key) not in entries:
            return depth
        values = entries[str(key)]
    return len(place)


def _check(recipe: Recipe) -> None:
    """What the types leave open."""
    run, config = recipe.run, recipe.model.config
    if (run.epochs is None) == (run.max_steps is None):
        raise ValueError(
            "run: give either epochs or max_steps, got "
            f"epochs={run.epochs} and max_steps={run.max_steps}"
        )
    elsewhere = {
        "text_config": "model.text",
        "vision_config": "model.vision",
        "detector_config": "model.detector",
        "classifier_config": "model.classifier",
        "freeze_text": "optimizer.freeze_text",
    }
    for name in config:
        if name in elsewhere:
            raise ValueError(f"model.config.{name}: belongs to {elsewhere[name]}")
        if name not in ProxyFormerConfig.__annotations__:
            raise ValueError(f"model.config.{name}: unknown setting")
    try:
        ProxyFormerConfig(**config)
    except StrictDataclassError as error:
        raise ValueError(f"model.config: {error.__cause__ or error}") from None
