# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""Trajectory matching and the training losses of ProxyFormer: tensors in, scalars out.

A clip has one referred object and N predicted trajectories. The trajectory with the lowest cost
(paper eq. 10) is the positive and receives the box and mask losses; the class loss reads all of
them; the joint semantic consistency (JSC, eq. 6-8) reads the positive's proxy. Coefficients come
from `ProxyFormerConfig`.

Normalisation, as in ReferFormer, whose coefficients we keep: every matched term is summed over the
batch and divided by the number of frames in which an object is visible. Class and box terms hold
one value per frame, mask focal and dice one value per clip (a mean over the tube's pixels, a ratio
over the whole tube), so on clips of T visible frames the mask terms weigh 1/T of what they do on
images. The published coefficients are tuned to exactly that.

A batch may be spread over processes and accumulation steps. DDP and FSDP average its parts'
gradients, so every part divides its sums by the mean of the parts' counts (`LossCounts`), and the
JSC compares the rows of all processes: the update is the one that a single process would make.

Padded frames and pixels, and frames without annotation, enter no term.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import box_convert, sigmoid_focal_loss

from .masks import boxes_from_masks

if TYPE_CHECKING:
    from .configuration_proxyformer import ProxyFormerConfig

MASK_STRIDE = 4
FOCAL_ALPHA = 0.25
FOCAL_GAMMA = 2.0


@dataclass
class ReferringPrediction:
    """What the heads say about N trajectories after one decoder layer.

    Attributes:
        logits: (batch, num_frames, num_queries), "shows the referred object".
        boxes: (batch, num_frames, num_queries, 4), cxcywh in [0, 1] of the unpadded frame.
        masks: (batch, num_frames, num_queries, height / 4, width / 4) logits.
    """

    logits: Tensor
    boxes: Tensor
    masks: Tensor


class LossCounts(NamedTuple):
    """What the terms are divided by. A part of a batch gets the mean over all of its parts.

    Attributes:
        visible_frames: scalar, frames that show their object; divides the matched and class terms.
        rows: scalar, rows with an annotated frame; divides the selection and grounding terms.
    """

    visible_frames: Tensor | float
    rows: Tensor | float


@dataclass
class ReferringTargets:
    """The one ground-truth trajectory of each row, on the masks' stride-4 grid.

    Attributes:
        visible: (batch, num_frames) bool, the object has a pixel in this annotated frame.
        annotated: (batch, num_frames) bool, a real frame whose mask is known.
        boxes: (batch, num_frames, 4), cxcywh in [0, 1] of the unpadded frame.
        masks: (batch, num_frames, height / 4, width / 4) float, 0 or 1; 0 where not supervised.
        cover: of the same shape, the share of each 4 x 4 cell's real pixels that the object covers.
        valid: (batch, height / 4, width / 4) bool, real pixels.
    """

    visible: Tensor
    annotated: Tensor
    boxes: Tensor
    masks: Tensor
    cover: Tensor
    valid: Tensor

    @property
    def supervised(self) -> Tensor:
        """(batch, num_frames, height / 4, width / 4) bool: the pixels that mask terms read."""
        return self.annotated[:, :, None, None] & self.valid[:, None]

    @property
    def counts(self) -> LossCounts:
        """Of these targets alone."""
        annotated_rows = self.annotated.any(dim=1)
        return LossCounts(*(x.sum(dtype=torch.float32) for x in (self.visible, annotated_rows)))


