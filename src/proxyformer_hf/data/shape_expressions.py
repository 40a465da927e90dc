# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""What can be said of a moving-shapes scene: expressions that are true of one object alone.

Of everything that may be said, an object has it clearly, clearly has not, or it is doubtful. An
expression is made only where its object clearly has all of it and every other object clearly lacks
some of it. Places and relations hold in every frame of the video, and are judged by the parts that
are seen. No part of an expression is idle: without it, another object or none in particular would
be meant.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations, permutations

import numpy as np

from .shape_scenes import DIRECTIONS, STRAIGHT, Scene, ShapeObject
from .shape_wordings import ATTRIBUTES, word_expression

KINDS = ("attribute", "position", "relation", "motion")
MIN_MOTION_FRAMES = 5  # fewer do not show how an object moves
MIN_SEEN = 0.45  # of what an object would show if it were alone
MARGIN = 0.1  # of the shorter side: between the centres of what lies left and right
NEAR = 1.4  # ratio of the distances of what is closer and what is not
HIDDEN = 0.07  # of the smaller of two objects, where one is behind the other
FAST = 1.6  # ratio of speeds
NOUN_SHARE = 0.8  # of the expressions that could do without the shape and yet tell it

ORDERS = {  # name -> axis, rank (below zero: from the end), numbers of objects compared
    "leftmost": (0, 0, (2, 3, 4, 5)),
    "rightmost": (0, -1, (2, 3, 4, 5)),
    "topmost": (1, 0, (2, 3, 4, 5)),
    "bottommost": (1, -1, (2, 3, 4, 5)),
    "second from the left": (0, 1, (3, 4, 5)),
    "second from the right": (0, -2, (3, 4, 5)),
    "second from the top": (1, 1, (3, 4, 5)),
    "middle": (0, 1, (3,)),
}
PARTS = {  # name -> bounds of the centre, x and y, as shares of the picture
    "left side": ((0, 0.4), (0, 1)),
    "right side": ((0.6, 1), (0, 1)),
    "top": ((0, 1), (0, 0.4)),
    "bottom": ((0, 1), (0.6, 1)),
    "top left": ((0, 0.38), (0, 0.38)),
    "top right": ((0.62, 1), (0, 0.38)),
    "bottom left": ((0, 0.38), (0.62, 1)),
    "bottom right": ((0.62, 1), (0.62, 1)),
    "center": ((0.4, 0.6), (0.37, 0.63)),
}
BEYOND = 0.12  # a centre so far outside of the bounds is clearly outside
SIDES = {"left of": (0, 1), "right of": (0, -1), "above": (1, 1), "below": (1, -1)}  # axis, sign


@dataclass(frozen=True)
class Expression:
    """A text, the id of the one object that it means, and its kind, one of `KINDS`."""

    text: str
    object_id: int
    kind: str


@dataclass(frozen=True)
class Fact:
    """What an expression says beyond attributes. Sets of objects are bits of an integer.

    Attributes:
        kind: one of `KINDS`.
        name: what it says; the key of its wordings.
        yes, maybe: objects of which it is clearly true; of which it may be true.
        before: of a fact that compares, instead: for each object those that clearly come after it.
        rank: the place in that order that is meant, below zero from the end.
        counts: numbers of objects among which one is meant so.
        anchor: the other object of a relation.
    """

    kind: str
    name: str
    yes: int = 0
    maybe: int = 0
    before: tuple[int, ...] = ()
    rank: int = 0
    counts: tuple[int, ...] = ()
    anchor: int | None = None

    def meant(self, yes: int, maybe: int) -> int | None:
        """The object meant among those that clearly (yes) and perhaps (maybe) have the attributes
        said; None where none or several may be."""
        if not self.before:
            return _only(yes & self.yes, maybe & self.maybe)
        if self.anchor is not None:
            yes, maybe = yes & ~(1 << self.anchor), maybe & ~(1 << self.anchor)
        count = yes.bit_count()
        if yes != maybe or count not in self.counts:
            return None
        for i in _objects(yes):
            earlier = sum(self.before[j] >> i & 1 for j in _objects(yes))
            later = (self.before[i] & yes).bit_count()
            if earlier == self.rank % count and earlier + later == count - 1:
                return i
        return None


