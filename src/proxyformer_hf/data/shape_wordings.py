# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""The words of moving-shapes expressions: synonyms of attributes and wordings of facts."""

import re

import numpy as np

ATTRIBUTES = ("size", "color", "texture", "shape")  # in the order of their words
ANY_SHAPE = ("object", "shape", "thing")  # nouns where the shape is not said
SYNONYMS: dict[str, tuple[str, ...]] = {
    "small": ("small", "little", "tiny"),
    "large": ("large", "big"),
    "red": ("red",),
    "orange": ("orange",),
    "yellow": ("yellow",),
    "green": ("green",),
    "blue": ("blue",),
    "purple": ("purple", "violet"),
    "pink": ("pink",),
    "cyan": ("cyan", "turquoise"),
    "white": ("white",),
    "black": ("black",),
    "plain": ("plain", "unpatterned"),
    "striped": ("striped", "stripy"),
    "dotted": ("dotted", "spotted"),
    "circle": ("circle", "disc"),
    "square": ("square",),
    "triangle": ("triangle",),
    "star": ("star",),
    "diamond": ("diamond", "rhombus"),
    "hexagon": ("hexagon",),
    "cross": ("cross", "plus sign"),
    "ring": ("ring", "hoop"),
    "heart": ("heart",),
}
AFTER_NOUN = {  # of textures: said after the noun instead of before it
    "plain": ("without a pattern",),
    "striped": ("with stripes",),
    "dotted": ("with dots", "with spots"),
}
# What an expression says -> wordings. {n} is the object and {a} the other one of a relation.
WORDINGS: dict[str, tuple[str, ...]] = {
    "": ("the {n}",),
    "leftmost": (
        "the leftmost {n}",
        "the {n} on the far left",
        "the first {n} from the left",
        "the {n} farthest to the left",
    ),
    "rightmost": (
        "the rightmost {n}",
        "the {n} on the far right",
        "the first {n} from the right",
        "the {n} farthest to the right",
    ),
    "topmost": ("the topmost {n}", "the highest {n}", "the {n} nearest to the top"),
    "bottommost": ("the bottommost {n}", "the lowest {n}", "the {n} nearest to the bottom"),
    "second from the left": (
        "the second {n} from the left",
        "the {n} that is second from the left",
    ),
    "second from the right": (
        "the second {n} from the right",
        "the {n} that is second from the right",
    ),
    "second from the top": ("the second {n} from the top", "the {n} that is second from the top"),
    "middle": (
        "the middle {n} from left to right",
        "the middle {n} of the three from left to right",
    ),
    "left side": (
        "the {n} on the left side of the picture",
        "the {n} in the left part of the picture",
        "the {n} at the left side of the frame",
    ),
    "right side": (
        "the {n} on the right side of the picture",
        "the {n} in the right part of the picture",
        "the {n} at the right side of the frame",
    ),
    "top": ("the {n} at the top of the picture", "the {n} in the upper part of the frame"),
    "bottom": ("the {n} at the bottom of the picture", "the {n} in the lower part of the frame"),
    "top left": ("the {n} in the top left", "the {n} in the upper left corner"),
    "top right": ("the {n} in the top right", "the {n} in the upper right corner"),
    "bottom left": ("the {n} in the bottom left", "the {n} in the lower left corner"),
    "bottom right": ("the {n} in the bottom right", "the {n} in the lower right corner"),
    "center": ("the {n} in the center of the picture", "the {n} in the middle of the frame"),
    "left of": (
        "the {n} to the left of {a}",
        "the {n} left of {a}",
        "the {n} on the left of {a}",
        "the {n} that is to the left of {a}",
    ),
    "right of": (
        "the {n} to the right of {a}",
        "the {n} right of {a}",
        "the {n} on the right of {a}",
        "the {n} that is to the right of {a}",
    ),
    "above": ("the {n} above {a}", "the {n} that is above {a}", "the {n} located above {a}"),
    "below": ("the {n} below {a}", "the {n} that is below {a}", "the {n} located below {a}"),
    "closest to": ("the {n} closest to {a}", "the {n} nearest to {a}", "the {n} next to {a}"),
    "behind": (
        "the {n} behind {a}",
        "the {n} partly hidden by {a}",
        "the {n} that {a} partly covers",
    ),
    "in front of": (
        "the {n} in front of {a}",
        "the {n} that hides a part of {a}",
        "the {n} partly covering {a}",
    ),
    "moving left": (
        "the {n} moving left",
        "the {n} moving to the left",
        "the {n} that goes left",
        "the {n} heading left",
        "the {n} that travels from right to left",
    ),
    "moving right": (
        "the {n} moving right",
        "the {n} moving to the right",
        "the {n} that goes right",
        "the {n} heading right",
        "the {n} that travels from left to right",
    ),
    "moving up": ("the {n} moving up", "the {n} going upwards", "the {n} that rises"),
    "moving down": ("the {n} moving down", "the {n} going downwards", "the {n} that sinks"),
    "moving up left": ("the {n} moving up and to the left", "the {n} going to the upper left"),
    "moving up right": ("the {n} moving up and to the right", "the {n} going to the upper right"),
    "moving down left": ("the {n} moving down and to the left", "the {n} going to the lower left"),
    "moving down right": (
        "the {n} moving down and to the right",
        "the {n} going to the lower right",
    ),
    "moving diagonally": ("the {n} moving diagonally", "the {n} that goes diagonally"),
    "moving": ("the moving {n}", "the {n} that moves", "the {n} on the move"),
    "still": (
        "the still {n}",
        "the {n} that stays where it is",
        "the {n} that does not move",
        "the motionless {n}",
    ),
    "swaying": ("the {n} moving back and forth", "the {n} that goes there and back"),
    "enter": ("the {n} that enters", "the {n} coming into the picture", "the {n} that appears"),
    "enter left": ("the {n} that enters from the right", "the {n} coming in from the right"),
    "enter right": ("the {n} that enters from the left", "the {n} coming in from the left"),
    "enter up": ("the {n} that enters from below", "the {n} coming in from the bottom"),
    "enter down": ("the {n} that enters from above", "the {n} coming in from the top"),
    "leave": ("the {n} that leaves", "the {n} going out of the picture", "the {n} that disappears"),
    "leave left": ("the {n} that leaves on the left", "the {n} going out to the left"),
    "leave right": ("the {n} that leaves on the right", "the {n} going out to the right"),
    "leave up": ("the {n} that leaves at the top", "the {n} going out at the top"),
    "leave down": ("the {n} that leaves at the bottom", "the {n} going out at the bottom"),
    "stop": ("the {n} that stops", "the {n} that moves and then stands still"),
    "start": ("the {n} that starts to move", "the {n} that stands still and then moves"),
    "zigzag": ("the {n} moving in a zigzag", "the zigzagging {n}"),
    "circle": ("the circling {n}", "the {n} moving round in a circle"),
    "grow": ("the {n} that grows", "the growing {n}", "the {n} getting bigger"),
    "shrink": ("the {n} that shrinks", "the shrinking {n}", "the {n} getting smaller"),
    "rotate": (
        "the {n} that rotates",
        "the rotating {n}",
        "the spinning {n}",
    ),
    "fastest": ("the fastest {n}", "the {n} that moves fastest"),
    "slowest": ("the slowest {n}", "the {n} that moves slowest"),
}


