# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""Losses against loops over rows, frames, proxies and pixels, written from the formulas."""

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import pad
from torchvision.ops import box_convert, generalized_box_iou

from proxyformer_hf.configuration_proxyformer import ProxyFormerConfig
from proxyformer_hf.loss_proxyformer import (
    LossCounts,
    ReferringPrediction,
    count_targets,
    match_trajectories,
    prepare_targets,
    proxyformer_loss,
)

BATCH, FRAMES, QUERIES, HEIGHT, WIDTH, CHANNELS = 3, 4, 5, 22, 30, 8
GRID = (6, 8)
MATCHED_TERMS = ("bbox", "giou", "mask", "dice")


def make_config(**changes):
    return ProxyFormerConfig(encoded_stride=16, **changes)


def make_prediction(seed, batch=BATCH, frames=FRAMES, grid=GRID):
    generator = torch.Generator().manual_seed(seed)
    return ReferringPrediction(
        logits=torch.randn(batch, frames, QUERIES, generator=generator),
        boxes=torch.rand(batch, frames, QUERIES, 4, generator=generator) * 0.5 + 0.1,
        masks=torch.randn(batch, frames, QUERIES, *grid, generator=generator) * 2,
    )


def make_labels(batch=BATCH, frames=FRAMES):
    """A rectangle that moves and grows, another one in each row."""
    labels = torch.zeros(batch, frames, HEIGHT, WIDTH)
    for b in range(batch):
        for t in range(frames):
            labels[b, t, 2 + b : 9 + 2 * t, 4 + 2 * b + t : 15 + 3 * t] = 1
    return labels


def make_extras(seed=7, batch=BATCH, frames=FRAMES, grid=GRID, coarse=(2, 2)):
    generator = torch.Generator().manual_seed(seed)
    return {
        "proxy_queries": torch.randn(batch, frames, QUERIES, CHANNELS, generator=generator),
        "joint_embedding": torch.randn(batch, CHANNELS, generator=generator),
        "logit_scale": torch.tensor(1.5),
        "selected_masks": torch.randn(batch, frames, *grid, generator=generator),
        "grounding_logits": torch.randn(batch, frames, *coarse, generator=generator),
    }


def hard_batch():
    """Row 0 whole; row 1 hidden in frame 1, unannotated in 2, padded in 3; row 2 without object."""
    labels = make_labels()
    labels[1, 1] = 0
    labels[1, 2] = -1
    labels[2] = 0
    frame_mask = torch.ones(BATCH, FRAMES, dtype=torch.bool)
    frame_mask[1, 3:] = False
    pixel_mask = torch.zeros(BATCH, HEIGHT, WIDTH, dtype=torch.bool)
    for b, (height, width) in enumerate([(22, 30), (17, 30), (22, 19)]):
        pixel_mask[b, :height, :width] = True
    labels = torch.where(labels < 0, labels, labels * pixel_mask[:, None])
    return labels, frame_mask, pixel_mask


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def focal(logit, target):
    p = sigmoid(logit)
    return -0.25 * (1 - p) ** 2 * math.log(p) if target else -0.75 * p**2 * math.log(1 - p)


def cross_entropy(logit, target):
    p = sigmoid(logit)
    return -target * math.log(p) - (1 - target) * math.log(1 - p)


def dice(pairs):
    overlap = sum(p * g for p, g in pairs)
    return 1 - (2 * overlap + 1) / (sum(p for p, _ in pairs) + sum(g for _, g in pairs) + 1)


def share_dice(pairs):
    overlap, total = sum(p * g for p, g in pairs), sum(p**2 + g**2 for p, g in pairs)
    return 1 - (2 * overlap + 1) / (total + 1)


def giou_loss(box, target):
    box, target = (box_convert(b[None].double(), "cxcywh", "xyxy") for b in (box, target))
    return 1 - generalized_box_iou(box, target).item()


