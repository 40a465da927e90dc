# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""A reader of moving-shapes expressions that knows English and looks at masks alone.

It shares nothing with the package but the attributes of the objects: where something is, how it
moves and what hides what is measured in the silhouettes and in the map of a video.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from proxyformer_hf.data.moving_shapes import ShapesVideo

WORDS = {
    "size": {"small": "small little tiny", "large": "large big"},
    "color": {"purple": "purple violet", "cyan": "cyan turquoise"}
    | {name: name for name in "red orange yellow green blue pink white black".split()},
    "texture": {
        "plain": "plain|unpatterned|without a pattern",
        "striped": "striped|stripy|with stripes",
        "dotted": "dotted|spotted|with dots|with spots",
    },
    "shape": {"circle": "circle|disc", "diamond": "diamond|rhombus"}
    | {"cross": "cross|plus sign", "ring": "ring|hoop"}
    | {name: name for name in "square triangle star hexagon heart".split()},
}
NOUNS = ("object", "shape", "thing")


@dataclass
class Track:
    """What the masks of one object show."""

    attributes: dict[str, str]
    seen: np.ndarray  # bool (T, height, width)
    alone: np.ndarray  # bool (T, height, width), as if nothing hid it

    def __post_init__(self):
        self.side = min(self.seen.shape[1:])
        self.shown = self.seen.any((1, 2))
        self.center = np.array([center(mask) for mask in self.seen])
        self.way = np.array([center(mask) for mask in self.alone if mask.any()])
        self.area = self.alone.sum((1, 2))

    def share(self) -> np.ndarray:
        """Centres (x, y) as shares of the picture, in the frames where it is seen."""
        height, width = self.seen.shape[1:]
        return self.center[self.shown] / [width, height]


def center(mask: np.ndarray) -> tuple[float, float]:
    rows, columns = np.nonzero(mask)
    return (columns.mean() + 0.5, rows.mean() + 0.5) if len(rows) else (np.nan, np.nan)


def tracks(video: ShapesVideo) -> list[Track]:
    silhouettes = video.scene.silhouettes(range(video.scene.num_frames))
    return [
        Track(
            {name: getattr(o, name) for name in WORDS},
            video.object_map == i + 1,
            silhouettes[i],
        )
        for i, o in enumerate(video.scene.objects)
    ]


def strip_attributes(noun: str) -> tuple[dict[str, str], str]:
    """The attributes that a noun phrase tells and what is left of it, which should be nothing."""
    told = {}
    for name, values in WORDS.items():
        for value, words in values.items():
            pattern = "|".join(words.split("|") if "|" in words else words.split())
            noun, count = re.subn(rf"\b({pattern})\b", "", noun)
            if count:
                told[name] = value
    return told, " ".join(word for word in noun.split() if word not in NOUNS)


def holders(noun: str, scene: list[Track]) -> list[int]:
    """Objects that a noun phrase may be said of."""
    told, rest = strip_attributes(noun)
    assert not rest, f"{noun!r} has unknown words: {rest!r}"
    return [
        i
        for i, track in enumerate(scene)
        if all(track.attributes[name] in (value, "") for name, value in told.items())
    ]


def read(text: str, scene: list[Track]) -> list[int]:
    """The objects of which an expression is true."""
    text = text if text.startswith("the ") else f"the {text}"
    for pattern, meaning in MEANINGS:
        match = re.fullmatch(pattern, text)
        if match is None or not well_formed(match["n"]):
            continue
        groups = match.groupdict()
        candidates = holders(groups.pop("n"), scene)
        if "a" not in groups:
            return list(meaning(scene, candidates, **groups))
        anchors = holders(groups.pop("a").removeprefix("the "), scene)
        assert len(anchors) == 1, f"{text!r}: its other object is not clear"
        candidates = [i for i in candidates if i != anchors[0]]
        return list(meaning(scene, candidates, anchor=scene[anchors[0]], **groups))
    raise AssertionError(f"{text!r} is not understood")


def well_formed(noun: str) -> bool:
    return not strip_attributes(noun)[1]


