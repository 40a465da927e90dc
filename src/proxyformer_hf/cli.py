# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""The `proxyformer` command. Heavy modules are imported inside the commands that need them."""

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from .evaluation.protocols import Protocol
    from .modeling_proxyformer import ProxyFormerForReferringSegmentation
    from .pipeline_referring_video_segmentation import ReferringVideoSegmentationPipeline
    from .video_io import VideoWriter

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Draws the mask of the object that a sentence describes, in every frame of a video.",
)

FOLDER_FPS = 24.0  # a folder of frames has no rate of its own
SHEET_FRAMES = 12

MODEL_HELP = "Model folder or Hub name. Default: the packaged checkpoint."
ModelOption = Annotated[str | None, typer.Option(help=MODEL_HELP)]
DeviceOption = Annotated[
    str | None, typer.Option(help="cpu, cuda, mps ... Default: an accelerator if there is one.")
]


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """Bad input ends the command with one line on stderr and exit code 2."""
    try:
        yield
    except ModuleNotFoundError as error:
        typer.echo(f"proxyformer: {error}: pip install 'proxyformer-hf[benchmarks]'", err=True)
        raise typer.Exit(2) from error
    except (OSError, ValueError) as error:
        typer.echo(f"proxyformer: {' '.join(str(error).split())}", err=True)
        raise typer.Exit(2) from error


def _load_pipeline(
    model: str | None, device: str | None, fast: bool = False
) -> "ReferringVideoSegmentationPipeline":
    """Computes in float32, or with `fast` in bfloat16 on a CPU that multiplies it."""
    import huggingface_hub
    import torch
    import transformers

    from .cpu import multiplies_bfloat16
    from .modeling_proxyformer import ProxyFormerForReferringSegmentation
    from .pipeline_referring_video_segmentation import (
        DEFAULT_CHECKPOINT,
        TASK,
        ReferringVideoSegmentationPipeline,
    )
    from .processing_proxyformer import ProxyFormerProcessor

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    huggingface_hub.logging.set_verbosity_error()
    model = model or str(DEFAULT_CHECKPOINT)
    if not Path(model).is_dir() and not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", model):
        raise ValueError(f"there is no model folder {model}")
    try:
        network = ProxyFormerForReferringSegmentation.from_pretrained(model)
        processor = ProxyFormerProcessor.from_pretrained(model)
    except OSError as error:
        raise ValueError(f"the model {model} cannot be loaded: {error}") from error
    try:
        pipe = ReferringVideoSegmentationPipeline(
            network, processor=processor, task=TASK, device=device
        )
    except (RuntimeError, AssertionError) as error:  # torch's for unknown and absent devices
        raise ValueError(f"device {device!r} cannot be used: {error}") from error
    if fast and pipe.device.type == "cpu" and multiplies_bfloat16():
        pipe.model.to(torch.bfloat16)
    return pipe


def _make_mask_folders(root: Path | None, expressions: list[str]) -> list[Path]:
    """`root/0_the_black_swan` and so on; none without `root`."""
    if root is None:
        return []
    folders = []
    for index, expression in enumerate(expressions):
        name = re.sub(r"\W+", "_", expression.lower()).strip("_")[:60]
        folders.append(root / f"{index}_{name}")
        folders[-1].mkdir(parents=True, exist_ok=True)
    return folders


def _write_frames(
    video: Path,
    num_frames: int,
    windows: Iterable[list[dict[str, Any]]],
    stride: int,
    writer: "VideoWriter",
    folders: list[Path],
) -> tuple[list[float], list[int]]:
    """Draws the windows' results on the frames as they come; both are decoded in step.

    Returns per expression its score and the number of frames with a mask.
    """
    from tqdm import tqdm

    from .masks import save_mask
    from .video_io import iter_frames
    from .visualization import draw_masks

    segmented = (
        (results, index) for results in windows for index in range(len(results[0]["masks"]))
    )
    scores, counts = [], []
    with writer:
        for number, frame in tqdm(iter_frames(video), total=num_frames, unit="frame", disable=None):
            if number % stride == 0:
                results, index = next(segmented)
                scores.append([result["score"] for result in results])
            labels = [result["label"] for result in results]
            masks = [result["masks"][index] for result in results]
            counts.append([bool(mask.any()) for mask in masks])
            writer.write(draw_masks(frame, masks, labels, scores[-1]))
            for folder, mask in zip(folders, masks, strict=False):
                save_mask(folder / f"{number:05d}.png", mask)
    return list(map(mean, zip(*scores, strict=True))), list(map(sum, zip(*counts, strict=True)))