NOTHING = Fact("attribute", "", yes=-1, maybe=-1)  # beyond attributes nothing is said


def _objects(members: int) -> Iterator[int]:
    return (i for i in range(members.bit_length()) if members >> i & 1)


def _only(yes: int, maybe: int) -> int | None:
    return yes.bit_length() - 1 if yes == maybe and yes.bit_count() == 1 else None


def _members(flags: Iterable[bool]) -> int:
    return sum(1 << i for i, flag in enumerate(flags) if flag)


class Sight:
    """What is seen of a scene's n objects over its T frames.

    Args:
        scene: the scene.
        silhouettes: of every frame, bool `(n, T, height, width)`.
        object_map: of every frame, uint8 `(T, height, width)`.

    Attributes:
        area: pixels seen `(n, T)`; whole: pixels that would be, were the object alone.
        center: x and y of the centre of what is seen `(n, T, 2)`, NaN where nothing is.
        steady: objects that are seen within the frame throughout `(n,)`.
        hidden: share of the smaller of two objects that the second hides of the first `(n, n, T)`.
    """

    def __init__(self, scene: Scene, silhouettes: np.ndarray, object_map: np.ndarray):
        n, (num_frames, height, width) = len(scene.objects), object_map.shape
        bins = object_map + np.arange(num_frames)[:, None, None] * (n + 1)

        def sums(weights: np.ndarray) -> np.ndarray:
            weights = np.broadcast_to(weights, bins.shape).ravel()
            return np.bincount(bins.ravel(), weights, num_frames * (n + 1)).reshape(-1, n + 1).T[1:]

        self.scene, self.silhouettes, self.object_map = scene, silhouettes, object_map
        self.side, self.size = min(height, width), np.array([width, height])
        self.area, self.whole = sums(np.ones(1)), silhouettes.sum((2, 3))
        y, x = np.ogrid[0.5:height, 0.5:width]
        with np.errstate(invalid="ignore"):
            self.center = np.stack([sums(x), sums(y)], -1) / self.area[..., None]
        crossing = np.array([o.motion in ("enter", "leave") for o in scene.objects])
        self.steady = (self.area > 0).all(1) & ~crossing
        self.hidden = self._hidden()

    def is_clear(self) -> bool:
        """Whether enough is seen of every object, as long as it is within the frame."""
        return bool((self.area >= MIN_SEEN * self.whole).all() and self.area.any(1).all())

    def always(self, condition: np.ndarray) -> np.ndarray:
        """Objects `(n,)` that meet a condition `(n, T)` in every frame where they are seen."""
        return (condition | (self.area == 0)).all(1)

    def _hidden(self) -> np.ndarray:
        n = len(self.silhouettes)
        hidden = np.zeros((n, n, len(self.object_map)))
        for back, front in permutations(range(n), 2):
            overlap = self.silhouettes[back] & self.silhouettes[front]
            if overlap.any():
                pixels = (overlap & (self.object_map == front + 1)).sum((1, 2))
                smaller = np.minimum(self.whole[back], self.whole[front])
                hidden[back, front] = pixels / np.maximum(smaller, 1)
        return hidden


def position_facts(sight: Sight) -> Iterator[Fact]:
    """Order of the steady objects from the left and from the top; parts of the picture."""
    both = sight.steady[:, None] & sight.steady
    gaps = sight.center[None] - sight.center[:, None]  # (n, n, T, 2): from the first to the second
    after = (gaps > MARGIN * sight.side).all(2) & both[..., None]
    for name, (axis, rank, counts) in ORDERS.items():
        before = tuple(_members(row) for row in after[..., axis])
        yield Fact("position", name, before=before, rank=rank, counts=counts)
    share = sight.center / sight.size
    for name, bounds in PARTS.items():
        low, high = np.array(bounds).T
        inside = ((share > low) & (share < high)).all(-1)
        outside = ((share < low - BEYOND) | (share > high + BEYOND)).any(-1)
        yes = _members(sight.always(inside) & sight.steady)
        yield Fact("position", name, yes, _members(~sight.always(outside)))