def single(test: Callable[..., bool]) -> Callable[..., Iterator[int]]:
    """A meaning that is true of each object for itself."""

    def meaning(scene, candidates, **groups):
        return (i for i in candidates if test(scene[i], **groups))

    return meaning


def ordered(axis: int, rank: int) -> Callable[..., Iterator[int]]:
    """The place in the order from the left or from the top, in every frame."""

    def meaning(scene, candidates):
        per_frame = {
            tuple(sorted(candidates, key=lambda i: scene[i].center[t, axis]))
            for t in range(len(scene[0].seen))
            if all(scene[i].shown[t] for i in candidates)
        }
        enough = len(candidates) >= (3 if rank in (1, -2) else 2)
        return {order[rank] for order in per_frame} if enough else ()

    return meaning


def middle(scene: list[Track], candidates: list[int]) -> Iterable[int]:
    return ordered(0, 1)(scene, candidates) if len(candidates) == 3 else ()


def part(x: str = "", y: str = "") -> Callable[..., bool]:
    def test(track: Track) -> bool:
        shares = track.share()
        return all(
            {
                "low": (value < 0.46).all(),
                "high": (value > 0.54).all(),
                "mid": (abs(value - 0.5) < 0.18).all(),
                "": True,
            }[side]
            for side, value in ((x, shares[:, 0]), (y, shares[:, 1]))
        )

    return single(test)


def beside(axis: int, sign: int) -> Callable[..., bool]:
    def test(track: Track, anchor: Track) -> bool:
        both = track.shown & anchor.shown
        way = sign * (anchor.center - track.center)[both]
        return bool((way[:, axis] > 0.6 * abs(way[:, 1 - axis])).all() and (way[:, axis] > 6).all())

    return single(test)


def nearest(scene, candidates, anchor):
    distances = np.array([np.hypot(*(scene[i].center - anchor.center).T) for i in candidates])
    return {candidates[k] for k in np.nanargmin(distances, axis=0)}


def hides(front: Track, back: Track) -> bool:
    pixels = (front.seen & back.alone).sum((1, 2))
    return bool((pixels > 0.03 * np.minimum(front.area, back.area)).all())


def goes(x: int, y: int) -> Callable[..., bool]:
    """Straight in a direction, all the time."""

    def test(track: Track) -> bool:
        steps = np.diff(track.way, axis=0)
        if not (np.abs(steps).max(1) > 0.004 * track.side).all():
            return False
        wanted = np.array([x, y])
        way = track.way[-1] - track.way[0]
        clear = np.abs(way) > np.abs(way).max() / 2
        return bool(
            (np.sign(way) * clear == wanted).all()
            and ((steps * wanted).sum(1) > -0.5).all()
            and np.abs(way).max() > 0.1 * track.side
            and off_line(track) < 0.1 * track.side
        )

    return test


def off_line(track: Track) -> float:
    """How far its way strays from the straight line between its ends."""
    way = track.way - track.way[0]
    length = np.hypot(*way[-1])
    if length < 1:
        return float(np.hypot(*way.T).max())
    return float(np.abs(way[:, 0] * way[-1, 1] - way[:, 1] * way[-1, 0]).max() / length)


def frozen(masks: np.ndarray) -> bool:
    return bool((masks == masks[0]).all())


def inside(track: Track) -> bool:
    """Never touches the edge by more than a tip."""
    edge = [track.alone[:, 0], track.alone[:, -1], track.alone[..., 0], track.alone[..., -1]]
    return max(e.sum(1).max() for e in edge) < 0.2 * track.side and track.alone.any((1, 2)).all()


def travels(track: Track) -> bool:
    return bool(np.hypot(*(track.way - track.way[0]).T).max() > 0.1 * track.side)


def turns_back(values: np.ndarray) -> int:
    steps = np.diff(values)
    steps = np.sign(steps[np.abs(steps) > 1])
    return int((steps[1:] != steps[:-1]).sum())


def sways(track: Track) -> bool:
    spread = np.ptp(track.way, axis=0)
    return bool(
        spread.max() > 0.2 * track.side
        and spread.min() < 3
        and np.hypot(*(track.way[-1] - track.way[0])) < 2
    )


