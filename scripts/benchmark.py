# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""What a ProxyFormer costs: multiply-accumulates by part, and the speed of the ways to run it."""

import copy
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Annotated

import torch
import typer
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm
from transformers import Pipeline, pipeline

from proxyformer_hf.configuration_proxyformer import ProxyFormerConfig
from proxyformer_hf.configuration_video_swin import VideoSwinConfig
from proxyformer_hf.modeling_proxyformer import ProxyFormerForReferringSegmentation
from proxyformer_hf.pipeline_referring_video_segmentation import DEFAULT_CHECKPOINT, TASK
from proxyformer_hf.video_io import VideoWriter, iter_frames, probe_video
from proxyformer_hf.visualization import draw_masks

DEMO_CLIP = Path(__file__).parents[1] / "src/proxyformer_hf/assets/demo.mp4"
DEMO_EXPRESSIONS = ["the woman in the orange suit", "the cup"]

# ReferFormer with Video-Swin-T on 19 frames of 360x640, in GMACs, by the part of ours that does
# the same work: deformable transformer against CMIE encoder, pixel decoder against mask decoder.
BASELINE = {
    "visual backbone": 595,
    "text encoder": 1,
    "CMIE encoder": 493,
    "mask decoder": 862,
    "total": 1983,
}

# (way to run, way to compare it with): names of `ways_to_run`.
COMPARISONS = [
    ("scaled_dot_product_attention", "eager attention"),
    ("compiled", "scaled_dot_product_attention"),
    ("bfloat16 autocast", "scaled_dot_product_attention"),
    ("3 expressions in 1 call", "3 expressions in 3 calls"),
]

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)


def paper_config() -> ProxyFormerConfig:
    """The default configuration on Video-Swin-T; the words are read by RoBERTa-base."""
    return ProxyFormerConfig(vision_config=VideoSwinConfig())


def count_macs(
    config: ProxyFormerConfig, num_frames: int, height: int, width: int, num_words: int
) -> dict[str, int]:
    """Multiply-accumulates of one video and one expression, by part; they sum to the model's.

    Counted on the meta device, where nothing is computed and scaled_dot_product_attention falls
    apart into its products: the CPU's fused kernel would count as nothing.
    """
    with torch.device("meta"):
        model = ProxyFormerForReferringSegmentation(config).eval().requires_grad_(False)
        video = torch.empty(1, num_frames, 3, height, width)
        input_ids = torch.zeros(1, num_words, dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        model(video, input_ids)

    def macs_of(module: str) -> int:
        return sum(counter.flop_counts[f"{type(model).__name__}{module}"].values()) // 2

    macs = {
        "visual backbone": macs_of(".model.video_encoder.backbone"),
        "text encoder": macs_of(".model.text_encoder"),
        "CMIE encoder": macs_of(".model.encoder"),
        "mask decoder": macs_of(".model.mask_decoder"),
    }
    macs["projections and fusion"] = macs_of(".model") - sum(macs.values())
    macs["heads and masks"] = macs_of("") - macs_of(".model")
    return macs


@app.command()
def flops(
    num_frames: Annotated[int, typer.Option(min=1)] = 19,
    height: Annotated[int, typer.Option(min=1)] = 360,
    width: Annotated[int, typer.Option(min=1)] = 640,
    num_words: Annotated[int, typer.Option(min=1)] = 10,
) -> None:
    """Count the GMACs of the paper's model on Video-Swin-T, next to its baseline's."""
    macs = count_macs(paper_config(), num_frames, height, width, num_words)
    typer.echo(
        f"GMACs for {num_frames} frames of {height}x{width} and {num_words} tokens; ReferFormer's, "
        "for 19 frames of 360x640, on the line of the same task"
    )
    typer.echo(f"{'part':24}{'ProxyFormer':>12}{'ReferFormer':>12}")
    for part, count in (*macs.items(), ("total", sum(macs.values()))):
        typer.echo(f"{part:24}{count / 1e9:12.1f}{BASELINE.get(part, ''):>12}")


def ways_to_run(
    model: ProxyFormerForReferringSegmentation, video: torch.Tensor, input_ids: torch.Tensor
) -> dict[str, Callable[[], object]]:
    """Calls without arguments on `video` (1, T, 3, h, w) and `input_ids` (3, L).

    Those named after expressions answer all three, the others the first one.
    """
    with_eager_attention = copy.deepcopy(model)
    with_eager_attention.set_attn_implementation("eager")
    compiled = torch.compile(model, fullgraph=True, dynamic=False)

    def in_bfloat16() -> None:
        with torch.autocast(video.device.type, torch.bfloat16):
            model(video, input_ids[:1])

    def call_by_call() -> None:
        for ids in input_ids:
            model(video, ids[None])

    return {
        "scaled_dot_product_attention": partial(model, video, input_ids[:1]),
        "eager attention": partial(with_eager_attention, video, input_ids[:1]),
        "compiled": partial(compiled, video, input_ids[:1]),
        "bfloat16 autocast": in_bfloat16,
        "3 expressions in 1 call": partial(model, video, input_ids),
        "3 expressions in 3 calls": call_by_call,
    }


def median_seconds(
    ways: dict[str, Callable[[], object]], repeats: int, progress: tqdm
) -> dict[str, float]:
    """Median duration of each way to run; its first run, which may compile, is left out.

    The ways take turns, so that a machine that slows down slows all of them down.
    """
    durations = {name: [] for name in ways}
    for turn in range(repeats + 1):
        for name, run in ways.items():
            progress.set_description(name)
            started = perf_counter()
            run()
            if torch.accelerator.is_available():
                torch.accelerator.synchronize()
            if turn:
                durations[name].append(perf_counter() - started)
            progress.update()
    return {name: median(values) for name, values in durations.items()}


def segment_demo_clip(segmenter: Pipeline) -> None:
    """What `proxyformer segment` does: decodes, segments, draws and encodes the demo clip."""
    info = probe_video(DEMO_CLIP)
    results = segmenter(DEMO_CLIP, DEMO_EXPRESSIONS)
    scores = [result["score"] for result in results]
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "demo.mp4")
        with VideoWriter(output, fps=info.fps, height=info.height, width=info.width) as writer:
            for index, frame in iter_frames(DEMO_CLIP):
                masks = [result["masks"][index] for result in results]
                writer.write(draw_masks(frame, masks, DEMO_EXPRESSIONS, scores))


