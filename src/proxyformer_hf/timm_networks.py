# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""timm's networks as ProxyFormer uses them: norms folded, and a classifier read at each place."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModelForImageClassification, PreTrainedConfig, PreTrainedModel

STRIDE = 32  # of the last map of the networks in use
VIEW = 2 / 3  # of the frames' size: classifiers know whole things, and it costs half as much


class ProxyFormerClassifier(nn.Module):
    """A frozen image classifier without its pooling: what it makes of each place of a frame.

    It is one of timm's networks whose last map, of stride 32, is averaged and classified by one
    linear layer, as an EfficientNet. Its batch norms are folded into its convolutions.
    """

    def __init__(self, config: PreTrainedConfig):
        super().__init__()
        # not from_config, which would take the config's dtype for that of the whole model
        kind = AutoModelForImageClassification._model_mapping[type(config)]
        self.network = fold(kind(config).timm_model)
        self.num_features = self.network.num_features

    def load(self, classifier: PreTrainedModel) -> None:
        """Takes the weights of a `TimmWrapperForImageClassification`, which is folded."""
        self.network.load_state_dict(fold(classifier.timm_model).state_dict())

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Of normalised frames (n, 3, h, w), multiples of 32: features (n, C, h/32, w/32), and
        logits (n, num_labels, h/32, w/32) less their mean over classes, about 0 where nothing is
        seen."""
        height, width = (max(round(VIEW * side / STRIDE), 1) * STRIDE for side in frames.shape[-2:])
        # torch has no such resizing in bfloat16 on a CPU
        exact = frames.to(torch.promote_types(frames.dtype, torch.float32))
        smaller = F.interpolate(exact, (height, width), mode="bilinear", antialias=True)
        features = self.network.forward_features(smaller.to(frames.dtype))
        places = features.movedim(1, -1).contiguous()  # in bfloat16 thirty times as fast
        logits = self.network.get_classifier()(places)
        logits = (logits - logits.mean(-1, keepdim=True)).movedim(-1, 1)
        grid = [side // STRIDE for side in frames.shape[-2:]]
        features, logits = (F.interpolate(x, grid, mode="bilinear") for x in (features, logits))
        return features, logits


def fold(network: nn.Module) -> nn.Module:
    """The network with its batch norms frozen and folded; it is changed."""
    from timm.layers import freeze_batch_norm_2d  # slow to import, and only classifiers need it

    network = freeze_batch_norm_2d(network)
    fold_batch_norms(network)
    return network


@torch.no_grad()
def fold_batch_norms(network: nn.Module) -> None:
    """Merges timm's frozen batch norms into the convolutions that stand before them in a module,
    whose bias they become: the same maps without the norms' passes over each."""
    from timm.layers import FrozenBatchNormAct2d  # the network has imported it

    for parent in list(network.modules()):
        for (_, conv), (name, norm) in pairwise(list(parent.named_children())):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, FrozenBatchNormAct2d):
                scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
                before = 0 if conv.bias is None else conv.bias
                conv.weight = nn.Parameter(conv.weight * scale[:, None, None, None])
                conv.bias = nn.Parameter((before - norm.running_mean) * scale + norm.bias)
                setattr(parent, name, norm.act)