def circles(track: Track) -> bool:
    spread = np.ptp(track.way, axis=0)
    return bool(spread.min() > 0.2 * track.side and np.hypot(*(track.way[-1] - track.way[0])) < 2)


def zigzags(track: Track) -> bool:
    way = track.way[-1] - track.way[0]
    across = track.way[:, int(np.abs(way).argmin())]
    return bool(np.abs(way).max() > 0.2 * track.side and turns_back(across) >= 2)


def halves(track: Track) -> tuple[np.ndarray, np.ndarray]:
    middle = (len(track.alone) - 1) / 2
    frames = np.arange(len(track.alone))
    return track.alone[frames <= middle], track.alone[frames >= middle]


def stops(track: Track) -> bool:
    return bool(not frozen(halves(track)[0]) and frozen(halves(track)[1]) and travels(track))


def starts(track: Track) -> bool:
    return bool(frozen(halves(track)[0]) and not frozen(halves(track)[1]) and travels(track))


def resizes(track: Track) -> float:
    """Ratio of the last to the first size of an object that stays in place within the frame."""
    if travels(track) or not inside(track):
        return 1.0
    return float(np.sqrt(track.area[-1] / track.area[0]))


def rotates(track: Track) -> bool:
    stays = not travels(track) and inside(track) and abs(resizes(track) - 1) < 0.1
    return bool(stays and not frozen(track.alone))


EDGES = {"left": np.s_[:, 0], "right": np.s_[:, -1], "top": np.s_[0], "bottom": np.s_[-1]}


def comes(side: str = "", reverse: bool = False) -> Callable[..., bool]:
    """Not there at first (or, reversed, at last), then at the edge of that side."""

    def test(track: Track) -> bool:
        alone = track.alone[::-1] if reverse else track.alone
        if alone[0].any() or not alone[-1].any():
            return False
        first = alone[alone.any((1, 2)).argmax()]
        touched = {name for name, edge in EDGES.items() if first[edge].sum() > 1}
        # A fast object may be well within the frame when it is seen first: where it came from
        # is then told by the way that it goes on.
        way = track.way[::-1] if reverse else track.way
        x, y = way[-1] - way[0]
        across = ("left" if x > 0 else "right") if abs(x) > abs(y) else "top" if y > 0 else "bottom"
        return not side or side == across and (side in touched or not touched)

    return test


def speed(track: Track) -> float:
    """Pixels a frame; NaN for one that does not go straight on."""
    steps = np.diff(track.way, axis=0)
    steady = np.ptp(steps, axis=0).max() < 2 and travels(track)
    return float(np.hypot(*steps.mean(0))) if steady else np.nan


def by_speed(rank: int) -> Callable[..., Iterator[int]]:
    def meaning(scene, candidates):
        speeds = [speed(scene[i]) for i in candidates]
        if len(candidates) < 2 or np.isnan(speeds).any():
            return ()
        return (candidates[int(np.argsort(speeds)[rank])],)

    return meaning


def direction(x: int, y: int, words: str) -> tuple[str, Callable]:
    return words, single(goes(x, y))


