# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""Push a trained model, with its processor and model card, to the Hub.

python scripts/push_to_hub.py runs/ref_youtube_vos/model me/proxyformer-ref-youtube-vos \\
    --scores outputs/ytvos/scores-published.json --scores outputs/davis/scores-published.json
"""

from pathlib import Path
from typing import Annotated

import typer

from proxyformer_hf.hub import HubError, push
from proxyformer_hf.model_card import write_model_card


def main(
    folder: Annotated[Path, typer.Argument(help="the model/ folder of a training")],
    repo_id: Annotated[str, typer.Argument(help="owner/name on the Hub")],
    scores: Annotated[
        list[Path] | None,
        typer.Option(
            help="scores-*.json of `proxyformer evaluate` about this model, for a new model card; "
            "may be given several times. Without it the card in the folder is taken."
        ),
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="if the repository is new")] = False,
) -> None:
    try:
        if scores:
            write_model_card(folder, repo_id, scores=scores)
        url = push(folder, repo_id, private)
    except (ValueError, HubError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    typer.echo(url)


if __name__ == "__main__":
    typer.run(main)
