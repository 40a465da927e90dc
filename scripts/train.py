# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""Train a ProxyFormer by a recipe of scripts/recipes/; also with `accelerate launch` or torchrun.

What came out lies in OUTPUT_DIR/model, for `from_pretrained` and `proxyformer evaluate --model`.
"""

from collections.abc import Iterable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from accelerate.utils import set_seed
from convert_deeplab_mobilenetv2 import load_deeplab
from evaluate_dev import quick_scores
from huggingface_hub.errors import StrictDataclassError
from transformers import (
    AutoConfig,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
    RobertaTokenizer,
)
from transformers.utils.logging import disable_progress_bar

from proxyformer_hf.configuration_proxyformer import ProxyFormerConfig
from proxyformer_hf.hub import check_access, push
from proxyformer_hf.modeling_proxyformer import (
    ProxyFormerForReferringSegmentation,
    load_classifier,
)
from proxyformer_hf.processing_proxyformer import ProxyFormerProcessor
from proxyformer_hf.training.datasets import training_dataset, training_expressions
from proxyformer_hf.training.loop import claim_output_dir, create_accelerator, train
from proxyformer_hf.training.recipe import VARIANTS, Recipe, load_recipe
from proxyformer_hf.video_processing_proxyformer import ProxyFormerVideoProcessor

NECK_NAMES = {"aspp": "pixel_conv", "pooling": "image_conv", "projection": "join_conv"}
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")  # in RoBERTa's order
OF_CLASSIFIER = ("model.kinds.", "model.video_encoder.classifier")  # names of its weights
PROXIES = "model.encoder.proxy_queries"
STOPPED = 143  # exit code of a process that SIGTERM ended


def build_model(
    recipe: Recipe, expressions: Iterable[str] = ()
) -> tuple[ProxyFormerForReferringSegmentation, ProxyFormerProcessor]:
    """The model that a recipe describes, with the weights to begin with, and its processor.

    Args:
        recipe: of the run.
        expressions: what the tokenizer of an untrained text encoder is trained on.
    """
    settings, set_by = recipe.model, {"freeze_text": recipe.optimizer.freeze_text}
    if settings.start_from is not None:
        processor = ProxyFormerProcessor.from_pretrained(settings.start_from)
        model = load_start(settings.start_from, settings.classifier, **settings.config, **set_by)
        if settings.classifier is not None:
            model.model.read_class_names(processor.tokenizer)
    else:
        vision, text = settings.vision, settings.text
        if isinstance(vision, dict):
            vision = untrained(vision, "timm_backbone")
        if isinstance(text, dict):
            text, tokenizer = untrained_text(text, expressions)
        else:
            text = text_folder(text)
            tokenizer = AutoTokenizer.from_pretrained(text)
        model = ProxyFormerForReferringSegmentation.from_backbones(
            vision, text, settings.detector, settings.classifier, **settings.config, **set_by
        )
        model.model.read_class_names(tokenizer)
        if settings.vision_weights is not None:
            load_vision_weights(model, settings.vision_weights)
        video_processor = ProxyFormerVideoProcessor(
            image_mean=list(settings.image_mean), image_std=list(settings.image_std)
        )
        processor = ProxyFormerProcessor(video_processor, tokenizer)
    model.set_attn_implementation(settings.attention)
    return model, processor


def load_start(
    name: str, classifier: str | None = None, **config_fields: Any
) -> ProxyFormerForReferringSegmentation:
    """A checkpoint with some fields of its configuration changed, with the first of its proxies
    where fewer are wanted, and with a classifier that it did not have before. No other of its
    weights may lack."""
    joining = None if classifier is None else load_classifier(classifier)
    if joining is not None:
        config_fields["classifier_config"] = joining.config
    config = ProxyFormerConfig.from_pretrained(name, **config_fields)
    try:  # it took the fields as they came
        config.validate()
    except StrictDataclassError as error:
        raise ValueError(f"model.config does not fit {name}: {error.__cause__ or error}") from None
    # stored in float16 at times; training needs float32
    model, report = ProxyFormerForReferringSegmentation.from_pretrained(
        name,
        config=config,
        dtype=torch.float32,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # they are told below
    )
    missing, others = report["missing_keys"], {key for key, *_ in report["mismatched_keys"]}
    fewer = config.num_queries < ProxyFormerConfig.from_pretrained(name).num_queries
    if PROXIES in others and fewer:
        trained = ProxyFormerForReferringSegmentation.from_pretrained(name).get_parameter(PROXIES)
        model.get_parameter(PROXIES).data.copy_(trained[: config.num_queries])
        others.remove(PROXIES)
    if joining is not None:
        model.model.video_encoder.classifier.load(joining)
        missing = [key for key in missing if not key.startswith(OF_CLASSIFIER)]
    lacking = sorted({*missing, *others})
    if lacking:
        raise ValueError(
            f"model.start_from: {name} lacks weights of the model that the recipe describes: "
            f"{', '.join(lacking[:5])}{' ...' if len(lacking) > 5 else ''}; check model.config"
        )
    return model


def untrained(fields: dict[str, Any], model_type: str) -> PreTrainedConfig:
    return AutoConfig.for_model(**{"model_type": model_type, **fields})


def untrained_text(
    fields: dict[str, Any], expressions: Iterable[str]
) -> tuple[PreTrainedConfig, PreTrainedTokenizerBase]:
    """The config of a text encoder, and a tokenizer of RoBERTa's kind trained on the expressions.

    That kind is trained to the same result each time, WordPiece is not: all processes and every
    resumed run need the same one.
    """
    config = untrained(fields, "roberta")
    tokenizer = RobertaTokenizer(vocab={token: i for i, token in enumerate(SPECIAL)}, merges=[])
    cleaned = (" ".join(text.lower().split()) for text in expressions)  # as the processor does
    tokenizer = tokenizer.train_new_from_iterator(cleaned, config.vocab_size)
    config.vocab_size, config.pad_token_id = len(tokenizer), tokenizer.pad_token_id
    # RoBERTa counts positions from behind the padding token's
    tokenizer.model_max_length = config.max_position_embeddings - config.pad_token_id - 1
    return config, tokenizer


def text_folder(name: str) -> str:
    """The `model` folder of an installed package; any other name is transformers' business."""
    is_package = name.isidentifier() and not Path(name).exists() and find_spec(name)
    return str(Path(find_spec(name).origin).parent / "model") if is_package else name


