# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""What a ProxyFormer costs: multiply-accumulates by part, the speed of the ways to run it, that of
the metrics, and time and memory of a large data set."""

import copy
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Annotated

import numpy as np
import psutil
import torch
import typer
from PIL import Image
from pycocotools import mask as rle
from torch.utils.data import DataLoader, RandomSampler
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm
from transformers import Pipeline, pipeline

from proxyformer_hf.configuration_proxyformer import ProxyFormerConfig
from proxyformer_hf.configuration_video_swin import VideoSwinConfig
from proxyformer_hf.data.load import load_rvos_dataset
from proxyformer_hf.data.referring_clips import ReferringClips
from proxyformer_hf.metrics.region_boundary import (
    TOLERANCE,
    boundary_accuracy,
    region_similarity,
)
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


def segment_demo_clip(segmenter: Pipeline, expressions: list[str]) -> None:
    """What `proxyformer segment` does: decodes, segments, draws and encodes the demo clip."""
    info = probe_video(DEMO_CLIP)
    results = segmenter(DEMO_CLIP, expressions)
    scores = [result["score"] for result in results]
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "demo.mp4")
        with VideoWriter(output, fps=info.fps, height=info.height, width=info.width) as writer:
            for index, frame in iter_frames(DEMO_CLIP):
                masks = [result["masks"][index] for result in results]
                writer.write(draw_masks(frame, masks, expressions, scores))


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
    segmenter = pipeline(TASK, model=checkpoint, device=device)
    said = {"1 expression": DEMO_EXPRESSIONS[:1], "2 expressions": DEMO_EXPRESSIONS}
    ways = {name: partial(segment_demo_clip, segmenter, texts) for name, texts in said.items()}
    with tqdm(total=len(ways) * (repeats + 1), unit="run") as progress:
        seconds = median_seconds(ways, repeats, progress)
    info, size = probe_video(DEMO_CLIP), segmenter.processor.video_processor.size
    typer.echo(
        f"demo clip of {info.height}x{info.width}, {checkpoint}, which sees frames of "
        f"{size}: frames per second, decoding, drawing and encoding included"
    )
    for name, duration in seconds.items():
        typer.echo(f"{name:30}{info.num_frames / duration:8.2f}")


def score_masks(prediction: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    return float(region_similarity(prediction, truth)), float(boundary_accuracy(prediction, truth))


def score_with_opencv(
    dilate: Callable[[np.ndarray, np.ndarray], np.ndarray],
    prediction: np.ndarray,
    truth: np.ndarray,
) -> tuple[float, float]:
    """J and F of bool masks (height, width) by the steps of davis2017-evaluation, without void."""
    radius = int(np.ceil(TOLERANCE * np.linalg.norm(truth.shape)))
    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    disk = (y**2 + x**2 <= radius**2).astype(np.uint8)
    boundaries, neighbourhoods = [], []
    for mask in (prediction, truth):
        right, below, beyond = (np.zeros_like(mask) for _ in range(3))
        right[:, :-1], below[:-1], beyond[:-1, :-1] = mask[:, 1:], mask[1:], mask[1:, 1:]
        boundary = mask ^ right | mask ^ below | mask ^ beyond
        boundary[-1] = mask[-1] ^ right[-1]
        boundary[:, -1] = mask[:, -1] ^ below[:, -1]
        boundary[-1, -1] = False
        boundaries.append(boundary)
        neighbourhoods.append(dilate(boundary.astype(np.uint8), disk))

    def share(part: np.ndarray, whole: np.ndarray) -> float:
        return np.sum(part) / np.sum(whole) if np.sum(whole) else 1.0

    precision = share(boundaries[0] * neighbourhoods[1], boundaries[0])
    recall = share(boundaries[1] * neighbourhoods[0], boundaries[1])
    total = precision + recall
    similarity = share(prediction & truth, prediction | truth)
    return float(similarity), float(2 * precision * recall / total if total else 0)


def mask_pairs(folder: Path | None, num_pairs: int, height: int, width: int) -> np.ndarray:
    """Masks and the same ones a little displaced, bool (num_pairs, 2, height, width)."""
    if folder is None:
        y, x = np.ogrid[:height, :width]
        centres = np.random.default_rng(0).random((num_pairs, 2)) * (height, width)
        masks = [np.hypot(y - cy, x - cx) < height / 4 for cy, cx in centres]
    else:
        paths = sorted(folder.rglob("*.png"))
        if not paths:
            raise typer.BadParameter(f"there is no PNG file in {folder}")
        chosen = [paths[index * len(paths) // num_pairs] for index in range(num_pairs)]
        masks = [np.array(Image.open(path).resize((width, height), 0)) > 0 for path in chosen]
    return np.stack([(np.roll(mask, (5, 7), (0, 1)), mask) for mask in masks])


@app.command()
def metrics(
    masks: Annotated[
        Path | None,
        typer.Option(help="Folder of mask PNGs, such as DAVIS' Annotations. Default: disks."),
    ] = None,
    num_pairs: Annotated[int, typer.Option(min=1)] = 20,
    height: Annotated[int, typer.Option(min=1)] = 480,
    width: Annotated[int, typer.Option(min=1)] = 854,
    repeats: Annotated[int, typer.Option(min=1, help="Runs of which the median is taken.")] = 5,
) -> None:
    """Time J and F of pairs of masks, and compare with how the official code computes them."""
    pairs = mask_pairs(masks, num_pairs, height, width)
    scorers = {"proxyformer_hf": score_masks}
    try:
        import cv2
    except ImportError:
        typer.echo("to compare with the official way: pip install opencv-python-headless")
    else:
        scorers["davis2017-evaluation"] = partial(score_with_opencv, cv2.dilate)

    def score_pairs(score: Callable[[np.ndarray, np.ndarray], tuple[float, float]]) -> np.ndarray:
        return np.array([score(*pair) for pair in pairs])

    ways = {name: partial(score_pairs, score) for name, score in scorers.items()}
    with tqdm(total=len(ways) * (repeats + 1), unit="run") as progress:
        seconds = median_seconds(ways, repeats, progress)
    typer.echo(
        f"J and F of a pair of masks of {height}x{width}; {num_pairs} pairs from "
        f"{masks or 'drawn disks'}, median of {repeats} runs"
    )
    for name, duration in seconds.items():
        typer.echo(f"{name:24}{duration / num_pairs * 1000:8.3f} ms")
    if len(ways) == 2:
        ours, official = ways
        difference = np.abs(ways[ours]() - ways[official]()).max()
        typer.echo(
            f"{seconds[ours] / seconds[official]:.3f} times the official duration; "
            f"scores differ by at most {difference:g}"
        )


# In a process of its own, which holds nothing of what this script imports.
INDEX = """
import sys, time
from proxyformer_hf import load_rvos_dataset
started = time.perf_counter()
load_rvos_dataset("mevis", sys.argv[1], "train", cache_dir=sys.argv[2])
print(time.perf_counter() - started)
"""


def index_data_set(root: Path, cache: Path) -> tuple[float, int]:
    """Seconds that indexing takes, and the most bytes that its process held meanwhile."""
    command = [sys.executable, "-c", INDEX, str(root), str(cache)]
    process = psutil.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    peak = 0
    while process.poll() is None:
        with suppress(psutil.NoSuchProcess, psutil.TimeoutExpired):
            peak = max(peak, process.memory_info().rss)
            process.wait(0.02)
    return float(process.stdout.read()), peak


def write_large_data_set(root: Path, num_expressions: int) -> None:
    """A MeViS of 8 expressions and 2 objects a video; all videos show the same 20 frames."""
    num_frames, height, width = 20, 90, 160
    names = [f"{index:05d}" for index in range(num_frames)]
    rng = np.random.default_rng(0)
    (root / "one_video").mkdir()
    for name in names:
        noise = rng.integers(0, 256, (height, width, 3), np.uint8)
        Image.fromarray(noise).save(root / "one_video" / f"{name}.jpg")
    mask = np.zeros((height, width), np.uint8, order="F")
    mask[20:70, 30:90] = rng.random((50, 60)) < 0.95  # a ragged outline: codes of usual length
    code = rle.encode(mask)
    codes = json.dumps([{"size": code["size"], "counts": code["counts"].decode()}] * num_frames)
    videos = {}
    (root / "train/JPEGImages").mkdir(parents=True)
    with (root / "train/mask_dict.json").open("w") as file:
        for first in range(0, num_expressions, 8):
            video, annotations = f"{first:012x}", [first // 4, first // 4 + 1]
            (root / "train/JPEGImages" / video).symlink_to(root / "one_video")
            for annotation in annotations:
                file.write(f'{", " if annotation else "{"}"{annotation}": {codes}')
            expressions = {
                str(k): {
                    "exp": f"the animal that turns around after walking {first + k} steps",
                    "obj_id": annotations[: 1 + k % 2],
                    "anno_id": annotations[: 1 + k % 2],
                }
                for k in range(min(8, num_expressions - first))
            }
            videos[video] = {"expressions": expressions, "frames": names}
        file.write("}")
    (root / "train/meta_expressions.json").write_text(json.dumps({"videos": videos}))


def worker_memory() -> int:
    """Bytes that the workers of this process hold for themselves: neither mapped files nor pages
    that they still share with it (which become their own as they touch them)."""
    return sum(child.memory_full_info().uss for child in psutil.Process().children())


@app.command()
def data(
    num_expressions: Annotated[int, typer.Option(min=1)] = 100_000,
    num_samples: Annotated[int, typer.Option(min=1, help="Clips an epoch.")] = 5000,
    num_epochs: Annotated[int, typer.Option(min=1)] = 3,
    num_workers: Annotated[int, typer.Option(min=1)] = 2,
) -> None:
    """Index a large synthetic data set, and iterate over it with workers."""
    with tempfile.TemporaryDirectory() as folder:
        root, cache = Path(folder, "mevis"), Path(folder, "cache")
        root.mkdir()
        write_large_data_set(root, num_expressions)
        seconds, peak = index_data_set(root, cache)
        mask_bytes = (root / "train/mask_dict.json").stat().st_size
        typer.echo(
            f"index of {num_expressions:,} expressions and {mask_bytes / 1e6:.1f} MB of masks: "
            f"{seconds:.1f} s, peak of the process {peak / 1e6:.0f} MB"
        )
        rows = load_rvos_dataset("mevis", root, "train", cache_dir=cache)
        clips = ReferringClips(rows, root, num_frames=5)
        sampler = RandomSampler(clips, num_samples=min(num_samples, len(clips)))
        options = {"num_workers": num_workers, "persistent_workers": True}
        loader = DataLoader(clips, batch_size=None, sampler=sampler, **options)
        for epoch in range(1, num_epochs + 1):
            started = perf_counter()
            for _ in tqdm(loader, f"epoch {epoch}", unit="clip", leave=False):
                pass
            seconds = perf_counter() - started
            typer.echo(
                f"epoch {epoch}: {len(sampler):,} clips of 5 frames in {seconds:.1f} s, "
                f"{num_workers} workers hold {worker_memory() / 1e6:.1f} MB"
            )


if __name__ == "__main__":
    app()