# Wordings, N being the object and A the other one, and what they mean. The first that fits counts.
WORDINGS = [
    (
        "leftmost N / N on the far left / first N from the left / N farthest to the left",
        ordered(0, 0),
    ),
    (
        "rightmost N / N on the far right / first N from the right / N farthest to the right",
        ordered(0, -1),
    ),
    ("topmost N / highest N / N nearest to the top", ordered(1, 0)),
    ("bottommost N / lowest N / N nearest to the bottom", ordered(1, -1)),
    ("second N from the left / N that is second from the left", ordered(0, 1)),
    ("second N from the right / N that is second from the right", ordered(0, -2)),
    ("second N from the top / N that is second from the top", ordered(1, 1)),
    (
        "middle N (of the three )?from left to right / middle N (of the three )?from right to left",
        middle,
    ),
    (
        "N (on|at) the left side of the (picture|frame) / N in the left part of the picture",
        part("low"),
    ),
    (
        "N (on|at) the right side of the (picture|frame) / N in the right part of the picture",
        part("high"),
    ),
    ("N at the top of the picture / N in the upper part of the frame", part(y="low")),
    ("N at the bottom of the picture / N in the lower part of the frame", part(y="high")),
    ("N in the (top left|upper left corner)", part("low", "low")),
    ("N in the (top right|upper right corner)", part("high", "low")),
    ("N in the (bottom left|lower left corner)", part("low", "high")),
    ("N in the (bottom right|lower right corner)", part("high", "high")),
    ("N in the center of the picture / N in the middle of the frame", part("mid", "mid")),
    ("N (that is )?(to the )?left of A / N on the left of A", beside(0, 1)),
    ("N (that is )?(to the )?right of A / N on the right of A", beside(0, -1)),
    ("N (that is |located )?above A", beside(1, 1)),
    ("N (that is |located )?below A", beside(1, -1)),
    ("N (closest|nearest|next) to A", nearest),
    (
        "N behind A / N partly hidden by A / N that A partly covers",
        single(lambda track, anchor: hides(anchor, track)),
    ),
    (
        "N in front of A / N that hides a part of A / N partly covering A",
        single(lambda track, anchor: hides(track, anchor)),
    ),
    direction(
        -1,
        0,
        "N moving (to the )?left / N (that goes|heading) left / N that travels from right to left",
    ),
    direction(
        1,
        0,
        "N moving (to the )?right / N (that goes|heading) right / "
        "N that travels from left to right",
    ),
    direction(0, -1, "N moving up / N going upwards / N that rises"),
    direction(0, 1, "N moving down / N going downwards / N that sinks"),
    direction(-1, -1, "N moving up and to the left / N going to the upper left"),
    direction(1, -1, "N moving up and to the right / N going to the upper right"),
    direction(-1, 1, "N moving down and to the left / N going to the lower left"),
    direction(1, 1, "N moving down and to the right / N going to the lower right"),
    (
        "N moving diagonally / N that goes diagonally",
        single(lambda track: any(goes(x, y)(track) for x in (-1, 1) for y in (-1, 1))),
    ),
    ("moving N / N that moves / N on the move", single(travels)),
    (
        "still N / motionless N / N that stays where it is / N that does not move",
        single(lambda track: frozen(track.alone)),
    ),
    ("N moving back and forth / N that goes there and back", single(sways)),
    ("N that (enters|appears) / N coming into the picture", single(comes())),
    ("N (that enters|coming in) from the right", single(comes("right"))),
    ("N (that enters|coming in) from the left", single(comes("left"))),
    ("N that enters from below / N coming in from the bottom", single(comes("bottom"))),
    ("N that enters from above / N coming in from the top", single(comes("top"))),
    ("N that (leaves|disappears) / N going out of the picture", single(comes(reverse=True))),
    ("N that leaves on the left / N going out to the left", single(comes("left", True))),
    ("N that leaves on the right / N going out to the right", single(comes("right", True))),
    ("N (that leaves|going out) at the top", single(comes("top", True))),
    ("N (that leaves|going out) at the bottom", single(comes("bottom", True))),
    ("N that stops / N that moves and then stands still", single(stops)),
    ("N that starts to move / N that stands still and then moves", single(starts)),
    ("zigzagging N / N moving in a zigzag", single(zigzags)),
    ("circling N / N moving round in a circle", single(circles)),
    ("growing N / N that grows / N getting bigger", single(lambda track: resizes(track) > 1.4)),
    (
        "shrinking N / N that shrinks / N getting smaller",
        single(lambda track: resizes(track) < 0.7),
    ),
    ("rotating N / spinning N / N that rotates", single(rotates)),
    ("fastest N / N that moves fastest", by_speed(-1)),
    ("slowest N / N that moves slowest", by_speed(0)),
    ("N", lambda scene, candidates: candidates),
]
MEANINGS = [
    (f"the {wording.replace('N', '(?P<n>[a-z ]+?)').replace('A', '(?P<a>the [a-z ]+)')}", meaning)
    for wordings, meaning in WORDINGS
    for wording in wordings.split(" / ")
]
