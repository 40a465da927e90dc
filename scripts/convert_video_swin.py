# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""Official Video-Swin or torchvision Swin3D weights -> a folder that VideoSwinBackbone loads.

python scripts/convert_video_swin.py swin_tiny_patch244_window877_kinetics400_1k.pth outputs/swin_t
python scripts/convert_video_swin.py Swin3D_B_Weights.KINETICS400_IMAGENET22K_V1 outputs/swin_b
"""

from pathlib import Path
from typing import Annotated

import typer

from proxyformer_hf.modeling_video_swin import read_original_video_swin, video_swin_from_original


def main(
    source: Annotated[
        str, typer.Argument(help="A local .pth file, or torchvision's name for weights.")
    ],
    output: Annotated[Path, typer.Argument(help="Folder for config.json and model.safetensors.")],
    window_size: Annotated[
        tuple[int, int, int] | None,
        typer.Option(help="Frames, rows, columns of the original windows.", show_default="8 7 7"),
    ] = None,
) -> None:
    """Convert the weights SOURCE into the folder OUTPUT."""
    fields = {} if window_size is None else {"window_size": window_size}
    try:
        model = video_swin_from_original(read_original_video_swin(source), **fields)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    model.save_pretrained(output)
    typer.echo(f"{output}: {model.num_parameters()} parameters, depths {model.config.depths}")


if __name__ == "__main__":
    typer.run(main)