@app.command()
def speed(
    model: Annotated[
        str | None,
        typer.Option(
            help="Model folder or Hub name. Default: the paper's, untrained, on Video-Swin-T; and "
            "the packaged checkpoint for the demo clip."
        ),
    ] = None,
    num_frames: Annotated[int, typer.Option(min=1)] = 5,
    height: Annotated[int, typer.Option(min=1)] = 192,
    width: Annotated[int, typer.Option(min=1)] = 320,
    repeats: Annotated[int, typer.Option(min=1, help="Runs of which the median is taken.")] = 5,
    device: Annotated[str, typer.Option(help="cpu, cuda, mps ...")] = "cpu",
) -> None:
    """Compare ways to run a model, and time the demo clip from its file to a drawn video."""
    if model is None:
        network = ProxyFormerForReferringSegmentation(paper_config())
    else:
        network = ProxyFormerForReferringSegmentation.from_pretrained(model)
    network = network.eval().to(device)
    video = torch.randn(1, num_frames, 3, height, width, device=device)
    input_ids = torch.randint(network.config.text_config.vocab_size, (3, 10), device=device)
    ways = ways_to_run(network, video, input_ids)
    with torch.no_grad(), tqdm(total=len(ways) * (repeats + 1), unit="run") as progress:
        seconds = median_seconds(ways, repeats, progress)

    typer.echo(
        f"{model or 'untrained paper model'}, {num_frames} frames of {height}x{width}, "
        f"1 expression unless said,\n{device}, {torch.get_num_threads()} threads, "
        f"torch {torch.__version__}; median of {repeats} runs"
    )
    typer.echo(f"{'way':30}{'seconds':>8}  {'compared with':30}{'seconds':>8}  times as fast")
    for way, other in COMPARISONS:
        times = seconds[other] / seconds[way]
        typer.echo(f"{way:30}{seconds[way]:8.3f}  {other:30}{seconds[other]:8.3f}  {times:13.2f}")
    checkpoint = model or str(DEFAULT_CHECKPOINT)
    if model is None and not DEFAULT_CHECKPOINT.exists():
        typer.echo(f"demo clip not timed: there is no checkpoint in {DEFAULT_CHECKPOINT}")
        return
    run = partial(segment_demo_clip, pipeline(TASK, model=checkpoint, device=device))
    with tqdm(total=repeats + 1, unit="run") as progress:
        (duration,) = median_seconds({"demo clip": run}, repeats, progress).values()
    typer.echo(
        f"demo clip, {len(DEMO_EXPRESSIONS)} expressions, {checkpoint}: "
        f"{probe_video(DEMO_CLIP).num_frames / duration:.2f} frames per second, decoding, drawing "
        "and encoding included"
    )


if __name__ == "__main__":
    app()
