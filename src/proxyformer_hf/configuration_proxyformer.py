# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""ProxyFormer model configuration."""

from typing import Literal

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

from .configuration_nanodet import NanoDetConfig

ROBERTA_BASE = {
    "vocab_size": 50265,
    "max_position_embeddings": 514,
    "type_vocab_size": 1,
    "layer_norm_eps": 1e-5,
}
RESNET_50 = {"backbone": "resnet50", "out_indices": [1, 2, 3, 4], "freeze_batch_norm_2d": True}


@strict
class ProxyFormerConfig(PreTrainedConfig):
    r"""
    Configuration of a ProxyFormer model. The defaults are the paper's model; each row of its
    ablation tables is one field away.

    Args:
        text_config (`dict | PreTrainedConfig`, *optional*):
            Any text encoder of transformers. Default: RoBERTa-base.
        vision_config (`dict | PreTrainedConfig`, *optional*):
            `VideoSwinConfig`, or `TimmBackboneConfig` for a network applied per frame. Default:
            ResNet-50 with frozen batch norm.
        hidden_size (`int`, defaults to 256): channels C of video, words and proxies.
        num_attention_heads (`int`, defaults to 8): heads of every attention.
        num_hidden_layers (`int`, defaults to 4): CMIE layers K (table VII).
        num_queries (`int`, defaults to 5): proxy queries N per frame (table VI).
        encoded_stride (`int`, defaults to 32): stride of the map that the layers encode: 8, 16, 32.
        mask_feature_size (`int`, defaults to 128): channels of the stride-4 mask features.
        vision_neck_size (`int`, defaults to 0): width of an image-level context neck
            (DeepLabV3's without dilated branches) on the encoded map; 0 is none, the paper.
        folded_batch_norm (`bool`, defaults to `False`):
            timm's frozen batch norms are part of the convolutions before them, as
            `scripts/package_checkpoint.py` leaves them: the same maps in two thirds of the time.
        temporal_convolution (`bool`, defaults to `False`):
            Add to each place of the encoded map a 3x3x3 convolution of its neighbourhood in time
            and space, once for all expressions: what moves where, which networks applied per frame
            do not see and the layers learn late.
        pixel_lateral (`bool`, defaults to `False`):
            Add to each cell of the map at stride 4 what two layers read of its 4x4 pixels, for
            outlines finer than the cells: networks may pool before their first map.
        interaction (`str`, defaults to "decoupled"):
            "decoupled" attends over space and over time apart, the paper; "full" attends over all
            tokens of a clip (tables IV (3), VIII (d)); "direct" lets video and words attend to each
            other without proxies (VIII (b)); "conditional" has no interaction encoder, queries
            conditioned on the sentence are decoded from the video (IV (1)). The last two decode
            their queries from the video in `num_hidden_layers` decoder layers.
        proxy_to_video (`bool`, defaults to `True`): the P2V attention (off: table IV (4)).
        detector_config (`dict | NanoDetConfig`, *optional*):
            A detector that stays as it is and is read beside the vision backbone: its features are
            added to the encoded map, and to each place the words for the classes seen there, so
            that what it knows need not be learned from expressions. The words are encoded once, by
            [`ProxyFormerModel.read_class_names`], with a frozen text encoder. Default: none.
        classifier_config (`dict | TimmWrapperConfig`, *optional*):
            An image classifier of timm's that stays as it is and is read at each place of the
            frames. Its features are added to the encoded map, and the grounding map compares the
            sentence with the names of the kinds of things that a place looks like: with ImageNet's
            thousand, many that no training expression has. Default: none.
        early_fusion (`bool`, defaults to `False`):
            Multiply the video features by words attended to, before the layers, as the baseline.
        lexical_words (`bool`, defaults to `False`):
            Add the text encoder's input word embeddings to its output. Contexts make a frozen
            encoder's "left" and "right" nearly alike; their embeddings are not.
        lexical_dropout (`float`, defaults to 0.0):
            Probability that a word lacks its input embedding in training, so that words which were
            never trained, known by their context alone, are no surprise.
        text_to_video (`bool`, defaults to `False`): video tokens attend to words in each layer.
        grounding_map (`bool`, defaults to `False`):
            Add a supervised sentence-to-pixel similarity to the video features before the layers.
        frozen_grounding (`bool`, defaults to `False`):
            The grounding map also compares places with the sentence as the text encoder reads it,
            and the detector's classes with it by their names. Nothing is learned on the side of the
            words, so that those never heard in training lie near their kin. It needs
            `grounding_map`, and makes sense with a frozen text encoder.
        soft_selection (`bool`, defaults to `False`):
            Mix the proxies' masks and boxes by the softmax of their class logits, and supervise the
            mixture, instead of taking the best proxy's.
        single_region (`bool`, defaults to `False`):
            Of the connected regions of the answer's mask in a frame only the surest is kept (not in
            training): right where expressions name one object, wrong for "both swans".
        short_clip_scales (`list[float]`, *optional*):
            The pipeline sees a clip of a few frames, as a picture is, at these multiples of its
            size and takes the mean of the masks' logits; once, at its size, by default.
        class_contrast (`float`, defaults to 0.0):
            Of a clip of a few frames the pipeline also asks for the detector's class whose name is
            nearest to the expression, and adds this many times the difference to the logits of the
            expression's mask: what all people have in common tells none of them from the others.
        intermediate_size (`int`, defaults to 0): feed-forward width; 0 is none, the paper's figure.
        pre_norm (`bool`, defaults to `False`): normalise before each sub-layer instead of after.
        jsc_semantics (`str`, defaults to "both"):
            What Joint Semantic Consistency aligns the proxies with (table V): "none", "video",
            "text" or "both".
        auxiliary_loss (`bool`, defaults to `True`): supervise the proxies of earlier layers too.
        freeze_text (`bool`, defaults to `False`): no gradient and no dropout in the text encoder.
        class_loss_coefficient, bbox_loss_coefficient, giou_loss_coefficient,
        mask_loss_coefficient, dice_loss_coefficient (`float`):
            Weights of class focal, L1, GIoU, mask focal and dice in matching cost and loss
            (the baseline's 2, 5, 2, 2, 5).
        jsc_loss_coefficient, selection_loss_coefficient, grounding_loss_coefficient (`float`):
            Weights of the terms that do not take part in the matching.
        choice_loss_coefficient (`float`, defaults to 0.0):
            Weight of a cross-entropy, of the answer and of the grounding map, between the objects
            that the expressions of a clip describe; it needs several expressions of a clip.
        confusable_weight (`float`, defaults to 1.0):
            Weight, in the cross-entropies of selection and grounding, of a pixel that another
            expression of the clip describes: small, and what the words must tell apart.
        absent_weight (`float`, defaults to 1.0):
            Weight, in the terms of selection and grounding, of an expression whose object is in no
            frame. With 0 the score alone learns to tell that: masks that learn to be empty are so
            for unknown words as well.
        score_scale, score_offset (`float`, default to 1.0 and 0.0):
            Calibrate the score: the best trajectory's class logit is multiplied and shifted, so
            that the score is the share of such expressions whose object is shown.
        initializer_range (`float`, defaults to 0.02): deviation of the learned queries.
    """

    model_type = "proxyformer"
    sub_configs_defaults = {
        "text_config": SubConfigSpec(
            config_class=AutoConfig, model_type="roberta", init_kwargs=ROBERTA_BASE
        ),
        "vision_config": SubConfigSpec(
            config_class=AutoConfig, model_type="timm_backbone", init_kwargs=RESNET_50
        ),
    }

    text_config: dict | PreTrainedConfig | None = None
    vision_config: dict | PreTrainedConfig | None = None
    detector_config: dict | NanoDetConfig | None = None
    classifier_config: dict | PreTrainedConfig | None = None
    hidden_size: int = 256
    num_attention_heads: int = 8
    num_hidden_layers: int = 4
    num_queries: int = 5
    encoded_stride: int = 32
    mask_feature_size: int = 128
    vision_neck_size: int = 0
    folded_batch_norm: bool = False
    temporal_convolution: bool = False
    pixel_lateral: bool = False
    interaction: Literal["decoupled", "full", "direct", "conditional"] = "decoupled"
    proxy_to_video: bool = True
    early_fusion: bool = False
    lexical_words: bool = False
    lexical_dropout: float | int = 0.0
    text_to_video: bool = False
    grounding_map: bool = False
    frozen_grounding: bool = False
    soft_selection: bool = False
    single_region: bool = False
    short_clip_scales: list[float | int] | None = None
    class_contrast: float | int = 0.0
    intermediate_size: int = 0
    pre_norm: bool = False
    jsc_semantics: Literal["none", "video", "text", "both"] = "both"
    auxiliary_loss: bool = True
    freeze_text: bool = False
    class_loss_coefficient: float | int = 2.0
    bbox_loss_coefficient: float | int = 5.0
    giou_loss_coefficient: float | int = 2.0
    mask_loss_coefficient: float | int = 2.0
    dice_loss_coefficient: float | int = 5.0
    jsc_loss_coefficient: float | int = 1.0
    selection_loss_coefficient: float | int = 5.0
    grounding_loss_coefficient: float | int = 2.0
    choice_loss_coefficient: float | int = 0.0
    confusable_weight: float | int = 1.0
    absent_weight: float | int = 1.0
    score_scale: float | int = 1.0
    score_offset: float | int = 0.0
    initializer_range: float | int = 0.02

    def __post_init__(self, **kwargs):
        if isinstance(self.detector_config, dict):
            self.detector_config = NanoDetConfig(**self.detector_config)
        if isinstance(self.classifier_config, dict):
            from transformers import TimmWrapperConfig  # imports timm, which is slow

            self.classifier_config = TimmWrapperConfig.from_dict(self.classifier_config)
        super().__post_init__(**kwargs)

    @classmethod
    def from_dict(cls, config_dict: dict, **kwargs):
        """Refuses the configuration of another kind of model, which would give random weights."""
        model_type = config_dict.get("model_type", cls.model_type)
        if model_type != cls.model_type:
            raise ValueError(
                f"This is a checkpoint of model type '{model_type}', not '{cls.model_type}'; load "
                "it with its own class or with AutoModel."
            )
        if isinstance(kwargs.get("detector_config"), dict):  # replaces the field as it is
            kwargs["detector_config"] = NanoDetConfig(**kwargs["detector_config"])
        return super().from_dict(config_dict, **kwargs)

    def validate_architecture(self):
        """Raises `ValueError` naming the field when a value or a combination is impossible."""
        super().validate_architecture()
        positive = ("hidden_size", "num_attention_heads", "num_hidden_layers", "num_queries")
        for name in (*positive, "mask_feature_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}.")
        coefficients = [name for name in vars(self) if name.endswith("_loss_coefficient")]
        coefficients += ["absent_weight", "class_contrast"]
        for name in (*coefficients, "intermediate_size", "vision_neck_size"):
            if getattr(self, name) < 0:
                raise ValueError(f"`{name}` must not be negative, got {getattr(self, name)}.")
        for name in ("confusable_weight", "score_scale"):
            if getattr(self, name) <= 0:
                raise ValueError(f"`{name}` must be positive, got {getattr(self, name)}.")
        scales = self.short_clip_scales
        if scales is not None and not (scales and min(scales) > 0):
            raise ValueError(f"`short_clip_scales` must be positive numbers, got {scales}.")
        if self.choice_loss_coefficient and not (self.soft_selection or self.grounding_map):
            raise ValueError(
                "`choice_loss_coefficient` needs `soft_selection` or `grounding_map`, whose maps "
                "it is taken of."
            )
        if self.frozen_grounding and not self.grounding_map:
            raise ValueError("`frozen_grounding` needs `grounding_map`, which it is a part of.")
        if not 0 <= self.lexical_dropout < 1:
            raise ValueError(f"`lexical_dropout` must lie in [0, 1), got {self.lexical_dropout}.")
        if self.hidden_size % self.num_attention_heads or self.hidden_size % 4:
            raise ValueError(
                f"`hidden_size` ({self.hidden_size}) must be a multiple of `num_attention_heads` "
                f"({self.num_attention_heads}) and of 4, which the 2-D sine positions need."
            )
        if self.encoded_stride not in (8, 16, 32):
            raise ValueError(f"`encoded_stride` must be 8, 16 or 32, got {self.encoded_stride}.")
        if self.detector_config is not None and not self.freeze_text:
            raise ValueError(
                "`detector_config` needs `freeze_text=True`: the words for its classes are encoded "
                "once."
            )
        if self.classifier_config is not None and not (self.freeze_text and self.frozen_grounding):
            raise ValueError(
                "`classifier_config` needs `freeze_text=True` and `frozen_grounding=True`: the "
                "grounding map compares a sentence with the names of its classes, encoded once."
            )
        if self.interaction in ("direct", "conditional"):
            if not self.proxy_to_video:
                raise ValueError(
                    "`proxy_to_video=False` has no meaning with `interaction="
                    f"'{self.interaction}'`: no proxy takes part in it."
                )
            if self.text_to_video:
                raise ValueError(
                    "`text_to_video` belongs to the CMIE layers; `interaction="
                    f"'{self.interaction}'` has none ('direct' always attends to the words)."
                )