def relation_facts(sight: Sight) -> Iterator[Fact]:
    """Where an object lies, seen from another one, the anchor, which is steady."""
    radii = np.stack([o.radius for o in sight.scene.objects])
    for anchor in np.flatnonzero(sight.steady).tolist():
        others = ~(1 << anchor)
        way = sight.center[anchor] - sight.center  # (n, T, 2)
        for name, (axis, sign) in SIDES.items():
            along, across = sign * way[..., axis], np.abs(way[..., 1 - axis])
            clear = (along > MARGIN * sight.side) & (along > across)
            wrong = (along < 0.3 * MARGIN * sight.side) | (across > 3 * along)
            yes = _members(sight.always(clear) & sight.steady) & others
            maybe = _members(~sight.always(wrong)) & others
            yield Fact("relation", name, yes, maybe, anchor=anchor)
        distance = np.hypot(*np.moveaxis(way, -1, 0))
        gap = distance - radii - radii[anchor]
        further = distance[None] > NEAR * distance[:, None]
        further &= gap[None] > gap[:, None] + MARGIN * sight.side
        further = further.all(2) & sight.steady[:, None] & sight.steady
        further[anchor] = further[:, anchor] = False
        before = tuple(_members(row) for row in further)
        yield Fact("relation", "closest to", before=before, counts=(2, 3, 4, 5), anchor=anchor)
        behind, in_front = sight.hidden[:, anchor], sight.hidden[anchor]
        for name, share in (("behind", behind), ("in front of", in_front)):
            yes = _members((share > HIDDEN).all(1)) & others
            yield Fact("relation", name, yes, _members(share.any(1)) & others, anchor=anchor)


def _ways(o: ShapeObject) -> set[str]:
    """Straight directions in which an object goes at some time."""
    if o.motion in ("zigzag", "circle"):
        return set(STRAIGHT)
    if o.motion == "sway":
        return {"left", "right"} if o.direction == "right" else {"up", "down"}
    return set(o.direction.split())


def motion_facts(sight: Sight) -> Iterator[Fact]:
    """How an object moves, and how fast."""
    objects = sight.scene.objects

    def fact(
        name: str,
        yes: Callable[[ShapeObject], bool],
        maybe: Callable[[ShapeObject], bool] = lambda o: False,
    ) -> Fact:
        sure = _members(yes(o) for o in objects)
        return Fact("motion", name, sure, sure | _members(maybe(o) for o in objects))

    in_place = ("grow", "shrink", "rotate")
    for direction in DIRECTIONS:
        yield fact(
            f"moving {direction}",
            lambda o, d=direction: o.motion in ("move", "enter", "leave") and o.direction == d,
            lambda o, d=direction: set(d.split()) <= _ways(o),
        )
    yield fact(
        "moving diagonally",
        lambda o: o.motion == "move" and " " in o.direction,
        lambda o: o.motion in ("zigzag", "circle"),
    )
    yield fact("moving", lambda o: bool(_ways(o)), lambda o: o.motion in in_place)
    yield fact("still", lambda o: o.motion == "still", lambda o: o.motion in in_place)
    yield fact("swaying", lambda o: o.motion == "sway", lambda o: o.motion in ("zigzag", "circle"))
    for motion in ("enter", "leave"):
        for direction in STRAIGHT:
            is_so = lambda o, m=motion, d=direction: (o.motion, o.direction) == (m, d)  # noqa: E731
            yield fact(f"{motion} {direction}", is_so)
    doubts = {"grow": "enter", "shrink": "leave"}  # what is seen of them grows and shrinks, too
    for motion in ("enter", "leave", "stop", "start", "zigzag", "circle", *in_place):
        doubt = doubts.get(motion, motion)
        yield fact(motion, lambda o, m=motion: o.motion == m, lambda o, m=doubt: o.motion == m)
    straight = [o.motion == "move" for o in objects]  # others have no single speed, or show it less
    speed = np.array([np.hypot(*(o.position[-1] - o.position[0])) for o in objects]) * straight
    slower = (speed[:, None] > FAST * speed) & (speed > 0)
    before = tuple(_members(row) for row in slower)
    yield Fact("motion", "fastest", before=before, counts=(2, 3, 4, 5))
    yield Fact("motion", "slowest", before=before, rank=-1, counts=(2, 3, 4, 5))