def load_vision_weights(model: ProxyFormerForReferringSegmentation, path: str) -> None:
    """DeepLabV3's backbone, and its head where the model has a neck."""
    backbone, head = load_deeplab(path)
    encoder = model.model.video_encoder
    result = encoder.backbone._backbone.load_state_dict(backbone, strict=False)
    if result.missing_keys:
        raise ValueError(f"model.vision_weights: {path} lacks {result.missing_keys}")
    if encoder.neck is not None:
        neck = {
            f"{NECK_NAMES[name]}.{kind}": tensor
            for (name, kind), tensor in ((k.split("."), t) for k, t in head.items())
            if name in NECK_NAMES
        }
        encoder.neck.load_state_dict(neck)


def main(
    config: Annotated[Path, typer.Option(help="The recipe's yaml file.")],
    output_dir: Annotated[Path, typer.Option(help="Folder of the run.")],
    override: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="A setting, as run.seed=1. Repeatable."),
    ] = None,
    variant: Annotated[
        str | None, typer.Option(help=f"Row of the paper's tables: {', '.join(VARIANTS)}.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the newest checkpoint in OUTPUT_DIR.")
    ] = False,
    push_to_hub: Annotated[
        str | None, typer.Option(metavar="REPO_ID", help="Upload the model when it is trained.")
    ] = None,
    max_steps: Annotated[
        int | None, typer.Option(help="Length of the run in updates, whatever the recipe says.")
    ] = None,
) -> None:
    overrides = list(override or ())
    if max_steps is not None:
        overrides += [f"run.max_steps={max_steps}", "run.epochs=null"]
    try:
        complete = run(load_recipe(config, variant, overrides), output_dir, resume, push_to_hub)
    except (OSError, ValueError, FloatingPointError) as error:
        typer.echo(f"train.py: {error}", err=True)
        raise typer.Exit(2) from error
    if not complete:
        typer.echo(f"stopped by a signal; add --resume to go on with {output_dir}", err=True)
        raise typer.Exit(STOPPED)


def run(recipe: Recipe, output_dir: Path, resume: bool, push_to_hub: str | None) -> bool:
    """Everything from the recipe to the model; whether it was not stopped on the way."""
    if push_to_hub is not None:
        check_access(push_to_hub)
    disable_progress_bar()  # of each file that is loaded or saved; the run has its own
    accelerator = create_accelerator(recipe, output_dir)
    claim_output_dir(accelerator, output_dir, recipe, resume)
    set_seed(recipe.run.seed)
    with accelerator.main_process_first():  # the others find its index and downloads
        dataset = training_dataset(recipe)
        model, processor = build_model(recipe, training_expressions(dataset))
    scores = None
    if recipe.validation is not None and recipe.validation.benchmark == "dev":
        scores = partial(
            quick_scores, processor=processor, data_dir=Path(recipe.validation.data_dir)
        )
    name = push_to_hub or output_dir.resolve().name
    complete = train(
        accelerator, model, processor, recipe, dataset, output_dir, name, resume, scores
    )
    if complete and push_to_hub is not None and accelerator.is_main_process:
        typer.echo(push(output_dir / "model", push_to_hub))
    accelerator.end_training()
    return complete


if __name__ == "__main__":
    typer.run(main)
