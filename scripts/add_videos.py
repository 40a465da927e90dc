# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""A data folder of data/sources.py, and more videos.

    python scripts/add_videos.py ../shared/data runs/data --videos ponies --videos streets

Each folder of videos has JPEGImages/NAME/FRAME.jpg, Annotations/NAME/FRAME.png (the object where it
is not 0) and meta_expressions.json in the form of Ref-YouTube-VOS, with "content" beside "frames"
and "expressions": what the object consists of and what else is shown, as [["horse"], ["person"]].
Expressions "0" and "1" describe the first frame, "2", "3" and from "5" on the whole video, "4" is a
short noun phrase.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from data_folder import FRAME_FOLDERS, extended

from proxyformer_hf.data.sources import NOUN_PHRASE

SUFFIXES = (".jpg", ".png")  # of frames and their masks


def check_video(folder: Path, name: str, video: dict[str, Any]) -> None:
    """Raises ValueError where something is missing."""
    targets, _ = video["content"]
    if not targets:
        raise ValueError(f'{name}: "content" does not say what the object is')
    if missing := {str(k) for k in range(NOUN_PHRASE + 1)} - video["expressions"].keys():
        raise ValueError(f"{name} has no expression {', '.join(sorted(missing))}")
    for kind, suffix in zip(FRAME_FOLDERS, SUFFIXES, strict=True):
        for frame in video["frames"]:
            if not (folder / kind / name / (frame + suffix)).is_file():
                raise ValueError(f"{name} has no {kind}/{name}/{frame}{suffix}")


def main(
    source: Annotated[
        Path, typer.Argument(help="Data folder to add to; it stays as it is.", exists=True)
    ],
    output: Annotated[Path, typer.Argument(help="The new data folder, links to the frames.")],
    videos: Annotated[list[Path], typer.Option(help="Folder of videos.", exists=True)],
) -> None:
    with extended(source, output) as data:
        known = data.videos["videos"]
        for folder in videos:
            try:
                more = json.loads((folder / "meta_expressions.json").read_text())["videos"]
                for name, video in more.items():
                    if name in known:
                        raise ValueError(f"there is a video {name} already")
                    check_video(folder, name, video)
                    known[name] = video | {"root": str(folder.resolve())}
            except (AttributeError, KeyError, OSError, TypeError, ValueError) as error:
                raise typer.BadParameter(
                    f"{folder} is not a folder of videos: {type(error).__name__} {error}"
                ) from error


if __name__ == "__main__":
    typer.run(main)