class Speaker:
    """Says what singles out the objects of a scene."""

    def __init__(self, sight: Sight):
        objects = sight.scene.objects
        self.facts: dict[str, list[Fact]] = {
            "attribute": [NOTHING],
            "position": [*position_facts(sight)],
            "relation": [*relation_facts(sight)],
        }
        if sight.scene.num_frames >= MIN_MOTION_FRAMES:
            self.facts["motion"] = [*motion_facts(sight)]
        self.attributes = [{name: getattr(o, name) for name in ATTRIBUTES} for o in objects]
        # For each object and set of its attributes: the objects that have them, clearly and perhaps
        self.holders = [
            {
                names: self._holders({name: own[name] for name in names})
                for count in range(len(own) + 1)
                for names in combinations((name for name in own if own[name]), count)
            }
            for own in self.attributes
        ]

    def _holders(self, said: dict[str, str]) -> tuple[int, int]:
        yes = _members(said.items() <= own.items() for own in self.attributes)
        maybe = _members(
            all(own[name] in (value, "") for name, value in said.items()) for own in self.attributes
        )
        return yes, maybe

    def express(self, target: int, kind: str, rng: np.random.Generator) -> str | None:
        """An expression of a kind that means the target alone, None where there is none. Any fact
        about it is as likely as another."""
        facts = [fact for fact in self.facts[kind] if fact.before or fact.yes >> target & 1]
        for name in rng.permutation(sorted({fact.name for fact in facts})).tolist():
            alike = [fact for fact in facts if fact.name == name]
            for k in rng.permutation(len(alike)):
                fact = alike[k]
                said, anchor = self.choose(target, fact, rng), None
                if fact.anchor is not None:
                    anchor = self.choose(fact.anchor, NOTHING, rng)
                if said is not None and (anchor is None) == (fact.anchor is None):
                    return word_expression(rng, said, name, anchor)
        return None

    def choose(self, target: int, fact: Fact, rng: np.random.Generator) -> dict[str, str] | None:
        """Attributes that single the target out together with a fact: the longer of two random
        choices; None where there is none. Often the shape is told though it could be spared."""
        choices = [names for names in self.holders[target] if self.singles_out(names, target, fact)]
        if not choices:
            return None
        names = max((choices[i] for i in rng.integers(len(choices), size=2)), key=len)
        more = (*names, "shape")
        if "shape" not in names and self.singles_out(more, target, fact, spare="shape"):
            names = more if rng.random() < NOUN_SHARE else names
        return {name: self.attributes[target][name] for name in names}

    def singles_out(self, names: tuple[str, ...], target: int, fact: Fact, spare: str = "") -> bool:
        """Whether some of the target's attributes and a fact mean the target, but not without the
        fact nor without any of the attributes, except a spare one."""
        holders = self.holders[target]
        if fact.meant(*holders[names]) != target:
            return False
        if fact is not NOTHING and NOTHING.meant(*holders[names]) == target:
            return False
        fewer = (tuple(n for n in names if n != name) for name in names if name != spare)
        return all(fact.meant(*holders[some]) != target for some in fewer)


def describe(sight: Sight, rng: np.random.Generator) -> list[Expression] | None:
    """One expression of each kind that the number of frames can show, of different objects as far
    as it goes, any object being as likely as another; None where there is none of some kind."""
    speaker, expressions = Speaker(sight), []
    # Kinds that not every object can have come first, so that the others can have the rest.
    for kind in sorted(rng.permutation([*speaker.facts]), key=("motion", "attribute").count):
        used = {expression.object_id - 1 for expression in expressions}
        targets = sorted(rng.permutation(len(sight.steady)).tolist(), key=used.__contains__)
        texts = ((i, speaker.express(i, kind, rng)) for i in targets)
        i, text = next((found for found in texts if found[1]), (None, None))
        if text is None:
            return None
        expressions.append(Expression(text, i + 1, str(kind)))
    return sorted(expressions, key=lambda expression: KINDS.index(expression.kind))
