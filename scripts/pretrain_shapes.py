# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""Teach a model what moving-shapes look like, before it meets sentences.

Published models begin with networks that have seen ImageNet and Kinetics. An untrained one begins
here: its backbone names the objects of single frames, then backbone, temporal convolution and the
video's side of the CMIE layers name the objects of clips, with their motions, and mask decoder and
kernel head draw them. An object is pooled from the places that it is known to cover; no words and
no proxies take part, and what they add to the video starts at zero. What comes out is a model for
`model.start_from` of a recipe (scripts/recipes/moving_shapes_stills.yaml).
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import torch
import torch.nn.functional as F
import typer
from accelerate import Accelerator, PartialState
from accelerate.utils import DataLoaderConfiguration, DistributedDataParallelKwargs
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm
from train import build_model
from transformers import get_cosine_schedule_with_warmup

from proxyformer_hf.data.moving_shapes import generate_video
from proxyformer_hf.data.shape_expressions import KINDS
from proxyformer_hf.data.shape_scenes import COLORS, MOTIONS, SHAPES, SIZES, TEXTURES, ShapeObject
from proxyformer_hf.loss_proxyformer import MASK_STRIDE, share_dice
from proxyformer_hf.modeling_proxyformer import (
    ProxyFormerForReferringSegmentation,
    ProxyFormerTokens,
)
from proxyformer_hf.processing_proxyformer import ProxyFormerProcessor
from proxyformer_hf.training.datasets import training_dataset, training_expressions
from proxyformer_hf.training.recipe import load_recipe

NAMES = {  # what is named -> its values
    "shape": tuple(SHAPES),
    "color": tuple(COLORS),
    "texture": TEXTURES,
    "size": tuple(SIZES),
    "motion": tuple(
        f"{motion} {way}".strip() for motion, (_, ways) in MOTIONS.items() for way in ways
    ),
}
UNNAMED = -1  # the size of what grows or shrinks; any motion in a single frame
# Shapes and motions are learned last, and hardly at all beside others of equal weight.
WEIGHTS = {"shape": 1.0, "color": 0.1, "texture": 0.1, "size": 0.1, "motion": 1.0}
ONLY_SHAPES = 0.5  # share of the training clips whose objects differ in their shapes alone


class NamedClip(NamedTuple):
    """A clip (T, 3, height, width), or a batch of them (B, ...), and its n objects.

    Attributes:
        pixels: normalised.
        spread: (n, T, height / stride, width / stride), how its pixels spread over the cells of
            all frames: sums to 1.
        cover: (n, T, height / 4, width / 4), the share of each cell that the object covers.
        names: int64 (n, len(NAMES)), indices into the values of each.
        counts: how many objects each clip has; they sum to n.
        texts: the expressions, equally many of each clip.
        meant: int64 (B, expressions), the object that each means, of its clip's.
    """

    pixels: Tensor
    spread: Tensor
    cover: Tensor
    names: Tensor
    counts: list[int]
    texts: list[list[str]]
    meant: Tensor

    @property
    def clips(self) -> Tensor:
        """(n,) the clip of each object."""
        return torch.arange(len(self.counts)).repeat_interleave(torch.tensor(self.counts))


class NamedClips(Dataset):
    """Clips of moving-shapes and the names of their objects."""

    def __init__(
        self,
        split: str,
        length: int,
        num_frames: int,
        only_shapes: float,
        stride: int,
        mean: Sequence[float],
        std: Sequence[float],
    ):
        self.stride = stride  # of the map that the layers read
        self.split, self.length, self.num_frames = split, length, num_frames
        self.only_shapes = only_shapes
        self.mean, self.std = (torch.tensor(x)[:, None, None] for x in (mean, std))

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> NamedClip:
        video = generate_video(
            index,
            self.split,
            num_frames=self.num_frames,
            seed=1,  # the seed of the benchmark is 0
            only_shapes=index % 10 < 10 * self.only_shapes,
        )
        pixels = torch.from_numpy(video.frames).permute(0, 3, 1, 2).float() / 255
        seen = [i for i in range(len(video.scene.objects)) if (video.object_map == i + 1).any()]
        masks = torch.stack([torch.from_numpy(video.object_map == i + 1) for i in seen]).float()
        spread = F.avg_pool2d(masks, self.stride)
        return NamedClip(
            (pixels - self.mean) / self.std,
            spread / spread.sum((1, 2, 3), keepdim=True),
            F.avg_pool2d(masks, MASK_STRIDE),
            torch.tensor([self.names_of(video.scene.objects[i]) for i in seen]),
            [len(seen)],
            [[expression.text for expression in video.expressions]],
            torch.tensor([[seen.index(e.object_id - 1) for e in video.expressions]]),
        )

    def names_of(self, shown: ShapeObject) -> list[int]:
        said = {name: getattr(shown, name) for name in NAMES}
        said["motion"] = f"{shown.motion} {shown.direction}".strip()
        if self.num_frames == 1:
            said["motion"] = ""
        return [
            values.index(said[name]) if said[name] else UNNAMED for name, values in NAMES.items()
        ]