def prepare_targets(
    mask_labels: Tensor, frame_mask: Tensor | None = None, pixel_mask: Tensor | None = None
) -> ReferringTargets:
    """Derive boxes, visibility and stride-4 masks from full-resolution masks.

    Masks are sub-sampled at the centre of each 4 x 4 cell, as the baseline does; boxes are read
    at full resolution, so that an object too small for the grid still has its box. The cover is
    the mean of a cell, which tells where in it the outline runs.

    Args:
        mask_labels: (batch, num_frames, height, width), 0 or 1 in any dtype. A frame whose real
            pixels are all -1 is not annotated.
        frame_mask: (batch, num_frames) bool, True for real frames. All of them by default.
        pixel_mask: (batch, height, width) bool, True for real pixels, a top-left rectangle. All
            of them by default.

    Raises:
        ValueError: `mask_labels` is not 4-dimensional.
    """
    if mask_labels.ndim != 4:
        raise ValueError(
            "mask_labels must be (batch, num_frames, height, width), "
            f"but its shape is {tuple(mask_labels.shape)}."
        )
    batch, num_frames, height, width = mask_labels.shape
    if frame_mask is None:
        frame_mask = mask_labels.new_ones((batch, num_frames), dtype=torch.bool)
    if pixel_mask is None:
        pixel_mask = mask_labels.new_ones((batch, height, width), dtype=torch.bool)
    frame_mask, pixel_mask = frame_mask.bool(), pixel_mask.bool()

    real = pixel_mask[:, None] & frame_mask[:, :, None, None]
    annotated = ((mask_labels >= 0) & real).flatten(2).any(dim=-1)
    masks = (mask_labels > 0) & real
    boxes, visible = boxes_from_masks(masks)

    real_height = pixel_mask.any(dim=2).sum(dim=1).clamp(min=1)
    real_width = pixel_mask.any(dim=1).sum(dim=1).clamp(min=1)
    scale = torch.stack([width / real_width, height / real_height], dim=-1).repeat(1, 2)
    return ReferringTargets(
        visible=visible,
        annotated=annotated,
        boxes=boxes.float() * scale[:, None],
        masks=_subsample(masks).float(),
        cover=_cell_means(masks, pixel_mask),
        valid=_subsample(pixel_mask),
    )