def _write_contact_sheet(video: Path, sheet: Path) -> None:
    from .video_io import atomic_path, probe_video, read_video
    from .visualization import contact_sheet

    num_frames = min(SHEET_FRAMES, probe_video(video).num_frames)
    frames, _, _ = read_video(video, num_frames=num_frames)
    with atomic_path(sheet) as partial:
        contact_sheet(frames).save(partial)


def _describe(model: "ProxyFormerForReferringSegmentation") -> Iterator[tuple[str, str]]:
    """The rows of `proxyformer info`."""
    from .configuration_proxyformer import ProxyFormerConfig

    config, network = model.config, model.model
    vision, text = config.vision_config, config.text_config
    yield "model", config.name_or_path
    if Path(config.name_or_path).is_dir():
        sizes = [file.stat().st_size for file in Path(config.name_or_path).iterdir()]
        yield "size on disk", f"{sum(sizes) / 1e6:.1f} MB"
    yield "vision backbone", getattr(vision, "backbone", vision.model_type)
    yield "text encoder", f"{text.model_type}, {text.num_hidden_layers} layers"
    parts = {
        "vision backbone": network.video_encoder.backbone,
        "text encoder": network.text_encoder,
        "interaction encoder": network.encoder,
        "mask decoder": network.mask_decoder,
    }
    if config.detector_config is not None:
        classes = config.detector_config.num_labels
        yield "detector", f"{config.detector_config.model_type}, {classes} classes"
        parts["detector"] = network.video_encoder.detector
    if config.classifier_config is not None:
        classes = config.classifier_config.num_labels
        yield "classifier", f"{config.classifier_config.architecture}, {classes} classes"
        parts["classifier"] = network.video_encoder.classifier
    counts = {
        name: sum(parameter.numel() for parameter in part.parameters())
        for name, part in parts.items()
    }
    total = sum(parameter.numel() for parameter in model.parameters())
    counts |= {"projections and heads": total - sum(counts.values()), "all": total}
    for name, count in counts.items():
        yield f"parameters, {name}", f"{count / 1e6:.2f} M"
    paper = ProxyFormerConfig()
    parts_told = (*config.sub_configs, "detector_config", "classifier_config")
    for field in ProxyFormerConfig.__annotations__:
        ours, theirs = getattr(config, field), getattr(paper, field)
        if ours != theirs and field not in parts_told:
            yield field, f"{ours} (paper: {theirs})"


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"proxyformer-hf {version('proxyformer-hf')}")
        raise typer.Exit()