def collate(samples: list[NamedClip]) -> NamedClip:
    pixels, spread, cover, names, counts, texts, meant = zip(*samples, strict=True)
    return NamedClip(
        torch.stack(pixels),
        torch.cat(spread),
        torch.cat(cover),
        torch.cat(names),
        sum(counts, []),
        sum(texts, []),
        torch.cat(meant),
    )


class Classifier(nn.Linear):
    """Logits (n, values), for each of `NAMES`, of objects (n, C)."""

    def __init__(self, channels: int):
        super().__init__(channels, sum(map(len, NAMES.values())))

    def forward(self, objects: Tensor) -> tuple[Tensor, ...]:
        return super().forward(objects).split([*map(len, NAMES.values())], dim=1)


class Readings(NamedTuple):
    """Logits of what is read of a batch's n objects.

    Attributes:
        names: for each of `NAMES` (n, values).
        masks: (n, T, height / 4, width / 4).
        choices: for each clip (expressions, objects), how much the words mean each object.
    """

    names: tuple[Tensor, ...]
    masks: Tensor | None = None
    choices: list[Tensor] | None = None


class FrameReader(nn.Module):
    """A per-frame backbone whose map, averaged over an object, tells its names."""

    def __init__(self, model: ProxyFormerForReferringSegmentation):
        super().__init__()
        self.encoder = model.model.video_encoder
        self.backbone, self.level = self.encoder.backbone, self.encoder.levels[0]
        self.classifier = Classifier(self.backbone.channels[self.level])

    def forward(self, batch: NamedClip) -> Readings:
        num_frames = batch.pixels.shape[1]
        features = self.encoder.encode_frames(
            batch.pixels.flatten(0, 1), lambda part: self.backbone(part).feature_maps
        )[self.level]
        features = features.unflatten(0, (-1, num_frames))[batch.clips]
        return Readings(self.classifier(torch.einsum("ntchw,nthw->nc", features, batch.spread)))


class ClipReader(nn.Module):
    """What a model does to a video before words and proxies come to it, and which of the objects
    the words then point to."""

    def __init__(self, model: ProxyFormerForReferringSegmentation, processor: ProxyFormerProcessor):
        super().__init__()
        self.model, self.processor = model, processor
        self.classifier = Classifier(model.config.hidden_size)

    def forward(self, batch: NamedClip) -> Readings:
        model = self.model.model
        features = model.get_video_features(batch.pixels)
        shape = features.encoded_map.shape
        tokens = model.locate_tokens(features.encoded_map, features.extents)
        video = features.encoded_map.flatten(3).transpose(2, 3)
        choices = self.choose(video, tokens, batch)
        for layer in model.encoder.layers:
            encoded = layer.video_encoding(layer.video_projection(video), tokens)
            video = layer.video_feed_forward(encoded)
        video = model.encoder.video_norm(video).transpose(2, 3).reshape(shape)
        objects = torch.einsum("ntchw,nthw->nc", video[batch.clips], batch.spread)
        mask_features = model.mask_decoder(video, features.lateral_maps, features.extents)
        kernels = self.model.kernel_head(objects).split(batch.counts)
        masks = [
            torch.einsum("nc,tchw->nthw", own, features)
            for own, features in zip(kernels, mask_features, strict=True)
        ]
        return Readings(self.classifier(objects), torch.cat(masks), choices)

    def choose(self, video: Tensor, tokens: ProxyFormerTokens, batch: NamedClip) -> list[Tensor]:
        """For each clip (expressions, objects), the grounding map's mean on each object."""
        inputs = self.processor(text=batch.texts, return_tensors="pt")
        words, _, meaning = self.model.model.encode_text(**inputs)
        rows = video.repeat_interleave(batch.meant.shape[1], dim=0)
        _, logits = self.model.model.text_fusion(
            rows, tokens, words, inputs["attention_mask"], meaning
        )
        return [
            torch.einsum("etp,ntp->en", own, spread)
            for own, spread in zip(
                logits.unflatten(0, (len(video), -1)),
                batch.spread.flatten(2).split(batch.counts),
                strict=True,
            )
        ]


def reading_loss(readings: Readings, batch: NamedClip) -> Tensor:
    """Cross-entropies of the names, each averaged over the objects that have one; of the choices;
    and binary cross-entropy plus dice (of shares, as in the model's answer) of each object's tube,
    averaged over the objects."""
    losses = [
        weight * F.cross_entropy(scores, values, ignore_index=UNNAMED)
        for weight, scores, values in zip(
            WEIGHTS.values(), readings.names, batch.names.T, strict=True
        )
        if (values != UNNAMED).any()
    ]
    if readings.choices is not None:
        losses += [
            F.cross_entropy(scores, meant) / len(batch.meant)
            for scores, meant in zip(readings.choices, batch.meant, strict=True)
        ]
    if readings.masks is not None:
        losses.append(F.binary_cross_entropy_with_logits(readings.masks, batch.cover))
        everywhere = torch.ones_like(batch.cover, dtype=torch.bool)
        dice = share_dice(readings.masks, batch.cover, everywhere, dim=(1, 2, 3))
        losses.append(dice.mean())
    return torch.stack(losses).sum()


