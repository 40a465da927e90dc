# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""Video Swin Transformer configuration."""

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig
from transformers.backbone_utils import BackboneConfigMixin

# The field defaults are Tiny; the other sizes of the paper's table change only this.
PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {},
    "small": {"depths": (2, 2, 18, 2)},
    "base": {"embed_dim": 128, "depths": (2, 2, 18, 2), "num_heads": (4, 8, 16, 32)},
}


@strict
class VideoSwinConfig(BackboneConfigMixin, PreTrainedConfig):
    r"""
    Configuration of a [`VideoSwinBackbone`] (Liu et al., *Video Swin Transformer*, CVPR 2022).
    The defaults are Video-Swin-Tiny; [`VideoSwinConfig.from_preset`] gives the other sizes.

    Args:
        num_channels (`int`, defaults to 3): Colour channels of a frame.
        embed_dim (`int`, defaults to 96): Channels of the first stage; later stages double them.
        depths (`tuple[int, ...]`, defaults to `(2, 2, 6, 2)`): Layers of each stage.
        num_heads (`tuple[int, ...]`, defaults to `(3, 6, 12, 24)`): Attention heads of each stage.
        patch_size (`tuple[int, int, int]`, defaults to `(1, 4, 4)`):
            Frames, rows and columns of a patch. One frame: every frame keeps its own features.
        window_size (`tuple[int, int, int]`, defaults to `(8, 7, 7)`):
            Frames, rows and columns of an attention window.
        mlp_ratio (`float`, defaults to 4.0): Width of the feed-forward network over its input's.
        qkv_bias (`bool`, defaults to `True`): Whether queries, keys and values have a bias.
        drop_path_rate (`float`, defaults to 0.2):
            Stochastic depth of the last layer, in [0, 1); it grows linearly from 0 at the first.
        layer_norm_eps (`float`, defaults to 1e-5): Epsilon of the layer normalisations.
        initializer_range (`float`, defaults to 0.02): Standard deviation of the initial weights.
        out_features (`list[str]`, *optional*), out_indices (`list[int]`, *optional*):
            Which of `stage_names` become feature maps; all stages but the stem when neither is
            passed, the last stage when both are passed as `None`.

    Raises:
        StrictDataclassError, or ValueError for the outputs and presets: names the field.
    """

    model_type = "video_swin"
    attribute_map = {"num_attention_heads": "num_heads"}

    num_channels: int = 3
    embed_dim: int = 96
    depths: list[int] | tuple[int, ...] = (2, 2, 6, 2)
    num_heads: list[int] | tuple[int, ...] = (3, 6, 12, 24)
    patch_size: list[int] | tuple[int, int, int] = (1, 4, 4)
    window_size: list[int] | tuple[int, int, int] = (8, 7, 7)
    mlp_ratio: float | int = 4.0
    qkv_bias: bool = True
    drop_path_rate: float | int = 0.2
    layer_norm_eps: float = 1e-5
    initializer_range: float = 0.02
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

    @classmethod
    def from_preset(cls, name: str, **kwargs) -> "VideoSwinConfig":
        """The `"tiny"`, `"small"` or `"base"` model of the paper; `kwargs` override its fields."""
        if name not in PRESETS:
            raise ValueError(
                f"Unknown Video Swin preset {name!r}: expected one of {list(PRESETS)}."
            )
        return cls(**{**PRESETS[name], **kwargs})

    @property
    def stage_names(self) -> list[str]:
        return ["stem"] + [f"stage{index}" for index in range(1, len(self.depths) + 1)]

    @property
    def num_hidden_layers(self) -> int:
        """Number of stages: a model has `num_hidden_layers + 1` hidden states."""
        return len(self.depths)

    @property
    def hidden_size(self) -> int:
        """Channels of the last stage."""
        return self.embed_dim * 2 ** (len(self.depths) - 1)

    def validate_architecture(self):
        """Called by the `strict` decorator after construction."""
        for field in ("num_channels", "embed_dim", "mlp_ratio", "layer_norm_eps"):
            if getattr(self, field) <= 0:
                raise ValueError(f"`{field}` must be positive, got {getattr(self, field)}.")
        for field in ("depths", "num_heads", "patch_size", "window_size"):
            value = getattr(self, field)
            if not value or min(value) < 1:
                raise ValueError(f"`{field}` must hold positive integers, got {value}.")
        for field in ("patch_size", "window_size"):
            value = getattr(self, field)
            if len(value) != 3:
                raise ValueError(f"`{field}` must be (frames, rows, columns), got {value}.")
        if self.patch_size[0] != 1:
            raise ValueError(
                f"`patch_size` must span one frame, as every frame keeps its own features; got "
                f"{self.patch_size}."
            )
        if len(self.num_heads) != len(self.depths):
            raise ValueError(
                f"`num_heads` must give one number per stage of `depths` {self.depths}, got "
                f"{self.num_heads}."
            )
        for stage, heads in enumerate(self.num_heads):
            channels = self.embed_dim * 2**stage
            if channels % heads:
                raise ValueError(
                    f"`num_heads` {self.num_heads}: {heads} heads do not divide the {channels} "
                    f"channels of stage {stage + 1}."
                )
        if not 0 <= self.drop_path_rate < 1:
            raise ValueError(f"`drop_path_rate` must be in [0, 1), got {self.drop_path_rate}.")


__all__ = ["VideoSwinConfig"]