@app.callback()
def main(
    show_version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    pass


@app.command()
def segment(
    video: Annotated[
        Path, typer.Argument(metavar="VIDEO", help="A video file or a folder of frames.")
    ],
    expressions: Annotated[
        list[str], typer.Argument(metavar="EXPRESSION", help='What to find: "a black swan".')
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Overlay video. Default: VIDEO_segmented.mp4 here."),
    ] = None,
    masks: Annotated[
        Path | None,
        typer.Option(help="Folder for PNG masks, too: a folder per expression, a file per frame."),
    ] = None,
    model: ModelOption = None,
    device: DeviceOption = None,
    stride: Annotated[
        int, typer.Option(min=1, help="Segment every N-th frame; those between keep its masks.")
    ] = 1,
    max_size: Annotated[
        int | None, typer.Option(min=32, help="Longest side in pixels of what the model is given.")
    ] = None,
    threshold: Annotated[
        float, typer.Option(min=0, max=1, help="Probability above which a pixel is in the mask.")
    ] = 0.5,
    min_score: Annotated[
        float,
        typer.Option(min=0, max=1, help="Draw nothing where the score of an expression is below."),
    ] = 0.0,
) -> None:
    """Segment what each expression describes and draw it over the video.

    The overlay video has the source's size and frame rate; a contact sheet lies beside it.
    """
    from .video_io import VideoWriter, check_writable, probe_video

    with _one_line_errors():
        source = probe_video(video)
        output = output or Path(f"{video.resolve().stem}_segmented.mp4")
        if output.resolve() == video.resolve():
            raise ValueError(f"the output would replace the video {video}: choose another --output")
        output.parent.mkdir(parents=True, exist_ok=True)
        fps = source.fps or FOLDER_FPS
        writer = VideoWriter(output, fps=fps, height=source.height, width=source.width)
        sheet = output.with_suffix(".png")
        check_writable(sheet)
        folders = _make_mask_folders(masks, expressions)
        pipe = _load_pipeline(model, device, fast=True)
        options: dict[str, Any] = {
            "stride": stride,
            "threshold": threshold,
            "min_score": min_score,
        }
        if max_size is not None:
            shortest_edge = pipe.processor.video_processor.size.shortest_edge or max_size
            options["size"] = {"shortest_edge": shortest_edge, "longest_edge": max_size}
        windows = pipe.stream(video, expressions, **options)
        scores, counts = _write_frames(video, source.num_frames, windows, stride, writer, folders)
        _write_contact_sheet(output, sheet)
    width = max(map(len, ("expression", *expressions)))
    typer.echo(f"{'expression':{width}}  score  frames with a mask")
    for expression, score, count in zip(expressions, scores, counts, strict=True):
        typer.echo(f"{expression:{width}}  {score:5.2f}  {count} of {source.num_frames}")
    typer.echo(f"wrote {', '.join(map(str, (output, sheet, *folders)))}")


@app.command()
def info(
    model: Annotated[str | None, typer.Argument(help=MODEL_HELP)] = None,
) -> None:
    """Show a model's backbones, size and differences from the paper's configuration."""
    with _one_line_errors():
        pipe = _load_pipeline(model, "cpu")
    for name, value in _describe(pipe.model):
        typer.echo(f"{name:34}  {value}")


@app.command("check-data")
def check_data(
    name: Annotated[
        str, typer.Argument(help="Benchmark, such as ref-youtube-vos; folder: your own videos.")
    ],
    data_dir: Annotated[Path, typer.Argument(metavar="DIR", help="Its folder.")],
    splits: Annotated[
        list[str] | None,
        typer.Option("--split", help="Check this split; may be repeated. Default: all."),
    ] = None,
) -> None:
    """Read every annotation, frame and mask of a benchmark and tell what is missing or wrong.

    Exit code 1 when there are problems.
    """
    from .data.check import check_data

    with _one_line_errors():
        report = check_data(name, data_dir, splits)
    columns = ("videos", "expressions", "objects", "frames")
    typer.echo(f"{'split':10}" + "".join(f"{column:>13}" for column in columns))
    for counts in report.counts:
        cells = (f"{getattr(counts, column):13,}" for column in columns)
        typer.echo(f"{counts.split:10}" + "".join(cells))
    for problem in report.problems:
        typer.echo(problem)
    if report.problems:
        download = f". Official download: {report.download}" if report.download else ""
        typer.echo(f"problems: {len(report.problems)}{download}")
        raise typer.Exit(1)
    typer.echo("no problems")


def _score_and_report(
    protocol: "Protocol",
    data_dir: Path,
    predictions_dir: Path,
    split: str | None,
    output: Path,
    workers: int,
) -> None:
    from .evaluation.report import format_table, write_report
    from .evaluation.scoring import score

    evaluation = score(protocol, data_dir, predictions_dir, split, workers)
    paths = write_report(evaluation, data_dir, predictions_dir, output)
    typer.echo(format_table(evaluation))
    typer.echo(f"wrote {', '.join(map(str, paths))}")


BENCHMARK_HELP = (
    "ref-youtube-vos, ref-davis17, a2d-sentences, jhmdb-sentences, mevis, moving-shapes, refcoco, "
    "refcoco+, refcocog or folder (your own videos)."
)
DATA_HELP = "The folder with its official download; any folder for moving-shapes."
PROTOCOL_HELP = (
    "published, per-expression (ref-davis17) or top-1 (a2d-sentences, jhmdb-sentences). Default: "
)


@app.command()
def evaluate(
    name: Annotated[str, typer.Argument(help=BENCHMARK_HELP)],
    data_dir: Annotated[Path, typer.Argument(metavar="DATA_DIR", help=DATA_HELP)],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder of predictions. Default: outputs/NAME."),
    ] = None,
    model: ModelOption = None,
    device: DeviceOption = None,
    protocol: Annotated[str | None, typer.Option(help=f"{PROTOCOL_HELP}published.")] = None,
    split: Annotated[str | None, typer.Option(help="Default: the one of papers.")] = None,
    size: Annotated[
        int | None, typer.Option(min=32, help="Short side in pixels, instead of the protocol's.")
    ] = None,
    window: Annotated[
        int | None, typer.Option(min=1, help="Frames in a clip, instead of the protocol's.")
    ] = None,
    workers: Annotated[
        int, typer.Option(min=0, help="Processes that read frames ahead and, later on, score.")
    ] = 2,
) -> None:
    """Run a model on a benchmark by its protocol, and score it.

    Started again after an interruption it goes on where it stopped. Under `accelerate launch` the
    processes share the work.
    """
    output = output or Path("outputs") / name
    with _one_line_errors():
        import datasets

        from .evaluation.inference import join_processes, predict
        from .evaluation.protocols import find_protocol
        from .evaluation.scoring import MasksNotPublic

        datasets.disable_progress_bars()
        chosen = find_protocol(name, protocol)
        chosen = replace(
            chosen, shortest_edge=size or chosen.shortest_edge, window=window or chosen.window
        )
        state = join_processes(cpu=device == "cpu")
        pipe = _load_pipeline(model, device or str(state.device))
        submission = predict(pipe.model, pipe.processor, chosen, data_dir, output, split, workers)
        if submission is not None:
            typer.echo(f"wrote {submission} for the benchmark's server")
        if state.is_main_process:
            try:
                _score_and_report(chosen, data_dir, output, split, output, workers)
            except MasksNotPublic as error:
                typer.echo(error)