def train(
    reader: nn.Module,
    clips: NamedClips,
    batch_size: int,
    learning_rate: float,
    workers: int,
    mixed_precision: str,
) -> None:
    """Trains on all processes, which share each batch."""
    accelerator = Accelerator(
        mixed_precision=mixed_precision,
        dataloader_config=DataLoaderConfiguration(split_batches=True),
        # words, proxies and, on frames, all but the backbone take no part
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
        step_scheduler_with_optimizer=False,
    )
    steps = len(clips) // batch_size
    optimizer = torch.optim.AdamW(reader.parameters(), lr=learning_rate, weight_decay=0.01)
    schedule = get_cosine_schedule_with_warmup(optimizer, min(20, steps // 10), steps)
    loader = DataLoader(clips, batch_size, num_workers=workers, collate_fn=collate)
    shared, optimizer, loader = accelerator.prepare(reader, optimizer, loader)
    progress = tqdm(loader, disable=not accelerator.is_main_process)
    for batch in progress:
        loss = reading_loss(shared(batch), batch)
        optimizer.zero_grad()
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(reader.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        progress.set_postfix(loss=f"{loss.item():.2f}")


@torch.no_grad()
def score(reader: nn.Module, clips: NamedClips) -> dict[str, float]:
    """Of unseen clips: the shares of objects named right and of expressions whose object is chosen,
    in the order of `KINDS`, and the mean IoU of the masks at stride 4."""
    values = defaultdict(list)
    for batch in DataLoader(clips, 32, collate_fn=collate):
        names, masks, choices = reader(batch)
        for name, scores, known in zip(NAMES, names, batch.names.T, strict=True):
            values[name] += (scores.argmax(1) == known)[known != UNNAMED].tolist()
        if choices is not None:
            chosen = torch.stack([scores.argmax(1) for scores in choices])
            for kind, right in zip(KINDS, (chosen == batch.meant).T, strict=True):
                values[f"chosen by {kind}"] += right.tolist()
        if masks is not None:
            ours, theirs = masks > 0, batch.cover > 0.5
            both, either = (x.sum((1, 2, 3)) for x in (ours & theirs, ours | theirs))
            values["mask"] += (both / either.clamp(min=1)).tolist()
    return {name: sum(own) / len(own) for name, own in values.items() if own}


def silence_words(model: ProxyFormerForReferringSegmentation) -> None:
    """What words and proxies add to the video starts at zero: they would garble it at random."""
    for output in word_outputs(model):
        nn.init.zeros_(output.weight)
        nn.init.zeros_(output.bias)


def word_outputs(model: ProxyFormerForReferringSegmentation) -> Iterator[nn.Linear]:
    for layer in model.model.encoder.layers:
        if layer.text_to_video is not None:
            yield layer.text_to_video.attention.o_proj
        if layer.proxy_to_video is not None:
            for attention in layer.proxy_to_video.attentions.values():
                yield attention.o_proj
    if model.config.grounding_map:
        yield model.model.text_fusion.map_projection


def main(
    recipe: Annotated[Path, typer.Argument(help="Its model is trained, from random weights.")],
    output: Annotated[Path, typer.Argument(help="Folder of the trained model.")],
    frame_steps: Annotated[int, typer.Option(help="Batches of single frames.")] = 700,
    clip_steps: Annotated[int, typer.Option(help="Batches of clips of 5 frames.")] = 1100,
    batch_size: int = 32,
    workers: Annotated[int, typer.Option(help="Processes that make the clips.")] = 1,
    seed: int = 0,
) -> None:
    described = load_recipe(recipe, None, ["model.start_from=null"])
    torch.manual_seed(seed)
    model, processor = build_model(described, training_expressions(training_dataset(described)))
    silence_words(model.train())
    look = {
        "stride": model.config.encoded_stride,
        "mean": described.model.image_mean,
        "std": described.model.image_std,
    }
    for reader, num_frames, steps, rate in (
        (FrameReader(model), 1, frame_steps, 3e-3),
        (ClipReader(model, processor), 5, clip_steps, 1e-3),
    ):
        clips = NamedClips("train", steps * batch_size, num_frames, ONLY_SHAPES, **look)
        train(reader, clips, batch_size, rate, workers, described.run.mixed_precision)
        if PartialState().is_main_process:
            unseen = NamedClips("valid", 512 // num_frames, num_frames, 0.0, **look)
            for name, share in score(reader.eval(), unseen).items():
                typer.echo(f"{name}: {100 * share:.1f} %")
            model.train()
            model.save_pretrained(output)
            processor.save_pretrained(output)
        PartialState().wait_for_everyone()


if __name__ == "__main__":
    typer.run(main)
