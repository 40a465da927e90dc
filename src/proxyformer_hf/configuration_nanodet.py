# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""NanoDet-g backbone configuration."""

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig
from transformers.backbone_utils import BackboneConfigMixin


@strict
class NanoDetConfig(BackboneConfigMixin, PreTrainedConfig):
    r"""
    Configuration of a [`NanoDetBackbone`]; the defaults are those of NanoDet-g. The names of the
    detector's classes are `id2label`, of every PreTrainedConfig.

    Args:
        num_channels (`int`, defaults to 3): of the pixels.
        stem_size (`int`, defaults to 32): channels at stride 4; each stage doubles them.
        depths (`list[int]`, defaults to `[1, 2, 2, 3]`):
            Residual blocks per stage. The stages have strides 4, 8, 16 and 32; the last, with two
            thirds of the parameters, can be left out.
        neck_size (`int`, defaults to 128): channels of the path aggregation and of the heads.
        reg_max (`int`, defaults to 10): a box side is a distribution over 0 to `reg_max` strides.
        out_features, out_indices (*optional*): of `stem` and `stage1` to `stage4`; all stages by
            default.
    """

    model_type = "nanodet"

    num_channels: int = 3
    stem_size: int = 32
    depths: list[int] | tuple[int, ...] = (1, 2, 2, 3)
    neck_size: int = 128
    reg_max: int = 10
    _out_features: list[str] | None = None
    _out_indices: list[int] | None = None

    def __post_init__(self, **kwargs):
        if "out_features" not in kwargs and "out_indices" not in kwargs:
            kwargs["out_features"] = self.stage_names[1:]
        self.set_output_features_output_indices(
            out_indices=kwargs.pop("out_indices", None),
            out_features=kwargs.pop("out_features", None),
        )
        super().__post_init__(**kwargs)

    @property
    def stage_names(self) -> list[str]:
        return ["stem"] + [f"stage{index}" for index in range(1, len(self.depths) + 1)]

    def validate_architecture(self):
        """Called by the `strict` decorator after construction."""
        for field in ("num_channels", "stem_size", "neck_size", "reg_max"):
            if getattr(self, field) < 1:
                raise ValueError(f"`{field}` must be positive, got {getattr(self, field)}.")
        if self.stem_size % 2:
            raise ValueError(f"`stem_size` must be even, got {self.stem_size}.")
        if len(self.depths) not in (3, 4) or min(self.depths) < 1:
            raise ValueError(
                f"`depths` must hold three or four positive integers, got {self.depths}."
            )


__all__ = ["NanoDetConfig"]