@app.command()
def score(
    name: Annotated[str, typer.Argument(help=BENCHMARK_HELP)],
    data_dir: Annotated[Path, typer.Argument(metavar="DATA_DIR", help=DATA_HELP)],
    predictions_dir: Annotated[
        Path,
        typer.Argument(
            metavar="PREDICTIONS_DIR",
            help="Annotations/<video>/<expression>/<frame>.png; for ref-davis17 "
            "anno_<0 to 3>/<sequence>/<frame>.png; for a2d- and jhmdb-sentences predictions.jsonl.",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder for the report. Default: PREDICTIONS_DIR."),
    ] = None,
    protocol: Annotated[
        str | None, typer.Option(help=f"{PROTOCOL_HELP}that of the predictions, or published.")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Default: that of the predictions, or the one of papers.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Processes that score. Default: one per core.")
    ] = None,
) -> None:
    """Score any system's predictions by a benchmark's protocol; no model is needed."""
    with _one_line_errors():
        import datasets

        from .evaluation.predictions import read_settings
        from .evaluation.protocols import find_protocol

        datasets.disable_progress_bars()
        settings = read_settings(predictions_dir)
        chosen = find_protocol(name, protocol or settings.get("name"))
        split = split or settings.get("split")
        workers = os.cpu_count() or 1 if workers is None else workers
        _score_and_report(
            chosen, data_dir, predictions_dir, split, output or predictions_dir, workers
        )
