# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""A batch spread over processes or accumulation steps gives the update of one process with all.

This module is also the program of the two processes, which write what they computed.
"""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed import barrier

from proxyformer_hf.loss_proxyformer import LossCounts, count_targets
from proxyformer_hf.modeling_proxyformer import ProxyFormerForReferringSegmentation
from tests.tiny_model import VOCABULARY, perturb, tiny_model

# videos of each process
SPLITS = {"even": ([0, 1], [2, 3]), "uneven": ([0, 1, 2], [3]), "one each": ([0], [1])}
TERMS = ("class", "bbox", "giou", "mask", "dice")
VISIBLE_TERMS = {*TERMS, *(f"{term}_aux_0" for term in TERMS)}
ROW_TERMS = {"selection", "grounding"}


def make_model(**fields) -> ProxyFormerForReferringSegmentation:
    """All terms on, auxiliary ones too; no gradient is 0 by its initial weights."""
    return perturb(
        tiny_model(
            num_hidden_layers=2, grounding_map=True, soft_selection=True, pre_norm=True, **fields
        )
    )


def four_videos() -> dict[str, Tensor]:
    """A square in each: throughout; in one frame of a shorter, smaller video; nowhere; in two."""
    generator = torch.Generator().manual_seed(0)
    masks = torch.zeros(4, 3, 32, 64)
    for video, frames in enumerate(([0, 1, 2], [0], [], [1, 2])):
        masks[video, frames, 4 + 4 * video : 16 + 4 * video, 8 : 24 + 4 * video] = 1
    frame_mask = torch.ones(4, 3, dtype=torch.bool)
    frame_mask[1, 2] = False
    pixel_mask = torch.ones(4, 32, 64, dtype=torch.bool)
    pixel_mask[1, :, 30:] = False
    return {
        "pixel_values_videos": torch.randn(4, 3, 3, 32, 64, generator=generator)
        + masks[:, :, None],
        "input_ids": torch.randint(5, len(VOCABULARY), (4, 5), generator=generator),
        "frame_mask": frame_mask,
        "pixel_mask": pixel_mask,
        "mask_labels": masks * pixel_mask[:, None],
    }


def take(videos: list[int]) -> dict[str, Tensor]:
    return {name: tensor[videos] for name, tensor in four_videos().items()}


def counts_of(batch: dict[str, Tensor]) -> LossCounts:
    return count_targets(batch["mask_labels"], batch["frame_mask"], batch["pixel_mask"])


def update(network: nn.Module, batch: dict[str, Tensor], **kwargs) -> dict[str, dict[str, Tensor]]:
    network.zero_grad()
    outputs = network(**batch, **kwargs)
    outputs.loss.backward()
    terms = {name.removeprefix("loss_"): value for name, value in outputs.loss_dict.items()}
    return {"terms": {"loss": outputs.loss.detach(), **terms}, "gradients": gradients(network)}


def gradients(network: nn.Module) -> dict[str, Tensor]:
    return {
        name.removeprefix("module."): parameter.grad.clone()
        for name, parameter in network.named_parameters()
    }


def accumulate(accelerator: Accelerator, network: nn.Module, parts: list[list[int]]) -> dict:
    """One update of several micro-batches, as a training loop would make it."""
    network.zero_grad()
    batches = [take(part) for part in parts]
    total = LossCounts(*map(sum, zip(*map(counts_of, batches), strict=True)))
    total = accelerator.reduce(total, "sum")
    counts = LossCounts(*(count / accelerator.num_processes / len(parts) for count in total))
    losses = []
    for batch in batches:
        with accelerator.accumulate(network):
            losses.append(network(**batch, loss_counts=counts).loss)
            accelerator.backward(losses[-1])
    return {"loss": torch.stack(losses).mean().detach(), "gradients": gradients(network)}


def worker(folder: Path) -> None:
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    rank = accelerator.process_index
    network = accelerator.prepare(make_model())
    results = {name: update(network, take(split[rank])) for name, split in SPLITS.items()}

    own = take(SPLITS["uneven"][rank])
    local, mean = counts_of(own), accelerator.reduce(counts_of(own), "mean")
    results["visible frames of each"] = update(
        network, own, loss_counts=LossCounts(local.visible_frames, mean.rows)
    )
    results["rows of each"] = update(
        network, own, loss_counts=LossCounts(mean.visible_frames, local.rows)
    )
    if accelerator.is_main_process:  # a collective would wait for the other process, or meet its
        with torch.no_grad():
            accelerator.unwrap_model(network)(**own)
    barrier()

    network = accelerator.prepare(make_model(jsc_semantics="none"))
    parts = [[video] for video in SPLITS["even"][rank]]
    results["accumulated"] = accumulate(accelerator, network, parts)
    torch.save(results, folder / f"{rank}.pt")
    accelerator.end_training()


@pytest.fixture(scope="module")
def processes(tmp_path_factory) -> list[dict]:
    """What each of two processes has computed."""
    folder = tmp_path_factory.mktemp("processes")
    launcher = ("torch.distributed.run", "--standalone", "--nproc-per-node=2")
    subprocess.run(
        [sys.executable, "-m", *launcher, "-m", "tests.test_loss_distributed", str(folder)],
        cwd=Path(__file__).parent.parent,
        check=True,
        timeout=300,
    )
    return [torch.load(folder / f"{rank}.pt") for rank in (0, 1)]


@pytest.fixture(scope="module")
def whole() -> dict:
    """The update of one process with all videos."""
    return update(make_model(), four_videos())


def mean_terms(processes: list[dict], name: str) -> dict[str, Tensor]:
    first, second = (process[name]["terms"] for process in processes)
    return {term: (first[term] + second[term]) / 2 for term in first}


def assert_close(ours: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


def test_every_term_and_weight_takes_part(whole):
    assert whole["terms"].keys() == {"loss", "jsc", *VISIBLE_TERMS, *ROW_TERMS}
    assert all(value > 0 for value in whole["terms"].values())
    # a key's bias moves all of a softmax alike, and proxies start alike in all frames
    idle = ("k_proj.bias", "key.bias", "layers.0.proxy_to_video.attentions.temporal")
    for name, gradient in whole["gradients"].items():
        assert gradient.abs().max() > 1e-3 or any(part in name for part in idle), name


@pytest.mark.parametrize("split", ["even", "uneven"])
def test_two_processes_make_the_update_of_one(processes, whole, split):
    assert_close(mean_terms(processes, split), whole["terms"])
    for process in processes:
        assert_close(process[split]["gradients"], whole["gradients"])


def test_joint_semantic_consistency_learns_from_one_video_per_process(processes):
    both = update(make_model(), take([0, 1]))
    assert both["terms"]["jsc"] > 0.01
    assert_close(mean_terms(processes, "one each"), both["terms"])
    assert_close(processes[0]["one each"]["gradients"], both["gradients"])


@pytest.mark.parametrize(
    ("name", "terms"), [("visible frames of each", VISIBLE_TERMS), ("rows of each", ROW_TERMS)]
)
def test_counts_of_each_process_alone_would_give_another_update(processes, whole, name, terms):
    """So that the tests above can fail: the processes differ in each count."""
    ours = mean_terms(processes, name)
    for term, value in whole["terms"].items():
        differs = abs(ours[term] - value) > 1e-4 * value
        assert differs == (term in {"loss", *terms}), term
    with pytest.raises(AssertionError):
        assert_close(processes[0][name]["gradients"], whole["gradients"])


def test_accumulation_steps_make_the_update_of_one_batch(processes):
    """Without JSC, whose rows are those of one step."""
    expected = update(make_model(jsc_semantics="none"), four_videos())
    steps = [process["accumulated"] for process in processes]
    loss = (steps[0]["loss"] + steps[1]["loss"]) / 2
    assert_close({"loss": loss}, {"loss": expected["terms"]["loss"]})
    assert_close(steps[0]["gradients"], expected["gradients"])


if __name__ == "__main__":
    worker(Path(sys.argv[1]))
