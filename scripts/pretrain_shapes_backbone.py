# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""Teach a small untrained network what moving-shapes look like, before it meets sentences.

It names the objects of single frames, as networks pretrained on ImageNet name what they see: a
shape, a colour, a texture, a size. What comes out is the folder of a backbone, for `model.vision`
of a recipe (scripts/recipes/moving_shapes_stills.yaml).
"""

from pathlib import Path
from typing import Annotated, NamedTuple

import torch
import torch.nn.functional as F
import typer
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm
from transformers import AutoBackbone, TimmBackboneConfig, get_cosine_schedule_with_warmup

from proxyformer_hf.data.moving_shapes import generate_video
from proxyformer_hf.data.shape_scenes import COLORS, SHAPES, SIZES, TEXTURES

NAMES = {  # what is named -> its values
    "shape": tuple(SHAPES),
    "color": tuple(COLORS),
    "texture": TEXTURES,
    "size": tuple(SIZES),
}
UNNAMED = -1  # the size of what grows or shrinks
WEIGHTS = {"shape": 1.0, "color": 0.1, "texture": 0.1, "size": 0.1}  # shapes are learned last
STRIDE = 16  # of the map that the layers read
MEAN, STD = 0.5, 0.25  # the recipe's
ONLY_SHAPES = 0.5  # share of the training frames whose objects differ in their shapes alone


class NamedFrame(NamedTuple):
    """A frame (3, height, width), or a batch of them (B, ...), and its n objects.

    Attributes:
        pixels: normalised.
        covers: (n, height / 16, width / 16), how the object's pixels spread over the cells: sums
            to 1.
        names: int64 (n, len(NAMES)), indices into the values of each.
        frames: int64 (n,), the frame of each object in its batch.
    """

    pixels: Tensor
    covers: Tensor
    names: Tensor
    frames: Tensor


class NamedFrames(Dataset):
    """Single frames of moving-shapes and the names of their objects."""

    def __init__(self, split: str, length: int, only_shapes: float):
        self.split, self.length, self.only_shapes = split, length, only_shapes

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> NamedFrame:
        only_shapes = index % 10 < 10 * self.only_shapes
        # the seed of the benchmark is 0
        video = generate_video(index, self.split, num_frames=1, seed=1, only_shapes=only_shapes)
        pixels = torch.from_numpy(video.frames[0]).permute(2, 0, 1).float() / 255
        seen = [i for i in range(len(video.scene.objects)) if (video.object_map == i + 1).any()]
        masks = torch.stack([torch.from_numpy(video.object_map[0] == i + 1) for i in seen])
        covers = F.avg_pool2d(masks.float(), STRIDE)
        names = [
            [
                values.index(value) if (value := getattr(video.scene.objects[i], name)) else UNNAMED
                for name, values in NAMES.items()
            ]
            for i in seen
        ]
        return NamedFrame(
            (pixels - MEAN) / STD,
            covers / covers.sum((1, 2), keepdim=True),
            torch.tensor(names),
            torch.zeros(len(seen), dtype=torch.long),
        )


def collate(samples: list[NamedFrame]) -> NamedFrame:
    pixels, covers, names, frames = zip(*samples, strict=True)
    numbered = torch.cat([number + own for number, own in enumerate(frames)])
    return NamedFrame(torch.stack(pixels), torch.cat(covers), torch.cat(names), numbered)


class NamingNetwork(nn.Module):
    """A backbone whose map, averaged over an object, tells its names by one linear layer."""

    def __init__(self, backbone: nn.Module):
        super().__init__()
        self.backbone = backbone
        self.classifier = nn.Linear(backbone.channels[-1], sum(map(len, NAMES.values())))

    def forward(self, batch: NamedFrame) -> tuple[Tensor, ...]:
        """Logits of the objects (n, values), for each of `NAMES`."""
        features = self.backbone(batch.pixels).feature_maps[-1]
        pooled = torch.einsum("nchw,nhw->nc", features[batch.frames], batch.covers)
        return self.classifier(pooled).split([*map(len, NAMES.values())], dim=1)


def naming_loss(logits: tuple[Tensor, ...], names: Tensor) -> Tensor:
    return sum(
        weight * F.cross_entropy(scores, values, ignore_index=UNNAMED)
        for weight, scores, values in zip(WEIGHTS.values(), logits, names.T, strict=True)
    )


def main(
    output: Annotated[Path, typer.Argument(help="Folder of the backbone.")],
    backbone: Annotated[str, typer.Option(help="timm network.")] = "test_resnet",
    steps: int = 700,
    batch_size: int = 32,
    learning_rate: float = 3e-3,
    workers: Annotated[int, typer.Option(help="Processes that make the frames.")] = 1,
    seed: int = 0,
) -> None:
    torch.manual_seed(seed)
    config = TimmBackboneConfig(backbone=backbone, out_indices=[1, 2, 3])
    network = NamingNetwork(AutoBackbone.from_config(config)).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=learning_rate, weight_decay=0.01)
    schedule = get_cosine_schedule_with_warmup(optimizer, min(20, steps // 10), steps)
    frames = NamedFrames("train", steps * batch_size, ONLY_SHAPES)
    progress = tqdm(DataLoader(frames, batch_size, num_workers=workers, collate_fn=collate))
    for batch in progress:
        logits = network(batch)
        loss = naming_loss(logits, batch.names)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        right = (logits[0].argmax(1) == batch.names[:, 0]).float().mean()
        progress.set_postfix(loss=f"{loss.item():.2f}", shapes=f"{100 * right.item():.0f} %")
    network.backbone.save_pretrained(output)
    for name, share in score(network.eval()).items():
        typer.echo(f"{name}: {100 * share:.1f} % right")


@torch.no_grad()
def score(network: NamingNetwork, num_frames: int = 512) -> dict[str, float]:
    """Share of the objects of unseen frames that are named right."""
    right = {name: [] for name in NAMES}
    for batch in DataLoader(NamedFrames("valid", num_frames, 0.0), 64, collate_fn=collate):
        for name, scores, values in zip(NAMES, network(batch), batch.names.T, strict=True):
            right[name].append((scores.argmax(1) == values)[values != UNNAMED])
    return {name: torch.cat(values).float().mean().item() for name, values in right.items()}


if __name__ == "__main__":
    typer.run(main)