def word_expression(
    rng: np.random.Generator,
    said: dict[str, str],
    fact: str,
    anchor: dict[str, str] | None = None,
) -> str:
    """One of the wordings, in lower case, of the attributes said of an object and a fact (a key of
    `WORDINGS`), and of the attributes of the fact's other object."""
    wording = _pick(rng, WORDINGS[fact])
    text = wording.format(n=_noun(rng, said), a=anchor and f"the {_noun(rng, anchor)}")
    return text.removeprefix("the ") if rng.random() < 0.1 else text


def vocabulary() -> list[str]:
    """Every word that an expression may hold, sorted."""
    texts = [*ANY_SHAPE]
    for table in (SYNONYMS, AFTER_NOUN, WORDINGS):
        texts += [text for wordings in table.values() for text in wordings]
    return sorted(set(re.findall(r"[a-z]+(?![a-z}])", " ".join(texts))))


def _noun(rng: np.random.Generator, said: dict[str, str]) -> str:
    """The noun with its attributes, such as "small red circle with stripes"."""
    words = [_pick(rng, SYNONYMS[said[name]]) for name in ATTRIBUTES if name in said]
    if "shape" not in said:
        words.append(_pick(rng, ANY_SHAPE))
    if "texture" in said and rng.random() < 0.4:
        words = [word for word in words if word not in SYNONYMS[said["texture"]]]
        words.append(_pick(rng, AFTER_NOUN[said["texture"]]))
    return " ".join(words)


def _pick(rng: np.random.Generator, texts: tuple[str, ...]) -> str:
    return texts[rng.integers(len(texts))]