class Reference:
    """The clip's ground truth and its losses, one pixel at a time.

    Groups of `num_expressions` rows are of one clip; what another row of it shows weighs `others`,
    a row whose object is nowhere `absent`.
    """

    def __init__(self, labels, frame_mask, pixel_mask, num_expressions=1, others=1.0, absent=1.0):
        self.labels, self.num_expressions, self.others = labels.numpy(), num_expressions, others
        self.absent = absent
        self.size = [(m.any(1).sum().item(), m.any(0).sum().item()) for m in pixel_mask]
        batch, frames = frame_mask.shape
        self.rows, self.frame_mask = range(batch), frame_mask
        self.annotated = {
            b: [t for t in range(frames) if frame_mask[b, t] and (self.labels[b, t] >= 0).any()]
            for b in self.rows
        }
        self.visible = {
            b: [t for t in self.annotated[b] if (self.labels[b, t] > 0).any()] for b in self.rows
        }
        self.num_visible = max(1, sum(len(v) for v in self.visible.values()))

    def box(self, b, t):
        height, width = self.size[b]
        y, x = np.nonzero(self.labels[b, t] > 0)
        x1, x2 = x.min() / width, (x.max() + 1) / width
        y1, y2 = y.min() / height, (y.max() + 1) / height
        return torch.tensor([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1])

    def tube(self, masks, b):
        """(logit, target) at the centre of each 4 x 4 cell of the annotated frames."""
        height, width = self.size[b]
        return [
            (masks[b, t, y // 4, x // 4].item(), float(self.labels[b, t, y, x] > 0))
            for t in self.annotated[b]
            for y in range(2, height, 4)
            for x in range(2, width, 4)
        ]

    def cover(self, b):
        """Share of the real pixels around each centre of `tube` that belong to the object."""
        height, width = self.size[b]
        return [
            np.mean(
                self.labels[b, t, y - 2 : min(y + 2, height), x - 2 : min(x + 2, width)] > 0
            ).item()
            for t in self.annotated[b]
            for y in range(2, height, 4)
            for x in range(2, width, 4)
        ]

    def weight(self, b, t, y, x):
        first = b - b % self.num_expressions
        shown = [
            self.frame_mask[row, t] and self.labels[row, t, y, x] > 0
            for row in range(first, first + self.num_expressions)
        ]
        return self.others if any(shown) and not shown[b - first] else 1.0

    def tube_weights(self, b):
        height, width = self.size[b]
        return [
            self.weight(b, t, y, x)
            for t in self.annotated[b]
            for y in range(2, height, 4)
            for x in range(2, width, 4)
        ]

    def trajectory(self, prediction, b, n):
        """Per visible frame: L1, GIoU. Per tube: mask focal, dice."""
        tube = self.tube(prediction.masks[:, :, n], b)
        boxes = [(prediction.boxes[b, t, n], self.box(b, t)) for t in self.visible[b]]
        return {
            "bbox": [(p - g).abs().sum().item() for p, g in boxes],
            "giou": [giou_loss(p, g) for p, g in boxes],
            "mask": [np.mean([focal(logit, g) for logit, g in tube])],
            "dice": [dice([(sigmoid(logit), g) for logit, g in tube])],
        }

    def match(self, prediction, b, config):
        costs = []
        for n in range(QUERIES):
            terms = self.trajectory(prediction, b, n)
            logits = [prediction.logits[b, t, n].item() for t in self.visible[b]]
            terms["class"] = [focal(logit, 1) - focal(logit, 0) for logit in logits]
            costs.append(
                sum(getattr(config, f"{k}_loss_coefficient") * np.mean(v) for k, v in terms.items())
            )
        return int(np.argmin(costs))

    def losses(self, prediction, config):
        total = dict.fromkeys(("class", *MATCHED_TERMS), 0.0)
        for b in self.rows:
            positive = self.match(prediction, b, config) if self.visible[b] else None
            for t in self.annotated[b]:
                for n in range(QUERIES):
                    target = n == positive and t in self.visible[b]
                    total["class"] += focal(prediction.logits[b, t, n].item(), target)
            if positive is not None:
                for name, values in self.trajectory(prediction, b, positive).items():
                    total[name] += sum(values)
        return {name: value / self.num_visible for name, value in total.items()}

    def jsc(self, prediction, config, proxy_queries, joint_embedding, logit_scale, **_):
        pairs = []
        for b in self.rows:
            if self.visible[b]:
                n = self.match(prediction, b, config)
                real = [t for t, keep in enumerate(self.frame_mask[b]) if keep]
                pairs.append((np.mean([proxy_queries[b, t, n].numpy() for t in real], axis=0), b))
        unit = [q / np.linalg.norm(q) for q, _ in pairs]
        joint = [joint_embedding[b].numpy() for _, b in pairs]
        joint = [e / np.linalg.norm(e) for e in joint]
        loss = 0.0
        for i in range(len(pairs)):
            for anchor, candidates in ((unit[i], joint), (joint[i], unit)):
                scores = [math.exp(math.exp(logit_scale) * float(anchor @ c)) for c in candidates]
                loss -= math.log(scores[i] / sum(scores)) / 2 / len(pairs)
        return loss

    def selection(self, selected_masks):
        rows = [b for b in self.rows if self.annotated[b]]
        loss = 0.0
        for b in rows:
            logits = [logit for logit, _ in self.tube(selected_masks, b)]
            tube = list(zip(logits, self.cover(b), strict=True))
            entropy = [cross_entropy(logit, g) for logit, g in tube]
            own = np.average(entropy, weights=self.tube_weights(b))
            own += share_dice([(sigmoid(logit), g) for logit, g in tube])
            loss += own if self.visible[b] else self.absent * own
        return loss / len(rows)

    def grounding(self, logits, stride):
        rows = [b for b in self.rows if self.annotated[b]]
        loss = 0.0
        for b in rows:
            height, width = self.size[b]
            cells, weights = [], []
            for t in self.annotated[b]:
                for i in range(logits.shape[2]):
                    for j in range(logits.shape[3]):
                        places = [
                            (y, x)
                            for y in range(i * stride + 2, min((i + 1) * stride, height), 4)
                            for x in range(j * stride + 2, min((j + 1) * stride, width), 4)
                        ]
                        if places:
                            share = np.mean([self.labels[b, t, y, x] > 0 for y, x in places])
                            cells.append(cross_entropy(logits[b, t, i, j].item(), share))
                            weights.append(np.mean([self.weight(b, t, y, x) for y, x in places]))
            own = np.average(cells, weights=weights)
            loss += own if self.visible[b] else self.absent * own
        return loss / len(rows)

    def places(self, b):
        """Pixels (frame, y, x) in the middle of a cell of 4 x 4 that the object covers."""
        return {
            (t, y, x)
            for t in self.visible[b]
            for y in range(2, HEIGHT, 4)
            for x in range(2, WIDTH, 4)
            if self.labels[b, t, y, x] > 0
        }

    def choice(self, logits, stride):
        loss, rows = 0.0, [b for b in self.rows if self.annotated[b]]
        for b in rows:
            first = b - b % self.num_expressions
            own = self.places(b)
            candidates, right = [], []
            for other in range(first, first + self.num_expressions):
                there = self.places(other)
                if own and there:
                    values = [logits[b, t, y // stride, x // stride].item() for t, y, x in there]
                    candidates.append(math.exp(np.mean(values)))
                    if len(own & there) > len(own | there) / 2:
                        right.append(candidates[-1])
            if own:
                loss -= math.log(sum(right) / sum(candidates))
        return loss / len(rows)


def compute(labels, frame_mask, pixel_mask, predictions, extras, config=None):
    targets = prepare_targets(labels, frame_mask, pixel_mask)
    return proxyformer_loss(
        predictions, targets, config or make_config(), frame_mask=frame_mask, **extras
    )


def assert_same_losses(first, second):
    assert first.keys() == second.keys()
    for name in first:
        torch.testing.assert_close(first[name], second[name], atol=1e-6, rtol=1e-5, msg=name)


@pytest.fixture(params=["whole", "hard"])
def batch(request):
    if request.param == "hard":
        return hard_batch()
    frame_mask = torch.ones(BATCH, FRAMES, dtype=torch.bool)
    return make_labels(), frame_mask, torch.ones(BATCH, HEIGHT, WIDTH, dtype=torch.bool)


@pytest.mark.parametrize(
    ("num_expressions", "others", "absent"), [(1, 8.0, 1.0), (3, 8.0, 0.0), (3, 1.0, 0.5)]
)
@pytest.mark.parametrize("seed", [0, 1])
def test_every_term_equals_the_loops_over_the_formulas(
    batch, seed, num_expressions, others, absent
):
    weights = {"confusable_weight": others, "absent_weight": absent}
    config = make_config(**weights, choice_loss_coefficient=3.0, grounding_map=True)
    prediction, extras = make_prediction(seed), make_extras(seed)
    extras["num_expressions"] = num_expressions
    reference = Reference(*batch, num_expressions, others, absent)
    expected = reference.losses(prediction, config)
    expected["jsc"] = reference.jsc(prediction, config, **extras)
    expected["selection"] = reference.selection(extras["selected_masks"])
    expected["grounding"] = reference.grounding(extras["grounding_logits"], config.encoded_stride)
    expected["choice"] = reference.choice(extras["selected_masks"], 4)
    expected["choice"] += reference.choice(extras["grounding_logits"], config.encoded_stride)

    loss, loss_dict = compute(*batch, [prediction], extras, config)

    assert set(loss_dict) == {f"loss_{name}" for name in expected}
    for name, value in expected.items():
        approximately = pytest.approx(value, rel=1e-5, abs=1e-6)
        assert loss_dict[f"loss_{name}"].item() == approximately, name
    weighted = sum(getattr(config, f"{k}_loss_coefficient") * v for k, v in expected.items())
    assert loss.item() == pytest.approx(weighted, rel=1e-5)


def test_the_best_answer_is_the_share_that_the_object_covers():
    """By descent on the loss: a half covered cell comes out as a half, not as nothing or all."""
    labels = torch.zeros(1, 1, HEIGHT, WIDTH)
    labels[0, 0, 4:14, 8:21] = 1  # covers half of the cells of one row, a quarter of one column's
    targets, config = prepare_targets(labels), make_config(class_loss_coefficient=0.0)
    logits = torch.zeros(1, 1, *GRID, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.1)
    extras = {"proxy_queries": torch.zeros(1, 1, QUERIES, CHANNELS), "selected_masks": logits}
    prediction = make_prediction(0, batch=1, frames=1)
    for _ in range(400):
        loss, _ = proxyformer_loss([prediction], targets, config, **extras)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    answer, known = logits.detach().sigmoid(), targets.supervised
    torch.testing.assert_close(answer[known], targets.cover[known], atol=0.02, rtol=0)
    assert {0.0, 0.125, 0.25, 0.5, 1.0} == set(targets.cover.flatten().tolist())


def test_expressions_of_one_object_are_no_choice():
    labels = make_labels()
    labels[1] = labels[0]
    labels[2] = 0
    labels[2, :, 14:20, 20:28] = 1
    config = make_config(choice_loss_coefficient=1.0, soft_selection=True)
    masks = torch.zeros(BATCH, FRAMES, *GRID)
    masks[:2, :, :2] = 9.0  # somewhere, not on the third object
    masks[2, :, 3:, 5:] = 9.0
    extras = {
        "proxy_queries": torch.zeros(BATCH, FRAMES, QUERIES, CHANNELS),
        "selected_masks": masks,
        "num_expressions": 3,
    }
    _, terms = proxyformer_loss([make_prediction(0)], prepare_targets(labels), config, **extras)
    assert terms["loss_choice"].item() < 0.1
    extras["selected_masks"] = masks.flip(0)  # the first means the third object, and the other way
    _, terms = proxyformer_loss([make_prediction(0)], prepare_targets(labels), config, **extras)
    assert terms["loss_choice"].item() > 1


@pytest.mark.parametrize("only", [None, "class", *MATCHED_TERMS])
def test_matching_finds_the_cheapest_trajectory(batch, only):
    config = make_config()
    if only is not None:
        off = {f"{name}_loss_coefficient": 0.0 for name in ("class", *MATCHED_TERMS)}
        config = make_config(**{**off, f"{only}_loss_coefficient": 1.0})
    reference, targets = Reference(*batch), prepare_targets(*batch)
    chosen = set()
    for seed in range(4):
        prediction = make_prediction(seed)
        index = match_trajectories(prediction, targets, config)
        assert index.dtype == torch.long and index.shape == (BATCH,)
        for b in reference.rows:
            if reference.visible[b]:
                assert index[b] == reference.match(prediction, b, config)
                chosen.add(index[b].item())
    assert len(chosen) > 1


def test_matching_finds_the_ground_truth_among_proxies():
    targets = prepare_targets(make_labels())
    prediction = make_prediction(0)
    for b, n in enumerate([4, 0, 2]):
        prediction.boxes[b, :, n] = targets.boxes[b]
        prediction.masks[b, :, n] = targets.masks[b] * 20 - 10
        prediction.logits[b, :, n] = 5
    assert match_trajectories(prediction, targets, make_config()).tolist() == [4, 0, 2]


def test_perfect_prediction_has_no_loss():
    targets = prepare_targets(make_labels())
    prediction = make_prediction(0)
    prediction.logits[:] = -20
    prediction.logits[:, :, 1] = 20
    prediction.boxes[:, :, 1] = targets.boxes
    prediction.masks[:, :, 1] = targets.masks * 40 - 20
    config = make_config()
    extras = {"proxy_queries": torch.zeros(BATCH, FRAMES, QUERIES, CHANNELS)}
    _, loss_dict = proxyformer_loss([prediction], targets, config, **extras)
    for name, value in loss_dict.items():
        assert value.item() == pytest.approx(0, abs=1e-5), name


def test_targets_of_a_padded_clip_are_those_of_the_clip():
    labels = make_labels(batch=1, frames=2)
    padded = pad(labels, (0, 11, 0, 7, 0, 1), value=1)
    frame_mask = torch.tensor([[True, True, False]])
    pixel_mask = torch.zeros(1, *padded.shape[-2:], dtype=torch.bool)
    pixel_mask[:, :HEIGHT, :WIDTH] = True
    alone, targets = prepare_targets(labels), prepare_targets(padded, frame_mask, pixel_mask)
    assert targets.visible.tolist() == targets.annotated.tolist() == [[True, True, False]]
    torch.testing.assert_close(targets.boxes[:, :2], alone.boxes)
    assert torch.equal(targets.masks[:, :2, : GRID[0], : GRID[1]], alone.masks)
    assert targets.masks.sum() == alone.masks.sum()
    torch.testing.assert_close(targets.cover[:, :2, : GRID[0], : GRID[1]], alone.cover)
    # 22 rows have centres at 2, 6, 10, 14, 18; 30 columns also at 22 and 26
    assert targets.valid.sum() == alone.valid.sum() == 5 * 7


def test_box_covers_the_pixels_of_the_mask():
    labels = torch.zeros(1, 1, 10, 20)
    labels[0, 0, 2:5, 8:18] = 1
    targets = prepare_targets(labels)
    torch.testing.assert_close(targets.boxes[0, 0], torch.tensor([0.65, 0.35, 0.5, 0.3]))


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float16])
def test_labels_of_any_dtype_give_the_same_targets(dtype):
    expected, targets = prepare_targets(make_labels()), prepare_targets(make_labels().to(dtype))
    for name in ("visible", "annotated", "boxes", "masks", "cover", "valid"):
        assert torch.equal(getattr(targets, name), getattr(expected, name)), name


def test_object_between_the_grid_points_is_visible_and_has_a_box():
    labels = torch.zeros(1, 1, 8, 8)
    labels[0, 0, 4, 4] = 1
    targets = prepare_targets(labels)
    assert targets.masks.sum() == 0
    assert targets.cover.flatten().tolist() == [0, 0, 0, 1 / 16]
    assert targets.visible.item()
    torch.testing.assert_close(targets.boxes[0, 0], torch.tensor([0.5625, 0.5625, 0.125, 0.125]))


def test_unannotated_frame_is_recognised_whatever_fills_its_padding():
    labels, frame_mask, pixel_mask = hard_batch()
    labels[1, 2].masked_fill_(~pixel_mask[1], 0)
    targets = prepare_targets(labels, frame_mask, pixel_mask)
    assert targets.annotated.tolist() == [[True] * 4, [True, True, False, False], [True] * 4]
    assert targets.visible.tolist() == [[True] * 4, [True, False, False, False], [False] * 4]


def test_wrong_label_shapes_are_named():
    with pytest.raises(ValueError, match=r"mask_labels must be \(batch.*\(4, 22, 30\)"):
        prepare_targets(make_labels()[0])
    targets = prepare_targets(make_labels()[..., :16])
    with pytest.raises(ValueError, match="mask_labels must have the frames and the size"):
        proxyformer_loss([make_prediction(0)], targets, make_config(), torch.zeros(3, 4, 5, 8))


def test_padding_frames_pixels_and_rows_changes_no_term(batch):
    labels, frame_mask, pixel_mask = batch
    layers, extras = [make_prediction(0), make_prediction(1)], make_extras()
    _, expected = compute(labels, frame_mask, pixel_mask, layers, extras)

    generator = torch.Generator().manual_seed(3)

    def grow(tensor, new_sizes):
        grown = torch.randn(new_sizes, generator=generator)
        grown[tuple(slice(size) for size in tensor.shape)] = tensor
        return grown

    b, t, h, w = BATCH + 1, FRAMES + 2, HEIGHT + 13, WIDTH + 18
    grid, coarse = (-(-h // 4), -(-w // 4)), (4, 4)
    layers = [
        ReferringPrediction(
            grow(layer.logits, (b, t, QUERIES)),
            grow(layer.boxes, (b, t, QUERIES, 4)).abs(),
            grow(layer.masks, (b, t, QUERIES, *grid)),
        )
        for layer in layers
    ]
    extras = {
        "proxy_queries": grow(extras["proxy_queries"], (b, t, QUERIES, CHANNELS)),
        "joint_embedding": grow(extras["joint_embedding"], (b, CHANNELS)),
        "logit_scale": extras["logit_scale"],
        "selected_masks": grow(extras["selected_masks"], (b, t, *grid)),
        "grounding_logits": grow(extras["grounding_logits"], (b, t, *coarse)),
    }
    padding = (0, w - WIDTH, 0, h - HEIGHT, 0, t - FRAMES, 0, 1)
    _, padded = compute(
        pad(labels, padding, value=1),
        pad(frame_mask, (0, t - FRAMES, 0, 1)),
        pad(pixel_mask, (*padding[:4], 0, 1)),
        layers,
        extras,
    )
    assert_same_losses(expected, padded)


def test_unannotated_frames_change_no_term_but_jsc():
    labels, frame_mask, pixel_mask = hard_batch()
    prediction, extras = make_prediction(0), make_extras()
    _, expected = compute(labels, frame_mask, pixel_mask, [prediction], extras)
    prediction.logits[1, 2] += 3
    prediction.boxes[1, 2] *= 0.5
    prediction.masks[1, 2] *= -1
    for name in ("selected_masks", "grounding_logits", "proxy_queries"):
        extras[name][1, 2] += 1
    _, changed = compute(labels, frame_mask, pixel_mask, [prediction], extras)
    assert changed.pop("loss_jsc") != expected.pop("loss_jsc")
    assert_same_losses(expected, changed)


def test_absent_object_trains_as_not_referred():
    labels = torch.zeros(BATCH, FRAMES, HEIGHT, WIDTH)
    prediction, extras = make_prediction(0), make_extras()
    leaves = [prediction.logits, prediction.boxes, prediction.masks, *extras.values()]
    for leaf in leaves:
        leaf.requires_grad_()
    loss, loss_dict = proxyformer_loss(
        [prediction], prepare_targets(labels), make_config(), **extras
    )
    loss.backward()

    for name in (*MATCHED_TERMS, "jsc"):
        assert loss_dict[f"loss_{name}"].item() == 0
    negatives = sum(focal(x.item(), 0) for x in prediction.logits.detach().flatten())
    assert loss_dict["loss_class"].item() == pytest.approx(negatives, rel=1e-5)
    for leaf in (prediction.logits, extras["selected_masks"], extras["grounding_logits"]):
        assert (leaf.grad > 0).sum() >= leaf.numel() * 0.5  # every supervised logit is pushed down
        assert (leaf.grad >= 0).all()
    for leaf in (prediction.boxes, prediction.masks, extras["proxy_queries"]):
        assert leaf.grad.abs().sum() == 0


def test_frames_without_the_object_pull_no_box():
    labels, frame_mask, pixel_mask = hard_batch()
    prediction = make_prediction(0)
    prediction.boxes.requires_grad_()
    loss, _ = compute(labels, frame_mask, pixel_mask, [prediction], make_extras())
    loss.backward()
    pulled = prediction.boxes.grad.abs().sum(dim=(2, 3)) > 0
    assert torch.equal(pulled, prepare_targets(labels, frame_mask, pixel_mask).visible)


def test_batch_of_padding_alone_is_zero_and_finite():
    frame_mask = torch.zeros(1, FRAMES, dtype=torch.bool)
    pixel_mask = torch.zeros(1, HEIGHT, WIDTH, dtype=torch.bool)
    prediction, extras = make_prediction(0, batch=1), make_extras(batch=1)
    leaves = [prediction.logits, prediction.boxes, prediction.masks, *extras.values()]
    for leaf in leaves:
        leaf.requires_grad_()
    loss, _ = compute(make_labels(batch=1), frame_mask, pixel_mask, [prediction], extras)
    loss.backward()
    assert loss.item() == 0
    assert all(leaf.grad.abs().sum() == 0 for leaf in leaves)


def test_gradients_are_finite_for_saturated_and_degenerate_predictions():
    batch = hard_batch()
    for scale in (0.0, 1e4):
        prediction, extras = make_prediction(0), make_extras()
        prediction.logits *= scale
        prediction.masks *= scale
        prediction.boxes[..., 2:] *= min(scale, 1)  # boxes without area
        extras["proxy_queries"] *= scale
        extras["selected_masks"] *= scale
        leaves = [prediction.logits, prediction.boxes, prediction.masks, *extras.values()]
        for leaf in leaves:
            leaf.requires_grad_()
        loss, _ = compute(*batch, [prediction], extras)
        loss.backward()
        assert loss.isfinite()
        assert all(leaf.grad.isfinite().all() for leaf in leaves)


def test_mask_terms_are_per_clip_and_box_terms_per_frame():
    labels = make_labels(batch=1, frames=1)
    prediction = make_prediction(0, batch=1, frames=1)
    queries = torch.zeros(1, 1, QUERIES, CHANNELS)
    _, image = proxyformer_loss([prediction], prepare_targets(labels), make_config(), queries)
    clip = ReferringPrediction(
        *(x.repeat(1, 3, *[1] * (x.ndim - 2)) for x in vars(prediction).values())
    )
    targets = prepare_targets(labels.repeat(1, 3, 1, 1))
    _, still = proxyformer_loss([clip], targets, make_config(), queries.repeat(1, 3, 1, 1))
    for name in ("class", "bbox", "giou"):
        torch.testing.assert_close(still[f"loss_{name}"], image[f"loss_{name}"])
    torch.testing.assert_close(still["loss_mask"], image["loss_mask"] / 3)


def test_counts_are_of_visible_frames_and_annotated_rows():
    """Of a batch as the model takes it: masks of each video, labels of each expression."""
    labels, frame_mask, pixel_mask = hard_batch()
    labels = labels.repeat_interleave(2, dim=0)  # two expressions of each of three videos
    labels[5] = -1
    # visible in 4 frames, 1 and 0; no frame of the last row is annotated
    assert count_targets(labels, frame_mask, pixel_mask) == LossCounts(2 * 4 + 2 * 1, 5)
    assert count_targets(make_labels()) == LossCounts(BATCH * FRAMES, BATCH)


def test_given_counts_divide_every_term_but_jsc(batch):
    layers, extras = [make_prediction(0), make_prediction(1)], make_extras()
    own = count_targets(*batch)
    _, expected = compute(*batch, layers, extras)
    for counts in (
        LossCounts(own.visible_frames * 2, own.rows * 4),
        LossCounts(own.visible_frames.item() * 2, own.rows.item() * 4),
    ):
        _, divided = compute(*batch, layers, {**extras, "counts": counts})
        for name in ("selection", "grounding"):
            divided[f"loss_{name}"] *= 2
        divided["loss_jsc"] /= 2
        assert_same_losses(expected, {name: 2 * value for name, value in divided.items()})


def test_parts_with_their_mean_counts_average_to_the_whole():
    """Exactly so where a part, or even the mean, has less than one visible frame."""
    labels, frame_mask, pixel_mask = hard_batch()
    labels[0] = 0
    whole = (labels, frame_mask, pixel_mask)
    prediction, extras = make_prediction(0), make_extras()
    for name in ("joint_embedding", "logit_scale"):  # JSC is of a part's own rows
        del extras[name]
    _, expected = compute(*whole, [prediction], extras)
    counts = LossCounts(*(count / BATCH for count in count_targets(*whole)))
    assert counts.visible_frames == 1 / 3
    parts = []
    for row in range(BATCH):
        part = slice(row, row + 1)
        layer = ReferringPrediction(*(value[part] for value in vars(prediction).values()))
        extra = {name: value[part] for name, value in extras.items()}
        own = (value[part] for value in whole)
        parts.append(compute(*own, [layer], {**extra, "counts": counts})[1])
    mean = {name: sum(part[name] for part in parts) / BATCH for name in expected}
    assert_same_losses(expected, mean)


@pytest.mark.parametrize("visible_rows", [[], [1]])
def test_jsc_needs_two_rows(visible_rows):
    labels = torch.zeros(BATCH, FRAMES, HEIGHT, WIDTH)
    labels[visible_rows] = make_labels()[visible_rows]
    extras = make_extras()
    for leaf in extras.values():
        leaf.requires_grad_()
    config = make_config(selection_loss_coefficient=0.0, grounding_loss_coefficient=0.0)
    targets = prepare_targets(labels)
    loss, loss_dict = proxyformer_loss([make_prediction(0)], targets, config, **extras)
    loss.backward()
    assert loss_dict["loss_jsc"].item() == 0
    for name in ("proxy_queries", "joint_embedding", "logit_scale"):
        assert extras[name].grad.abs().sum() == 0


def test_jsc_learns_its_temperature_and_pulls_pairs_together():
    extras = make_extras()
    for leaf in extras.values():
        leaf.requires_grad_()
    config = make_config(selection_loss_coefficient=0.0, grounding_loss_coefficient=0.0)
    targets = prepare_targets(make_labels())
    learned = [extras[name] for name in ("proxy_queries", "joint_embedding", "logit_scale")]
    optimizer, losses = torch.optim.SGD(learned, lr=1.0), []
    for _ in range(20):
        loss, loss_dict = proxyformer_loss([make_prediction(0)], targets, config, **extras)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss_dict["loss_jsc"].item())
    assert losses[-1] < losses[0] / 2
    assert extras["logit_scale"] > 1.5


def test_auxiliary_layers_are_matched_again_with_the_same_terms(batch):
    layers = [make_prediction(seed) for seed in range(3)]
    extras, config = make_extras(), make_config()
    loss, loss_dict = compute(*batch, layers, extras, config)
    reference, expected = Reference(*batch), 0.0
    for i, layer in enumerate(layers[:2]):
        for name, value in reference.losses(layer, config).items():
            assert loss_dict[f"loss_{name}_aux_{i}"].item() == pytest.approx(value, rel=1e-5)
            expected += getattr(config, f"{name}_loss_coefficient") * value
    final, final_dict = compute(*batch, layers[2:], extras, config)
    assert loss.item() == pytest.approx(final.item() + expected, rel=1e-5)
    assert len(loss_dict) == len(final_dict) + 2 * 5


def test_auxiliary_layers_are_ignored_when_switched_off(batch):
    layers, extras = [make_prediction(seed) for seed in range(2)], make_extras()
    off = compute(*batch, layers, extras, make_config(auxiliary_loss=False))
    alone = compute(*batch, layers[1:], extras)
    assert off[0] == alone[0]
    assert off[1].keys() == alone[1].keys()


@pytest.mark.parametrize("name", ["class", *MATCHED_TERMS, "jsc", "selection", "grounding"])
def test_term_without_coefficient_is_left_out(batch, name):
    config = make_config(**{f"{name}_loss_coefficient": 0.0})
    layers = [make_prediction(0), make_prediction(1)]
    loss, loss_dict = compute(*batch, layers, make_extras(), config)
    terms = {key.removeprefix("loss_").split("_")[0] for key in loss_dict}
    assert terms == {"class", *MATCHED_TERMS, "jsc", "selection", "grounding"} - {name}
    weighted = sum(
        getattr(config, f"{key.removeprefix('loss_').split('_')[0]}_loss_coefficient") * value
        for key, value in loss_dict.items()
    )
    torch.testing.assert_close(loss, weighted)


def test_everything_is_computed_in_float32_under_autocast(batch):
    layers, extras = [make_prediction(0), make_prediction(1)], make_extras()
    expected, expected_dict = compute(*batch, layers, extras)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, loss_dict = compute(*batch, layers, extras)
    assert loss.dtype == torch.float32 and loss == expected
    assert all(torch.equal(loss_dict[name], expected_dict[name]) for name in expected_dict)


def test_half_precision_predictions_are_summed_in_float32(batch):
    def convert(values, dtype):
        return {key: value.to(dtype) for key, value in values.items()}

    layer, extras = vars(make_prediction(0)), make_extras()
    rounded, rounded_extras = convert(layer, torch.bfloat16), convert(extras, torch.bfloat16)
    _, half = compute(*batch, [ReferringPrediction(**rounded)], rounded_extras)
    _, full = compute(
        *batch,
        [ReferringPrediction(**convert(rounded, torch.float32))],
        convert(rounded_extras, torch.float32),
    )
    assert all(value.dtype == torch.float32 for value in half.values())
    assert_same_losses(half, full)