def count_targets(
    mask_labels: Tensor, frame_mask: Tensor | None = None, pixel_mask: Tensor | None = None
) -> LossCounts:
    """Counts of a batch as the model's `forward` takes it, with the masks one row per video.

    A training loop sums them over the accumulation steps and processes of an update, divides by the
    number of both, and hands the mean to each of their `forward` calls as `loss_counts`.

    Args:
        mask_labels: (batch * num_expressions, num_frames, height, width), see `prepare_targets`.
        frame_mask: (batch, num_frames) bool.
        pixel_mask: (batch, height, width) bool.
    """
    frame_mask, pixel_mask = (
        None if mask is None else mask.repeat_interleave(len(mask_labels) // len(mask), dim=0)
        for mask in (frame_mask, pixel_mask)
    )
    return prepare_targets(mask_labels, frame_mask, pixel_mask).counts


def _num_processes() -> int:
    """Processes that share the update; one without gradients, as validation may run on one."""
    shared = dist.is_available() and dist.is_initialized() and torch.is_grad_enabled()
    return dist.get_world_size() if shared else 1


def _divisors(targets: ReferringTargets, counts: LossCounts | None) -> LossCounts:
    """The given counts, or the targets' own averaged over the processes; 1 in place of 0."""
    device = targets.visible.device
    own = targets.counts if counts is None else counts
    values = torch.stack([torch.as_tensor(x, dtype=torch.float32, device=device) for x in own])
    if counts is None and (num_processes := _num_processes()) > 1:
        dist.all_reduce(values)
        values = values / num_processes
    return LossCounts(*torch.where(values > 0, values, 1.0))


def _gather_rows(values: Tensor) -> Tensor:
    """Rows (batch, channels) of all processes; rows of zeros where one has fewer than another.

    Each process computes the same loss of all rows. The average of their gradients, which DDP
    takes, is the gradient of one if each process' own rows carry that of all processes: theirs is
    multiplied by the number of processes, and no gradient need travel.
    """
    if (num_processes := _num_processes()) == 1:
        return values
    length = torch.tensor(len(values), device=values.device)
    dist.all_reduce(length, dist.ReduceOp.MAX)
    values = F.pad(values, (0, 0, 0, int(length) - len(values)))
    fixed = values.detach()
    parts = [torch.empty_like(fixed) for _ in range(num_processes)]
    dist.all_gather(parts, fixed)
    parts[dist.get_rank()] = fixed + num_processes * (values - fixed)
    return torch.cat(parts)


def _subsample(masks: Tensor) -> Tensor:
    height, width = masks.shape[-2:]
    padded = F.pad(masks, (0, -width % MASK_STRIDE, 0, -height % MASK_STRIDE))
    return padded[..., MASK_STRIDE // 2 :: MASK_STRIDE, MASK_STRIDE // 2 :: MASK_STRIDE]


def _cell_means(masks: Tensor, pixel_mask: Tensor) -> Tensor:
    """Share of the real pixels of each 4 x 4 cell that the object covers."""
    height, width = masks.shape[-2:]
    padding = (0, -width % MASK_STRIDE, 0, -height % MASK_STRIDE)
    covered, real = (
        F.avg_pool2d(F.pad(pixels.float(), padding), MASK_STRIDE)
        for pixels in (masks, pixel_mask[:, None])
    )
    return covered / real.clamp(min=1 / MASK_STRIDE**2)


def _focal(logits: Tensor, targets: Tensor) -> Tensor:
    return sigmoid_focal_loss(logits, targets, alpha=FOCAL_ALPHA, gamma=FOCAL_GAMMA)


def _masked_mean(values: Tensor, mask: Tensor, dim: int | tuple[int, ...]) -> Tensor:
    """Mean of the values whose mask is True; 0 where there are none."""
    return torch.where(mask, values, 0.0).sum(dim) / mask.sum(dim).clamp(min=1)


def _dice(logits: Tensor, targets: Tensor, mask: Tensor, dim: tuple[int, ...]) -> Tensor:
    """Dice loss with smoothing 1, so that an empty target asks for an empty prediction.

    Targets are 0 or 1, and 0 outside the mask already.
    """
    probabilities = torch.where(mask, logits.sigmoid(), 0.0)
    overlap = (probabilities * targets).sum(dim)
    return 1 - (2 * overlap + 1) / (probabilities.sum(dim) + targets.sum(dim) + 1)


def share_dice(logits: Tensor, shares: Tensor, mask: Tensor, dim: tuple[int, ...]) -> Tensor:
    """Dice loss of shares in [0, 1], with squares in the denominator as in V-Net.

    It is 0 where the probabilities are the shares; without the squares 0 and 1 would be better.

    Args:
        logits, shares: of one shape.
        mask: bool, broadcast to it; the probabilities elsewhere count as 0, and the shares are.
        dim: what an object extends over.
    """
    probabilities = torch.where(mask, logits.sigmoid(), 0.0)
    overlap, total = (x.sum(dim) for x in (probabilities * shares, probabilities**2 + shares**2))
    return 1 - (2 * overlap + 1) / (total + 1)


def _box_distance(prediction: ReferringPrediction, targets: ReferringTargets) -> Tensor:
    """L1 distance of cxcywh, summed over the four: (batch, num_frames, num_queries)."""
    return (prediction.boxes.float() - targets.boxes[:, :, None]).abs().sum(dim=-1)


def _area(size: Tensor) -> Tensor:
    return size[..., 0] * size[..., 1]


def _box_giou(prediction: ReferringPrediction, targets: ReferringTargets) -> Tensor:
    """1 - GIoU: (batch, num_frames, num_queries).

    torchvision's generalized_box_iou_loss indexes with a mask: a GPU waits for the CPU there, and
    torch.compile splits the graph. An eps as small as this one matters to no small object's area.
    """
    ours, theirs = prediction.boxes.float(), targets.boxes[:, :, None]
    (our_low, our_high), (low, high) = (
        box_convert(boxes, "cxcywh", "xyxy").split(2, dim=-1) for boxes in (ours, theirs)
    )
    overlap = _area((torch.minimum(our_high, high) - torch.maximum(our_low, low)).clamp(min=0))
    hull = _area(torch.maximum(our_high, high) - torch.minimum(our_low, low))
    union = _area(ours[..., 2:]) + _area(theirs[..., 2:]) - overlap
    eps = 1e-12
    return 1 - overlap / (union + eps) + (hull - union) / (hull + eps)


def _tube_focal(prediction: ReferringPrediction, targets: ReferringTargets) -> Tensor:
    """Focal loss averaged over the tube's supervised pixels: (batch, num_queries)."""
    masks = prediction.masks.float()
    focal = _focal(masks, targets.masks[:, :, None].expand_as(masks))
    return _masked_mean(focal, targets.supervised[:, :, None], dim=(1, 3, 4))


def _tube_dice(prediction: ReferringPrediction, targets: ReferringTargets) -> Tensor:
    """Dice loss of the whole tube: (batch, num_queries)."""
    masks, supervised = targets.masks[:, :, None], targets.supervised[:, :, None]
    return _dice(prediction.masks.float(), masks, supervised, dim=(1, 3, 4))


_FRAME_TERMS = {"bbox": _box_distance, "giou": _box_giou}
_TUBE_TERMS = {"mask": _tube_focal, "dice": _tube_dice}


def _coefficient(config: "ProxyFormerConfig", term: str) -> float:
    return getattr(config, f"{term}_loss_coefficient")


@torch.no_grad()
def match_trajectories(
    prediction: ReferringPrediction, targets: ReferringTargets, config: "ProxyFormerConfig"
) -> Tensor:
    """Choose each clip's positive: the trajectory with the lowest cost (paper eq. 10).

    The cost weighs, with the loss coefficients, the class, L1 and GIoU terms averaged over the
    frames where the object is visible, and the focal and dice terms of the tube. The class term is
    the focal loss of a positive minus that of a negative: what choosing this trajectory adds to
    the class loss, since all the others stay negatives.

    Returns:
        (batch,) long index into the queries; meaningless where the object is in no frame.
    """
    visible = targets.visible[:, :, None]
    logits = prediction.logits.float()
    cost = logits.new_zeros(logits.shape[0], logits.shape[2])
    if coefficient := _coefficient(config, "class"):
        class_cost = _focal(logits, torch.ones_like(logits)) - _focal(
            logits, torch.zeros_like(logits)
        )
        cost += coefficient * _masked_mean(class_cost, visible, dim=1)
    for name, term in _FRAME_TERMS.items():
        if coefficient := _coefficient(config, name):
            cost += coefficient * _masked_mean(term(prediction, targets), visible, dim=1)
    for name, term in _TUBE_TERMS.items():
        if coefficient := _coefficient(config, name):
            cost += coefficient * term(prediction, targets)
    return cost.argmin(dim=1)


def _trajectory_losses(
    prediction: ReferringPrediction,
    targets: ReferringTargets,
    config: "ProxyFormerConfig",
    num_visible: Tensor,
) -> tuple[dict[str, Tensor], Tensor]:
    """Class loss of all trajectories, box and mask losses of the matched one; and its index."""
    index = match_trajectories(prediction, targets, config)
    losses = {}
    if _coefficient(config, "class"):
        logits = prediction.logits.float()
        positive = F.one_hot(index, logits.shape[2]).bool()[:, None] & targets.visible[..., None]
        focal = _focal(logits, positive.float())
        losses["class"] = torch.where(targets.annotated[..., None], focal, 0.0).sum() / num_visible

    rows = torch.arange(len(index), device=index.device)
    matched = ReferringPrediction(
        logits=prediction.logits[rows, :, index].unsqueeze(2),
        boxes=prediction.boxes[rows, :, index].unsqueeze(2),
        masks=prediction.masks[rows, :, index].unsqueeze(2),
    )
    for terms, present in (
        (_FRAME_TERMS, targets.visible[..., None]),
        (_TUBE_TERMS, targets.visible.any(dim=1, keepdim=True)),
    ):
        for name, term in terms.items():
            if _coefficient(config, name):
                values = term(matched, targets)
                losses[name] = torch.where(present, values, 0.0).sum() / num_visible
    return losses, index


def _positive_queries(proxy_queries: Tensor, index: Tensor, frame_mask: Tensor | None) -> Tensor:
    """The matched proxy averaged over the real frames: (batch, hidden_size)."""
    queries = proxy_queries[torch.arange(len(index), device=index.device), :, index]
    if frame_mask is None:
        return queries.mean(dim=1)
    return _masked_mean(queries, frame_mask.bool()[..., None], dim=1)


def _joint_semantic_consistency(
    queries: Tensor, joint_embedding: Tensor, logit_scale: Tensor, rows: Tensor
) -> Tensor:
    """Symmetric InfoNCE between positive proxies and video-text embeddings (paper eq. 6-8).

    The rows are those of all processes. Rows whose object is nowhere have no positive proxy and are
    neither anchors nor negatives. One remaining row is its own only candidate: the loss and its
    gradient are then 0.

    Args:
        queries: (batch, hidden_size), the positive proxy averaged over time.
        joint_embedding: (batch, hidden_size).
        logit_scale: (1,), log of the inverse temperature.
        rows: (batch,) bool, rows whose object is visible.
    """
    gathered = _gather_rows(torch.cat((queries, joint_embedding, rows[:, None].float()), dim=1))
    queries, joint_embedding, rows = gathered.tensor_split((queries.shape[1], -1), dim=1)
    rows = rows[:, 0] > 0
    similarity = F.normalize(queries, dim=-1) @ F.normalize(joint_embedding, dim=-1).T
    logits = (logit_scale.exp() * similarity).masked_fill(
        ~(rows[:, None] & rows[None]), torch.finfo(similarity.dtype).min
    )
    labels = torch.arange(len(rows), device=rows.device)
    query_to_joint = F.cross_entropy(logits, labels, reduction="none")
    joint_to_query = F.cross_entropy(logits.T, labels, reduction="none")
    return _masked_mean((query_to_joint + joint_to_query) / 2, rows, dim=0)


def _pixel_weights(targets: ReferringTargets, num_expressions: int, others: float) -> Tensor:
    """Weights (batch, num_frames, height / 4, width / 4) of the pixels in a binary cross-entropy.

    1, but `others` where a row's clip shows what another of its expressions describes; 0 where not
    supervised. They have a mean of 1 over what is supervised.
    """
    described = targets.masks.unflatten(0, (-1, num_expressions)).amax(1)
    confusable = described.repeat_interleave(num_expressions, dim=0) > targets.masks
    weights = torch.where(confusable, others, 1.0)
    mean = _masked_mean(weights, targets.supervised, dim=(1, 2, 3)).clamp(min=1e-6)
    return torch.where(targets.supervised, weights / mean[:, None, None, None], 0.0)


def _row_weights(targets: ReferringTargets, absent: float) -> Tensor:
    """Weights (batch,) of rows in the terms of the answer and of the grounding map: 1, but `absent`
    where the object is in no frame; 0 where nothing is annotated."""
    weights = torch.where(targets.visible.any(dim=1), 1.0, absent)
    return torch.where(targets.annotated.any(dim=1), weights, 0.0)


def _selection_loss(
    selected_masks: Tensor,
    targets: ReferringTargets,
    weights: Tensor,
    row_weights: Tensor,
    num_rows: Tensor,
) -> Tensor:
    """Binary cross-entropy plus dice of the model's answer, averaged over annotated rows.

    The targets are the covered shares of the cells: an outline is drawn finer than the grid where
    the answer's probabilities are interpolated. An absent object is an empty target here: the
    answer has to be empty too.
    """
    supervised = targets.supervised
    cover = torch.where(supervised, targets.cover, 0.0)
    entropy = F.binary_cross_entropy_with_logits(selected_masks, cover, reduction="none")
    per_row = _masked_mean(entropy * weights, supervised, dim=(1, 2, 3))
    per_row = per_row + share_dice(selected_masks, cover, supervised, dim=(1, 2, 3))
    return (per_row * row_weights).sum() / num_rows


def _grounding_loss(
    grounding_logits: Tensor,
    targets: ReferringTargets,
    weights: Tensor,
    row_weights: Tensor,
    stride: int,
    num_rows: Tensor,
) -> Tensor:
    """Binary cross-entropy of a coarse map against the share of the object in each of its cells.

    Args:
        grounding_logits: (batch, num_frames, rows, columns), one logit per stride x stride pixels.
            Rows and columns may extend over the model's own padding, which is ignored.
        weights: of [`_pixel_weights`]; a cell has the mean of its pixels'.
        row_weights: of [`_row_weights`].
        stride: pixels per cell, a multiple of 4.
    """
    cell = stride // MASK_STRIDE
    height, width = targets.masks.shape[-2:]
    rows, columns = grounding_logits.shape[-2:]
    padding = (0, columns * cell - width, 0, rows * cell - height)
    valid = targets.valid[:, None].float()
    valid_share = F.avg_pool2d(F.pad(valid, padding), cell)
    object_share = F.avg_pool2d(F.pad(targets.masks, padding), cell)
    labels = object_share / valid_share.clamp(min=1 / cell**2)
    entropy = F.binary_cross_entropy_with_logits(grounding_logits, labels, reduction="none")
    supervised = targets.annotated[:, :, None, None] & (valid_share > 0)
    cell_weights = F.avg_pool2d(F.pad(weights, padding), cell) / valid_share.clamp(min=1 / cell**2)
    total = torch.where(supervised, cell_weights, 0.0).sum((1, 2, 3)).clamp(min=1e-6)
    per_row = torch.where(supervised, entropy * cell_weights, 0.0).sum((1, 2, 3)) / total
    return (per_row * row_weights).sum() / num_rows


def _choice_loss(
    logits: Tensor, stride: int, targets: ReferringTargets, num_expressions: int, num_rows: Tensor
) -> Tensor:
    """Cross-entropy of which of the objects that a clip's expressions describe is meant.

    An object's score is the mean of the map's logits on its pixels. Expressions of the same object,
    by an IoU above a half, are all right. Rows whose object is nowhere offer none and choose none.

    Args:
        logits: (batch, num_frames, rows, columns), one logit per stride x stride pixels.
        stride: pixels per cell, a multiple of 4.
        num_expressions: of a clip, which are neighbours in the batch.
        num_rows: annotated rows, the divisor.
    """
    height, width = targets.masks.shape[-2:]
    if stride > MASK_STRIDE:
        logits = F.interpolate(logits, scale_factor=stride // MASK_STRIDE, mode="nearest")
    clips, objects = (
        x[..., :height, :width].flatten(1).unflatten(0, (-1, num_expressions))
        for x in (logits, targets.masks)
    )
    sizes = objects.sum(-1)
    shown = sizes > 0
    overlap = objects @ objects.transpose(1, 2)
    same = overlap > (sizes[:, :, None] + sizes[:, None]) / 3
    scores = clips @ objects.transpose(1, 2) / sizes.clamp(min=1)[:, None]
    lowest = torch.finfo(scores.dtype).min
    scores = scores.masked_fill(~shown[:, None], lowest)
    entropy = scores.logsumexp(-1) - scores.masked_fill(~same, lowest).logsumexp(-1)
    return torch.where(shown, entropy, 0.0).sum() / num_rows


def _check_sizes(prediction: ReferringPrediction, targets: ReferringTargets):
    predicted = (*prediction.masks.shape[:2], *prediction.masks.shape[3:])
    if targets.masks.shape != predicted:
        raise ValueError(
            "mask_labels must have the frames and the size of the pixels: at stride 4 they are "
            f"{tuple(targets.masks.shape)}, the predictions {predicted}."
        )


def proxyformer_loss(
    predictions: list[ReferringPrediction],
    targets: ReferringTargets,
    config: "ProxyFormerConfig",
    proxy_queries: Tensor,
    joint_embedding: Tensor | None = None,
    logit_scale: Tensor | None = None,
    selected_masks: Tensor | None = None,
    grounding_logits: Tensor | None = None,
    frame_mask: Tensor | None = None,
    num_expressions: int = 1,
    counts: LossCounts | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The training loss of a batch, in float32 whatever the autocast state.

    A row whose object is in no frame trains as "not referred": all its trajectories are negatives,
    the selected and grounding masks have empty targets (`config.absent_weight`), and every matched
    term is 0. Optional tensors that are None leave their terms out.

    Args:
        predictions: one per decoder layer, the final one last. The others are auxiliary: matched
            again, with the same terms and coefficients, and read only if `config.auxiliary_loss`.
        targets: from `prepare_targets`, a row per row of the predictions.
        config: holds the coefficients; a term whose coefficient is 0 is not computed.
        proxy_queries: (batch, num_frames, num_queries, hidden_size) of the last layer.
        joint_embedding: (batch, hidden_size), video and text semantics.
        logit_scale: (1,), log of JSC's inverse temperature.
        selected_masks: (batch, num_frames, height / 4, width / 4) logits of the model's answer.
        grounding_logits: (batch, num_frames, rows, columns) at `config.encoded_stride`.
        frame_mask: (batch, num_frames) bool, the frames that JSC averages. All by default.
        num_expressions: of a clip, which are neighbours in the batch.
        counts: divisors of the terms. By default those of the targets, averaged over processes if
            torch.distributed is initialised and gradients are enabled.

    Returns:
        The weighted sum; the unweighted, detached terms `loss_X` and, of layer i, `loss_X_aux_{i}`,
        where X is class, bbox, giou, mask, dice, jsc, selection, grounding or choice.

    Raises:
        ValueError: masks of targets and predictions differ in size.
    """
    final = predictions[-1]
    _check_sizes(final, targets)
    with torch.autocast(final.masks.device.type, enabled=False):
        num_visible, num_rows = _divisors(targets, counts)
        weights = _pixel_weights(targets, num_expressions, config.confusable_weight)
        row_weights = _row_weights(targets, config.absent_weight)
        losses, index = _trajectory_losses(final, targets, config, num_visible)
        if joint_embedding is not None and _coefficient(config, "jsc"):
            queries = _positive_queries(proxy_queries.float(), index, frame_mask)
            losses["jsc"] = _joint_semantic_consistency(
                queries, joint_embedding.float(), logit_scale.float(), targets.visible.any(dim=1)
            )
        if selected_masks is not None and _coefficient(config, "selection"):
            losses["selection"] = _selection_loss(
                selected_masks.float(), targets, weights, row_weights, num_rows
            )
        if grounding_logits is not None and _coefficient(config, "grounding"):
            losses["grounding"] = _grounding_loss(
                grounding_logits.float(),
                targets,
                weights,
                row_weights,
                config.encoded_stride,
                num_rows,
            )
        if _coefficient(config, "choice"):
            losses["choice"] = sum(
                _choice_loss(logits.float(), stride, targets, num_expressions, num_rows)
                for logits, stride in (
                    (selected_masks, MASK_STRIDE),
                    (grounding_logits, config.encoded_stride),
                )
                if logits is not None
            )
        layers = {"": losses}
        for i, auxiliary in enumerate(predictions[:-1] if config.auxiliary_loss else []):
            layers[f"_aux_{i}"], _ = _trajectory_losses(auxiliary, targets, config, num_visible)
    terms = [(*term, layer) for layer, losses in layers.items() for term in losses.items()]
    loss = sum(_coefficient(config, name) * value for name, value, _ in terms)
    return loss, {f"loss_{name}{layer}": value.detach() for name, value, layer in terms}
