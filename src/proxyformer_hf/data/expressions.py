# Copyright 2026 The ProxyFormer-HF authors. Licensed under the Apache License, Version 2.0.
"""Referring expressions made from labelled objects, each true of one object of the picture alone.

`facts` lists what singles an object out, by rules with a margin; `phrase` words a fact in one of
many ways.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

SYNONYMS = {
    "person": ("person", "person", "human", "someone"),
    "bicycle": ("bicycle", "bike", "cycle"),
    "car": ("car", "automobile"),
    "motorcycle": ("motorcycle", "motorbike"),
    "airplane": ("airplane", "plane", "aircraft"),
    "boat": ("boat", "vessel"),
    "traffic light": ("traffic light", "stoplight"),
    "fire hydrant": ("fire hydrant", "hydrant"),
    "cat": ("cat", "kitty"),
    "backpack": ("backpack", "rucksack"),
    "handbag": ("handbag", "bag", "purse"),
    "tie": ("tie", "necktie"),
    "sports ball": ("ball", "sports ball"),
    "baseball glove": ("baseball glove", "glove", "mitt"),
    "baseball bat": ("baseball bat", "bat"),
    "tennis racket": ("tennis racket", "racket", "racquet"),
    "wine glass": ("wine glass", "glass"),
    "cup": ("cup", "mug"),
    "cake": ("cake", "piece of cake"),
    "donut": ("donut", "doughnut"),
    "couch": ("couch", "sofa"),
    "potted plant": ("potted plant", "plant"),
    "dining table": ("dining table", "table"),
    "tv": ("tv", "television", "screen", "monitor"),
    "laptop": ("laptop", "notebook computer", "laptop computer"),
    "mouse": ("computer mouse", "mouse"),
    "remote": ("remote control", "remote"),
    "cell phone": ("cell phone", "phone", "mobile phone", "smartphone"),
    "oven": ("oven", "stove"),
    "refrigerator": ("refrigerator", "fridge"),
    "teddy bear": ("teddy bear", "stuffed bear", "teddy"),
    "hair drier": ("hair dryer", "hair drier"),
}
PLURAL_NAMES = frozenset("skis scissors pants shorts stockings glasses sunglasses".split())

# Objects that are easily taken for one another, so that "there is none" would not be certain.
CONFUSABLE = (
    {"car", "truck", "bus", "train"},
    {"bicycle", "motorcycle"},
    {"cup", "wine glass", "bottle", "vase", "bowl"},
    {"couch", "chair", "bed", "bench", "dining table"},
    {"handbag", "backpack", "suitcase"},
    {"sheep", "cow", "horse", "dog"},
    {"bear", "teddy bear", "dog"},
    {"cake", "donut", "sandwich", "pizza", "hot dog", "bowl"},
    {"fork", "knife", "spoon"},
    {"mouse", "remote", "cell phone"},
    {"laptop", "tv", "keyboard"},
    {"oven", "microwave", "toaster", "refrigerator"},
    {"potted plant", "vase", "broccoli"},
    {"orange", "apple", "sports ball", "carrot"},
    {"skis", "snowboard", "surfboard", "skateboard"},
    {"elephant", "rhino"},
    {"kangaroo", "deer", "dog"},
    {"coat", "jacket", "sweater", "vest", "suit", "shirt", "dress", "skirt"},
    {"pants", "shorts", "stockings", "boot", "shoe", "sock"},
    {"glasses", "sunglasses"},
    {"necklace", "scarf", "tie"},
    {"bracelet", "watch", "glove"},
)
ANIMALS = frozenset("bird cat dog horse sheep cow elephant bear zebra giraffe".split())
VEHICLES = frozenset("bicycle car motorcycle airplane bus train truck boat".split())
# What is told apart with certainty, but only by a close look: the hardest things to miss rightly.
KINDRED = (
    ANIMALS.union("butterfly deer fish kangaroo monkey otter rhino tiger turtle".split()),
    VEHICLES,
    frozenset("bottle bowl cup fork knife plate spatula spoon vase".split()) | {"wine glass"},
    frozenset("apple banana bread broccoli cake carrot donut orange pizza rice sandwich".split()),
    frozenset("bed bench chair couch refrigerator sink toilet tv".split()),
)
WORN = frozenset(  # by people, in whose videos nobody looked for it
    """belt boot bracelet coat dress earring glasses glove hat jacket necklace pants ring scarf
    shirt shoe shorts skirt sock stockings suit sunglasses sweater tie vest watch""".split()
)
# Names that no label has: what labels do not tell apart, and kinds that none of them is. They are
# said where nothing else of the group is shown, so that a word never heard finds its nearest kin.
PEOPLE = """man woman boy girl child kid toddler guy lady teenager player athlete dancer gymnast
acrobat skater cyclist biker climber runner walker rider jockey surfer skier snowboarder goalkeeper
pedestrian tourist hiker worker farmer chef waiter soldier policeman fisherman musician singer
photographer swimmer jogger student""".split()
BIRDS = """duck goose swan chicken rooster turkey parrot pigeon dove owl eagle hawk falcon vulture
crow magpie sparrow robin hummingbird penguin ostrich pelican seagull stork heron crane
peacock""".split()
CATS = "lion lioness leopard cheetah jaguar panther lynx puma kitten rabbit squirrel".split()
DOGS = "wolf fox puppy hound coyote jackal rabbit raccoon badger".split()
HORSES = "donkey pony mule foal camel llama".split()
CATTLE = "goat lamb ram bull calf ox buffalo bison yak pig boar antelope".split()
GIANTS = "hippo panda gorilla mammoth moose".split()
TALL_ANIMALS = "camel llama antelope ostrich".split()
DEER = "stag moose elk reindeer antelope gazelle".split()
APES = "ape gorilla chimpanzee baboon".split()
REPTILES = "tortoise crocodile alligator lizard frog snake".split()
WATER_ANIMALS = "seal walrus beaver".split()
FISHES = "goldfish shark dolphin whale".split()
INSECTS = "bee moth dragonfly insect bug".split()
ROAD_VEHICLES = """suv van jeep taxi cab coupe roadster hatchback minivan pickup sedan convertible
tractor ambulance limousine lorry minibus tram trolley excavator vehicle""".split()
TWO_WHEELERS = "scooter moped tricycle dirtbike unicycle cart wheelchair stroller sled".split()
VESSELS = "ship ferry canoe kayak yacht raft sailboat submarine".split()
AIRCRAFT = "helicopter jet glider drone rocket airliner".split()
BALLS = "basketball football volleyball golfball balloon marble".split()
SEATS = "stool armchair rocker throne hammock swing ottoman".split()
CONTAINERS = "jug jar pitcher teapot kettle can thermos bucket".split()
BAGS = "pouch sack briefcase satchel basket box crate".split()
GROUPS = (
    ({"person"}, PEOPLE),
    ({"bird"}, BIRDS),
    ({"cat", "tiger"}, CATS),
    ({"dog"}, DOGS),
    ({"horse", "zebra"}, HORSES),
    ({"cow", "sheep"}, CATTLE),
    ({"elephant", "bear", "rhino"}, GIANTS),
    ({"giraffe"}, TALL_ANIMALS),
    ({"deer", "kangaroo"}, DEER),
    ({"monkey"}, APES),
    ({"turtle"}, REPTILES),
    ({"otter"}, WATER_ANIMALS),
    ({"fish"}, FISHES),
    ({"butterfly"}, INSECTS),
    ({"car", "bus", "train", "truck"}, ROAD_VEHICLES),
    ({"bicycle", "motorcycle"}, TWO_WHEELERS),
    ({"boat"}, VESSELS),
    ({"airplane"}, AIRCRAFT),
    ({"sports ball"}, BALLS),
    ({"chair", "couch", "bench"}, SEATS),
    ({"cup", "bottle", "wine glass", "vase", "bowl"}, CONTAINERS),
    ({"backpack", "handbag", "suitcase"}, BAGS),
)
CARRIED = frozenset(
    "backpack,umbrella,handbag,tie,suitcase,frisbee,skis,snowboard,kite,baseball bat,skateboard,"
    "surfboard,tennis racket,cell phone".split(",")
)
OPPOSITE = {"left": "right", "right": "left"}

VISIBLE_AREA = 0.0005  # of the frame: less is not seen at all
SIZE_RATIO = 1.7
DEPTH_RATIO = 2.2
COLOR_SHARE, COLOR_SHARE_OTHERS = 0.6, 0.25


@dataclass
class Seen:
    """One object as a frame shows it; coordinates and area are fractions of the frame."""

    category: str
    box: tuple[float, float, float, float]  # x1, y1, x2, y2
    center: tuple[float, float]  # centroid of the visible part
    area: float
    colors: dict[str, float]

    @classmethod
    def from_mask(cls, category: str, mask: np.ndarray, colors: dict[str, float]) -> "Seen | None":
        """None when less than `VISIBLE_AREA` of the bool (height, width) mask is set."""
        columns, rows = mask.sum(0), mask.sum(1)
        count = columns.sum()
        height, width = mask.shape
        if count < VISIBLE_AREA * mask.size:
            return None
        xs, ys = np.flatnonzero(columns), np.flatnonzero(rows)
        box = (xs[0] / width, ys[0] / height, (xs[-1] + 1) / width, (ys[-1] + 1) / height)
        center = (
            columns @ np.arange(width) / count / width,
            rows @ np.arange(height) / count / height,
        )
        return cls(category, box, center, count / mask.size, colors)

    def extent(self, axis: int) -> float:
        return self.box[axis + 2] - self.box[axis]


def swap_left_right(text: str) -> str:
    """The expression for the mirrored picture: left and right swap, as whole words.

    "leftmost", "rightwards" and "leftside" count as such; "right behind the boy" is no side.
    """

    def swapped(match: re.Match) -> str:
        word = OPPOSITE[match.group().lower()]
        return word.capitalize() if match.group()[0].isupper() else word

    no_side = r"(?<!the )right(?= (?:behind|next to|in front)\b)"
    return re.sub(
        rf"\b(?!{no_side})(left|right)(?=(?:most|side|wards?)?\b)", swapped, text, flags=re.I
    )


def is_positional(text: str) -> bool:
    """Whether a crop of the picture could make the expression false."""
    words = (
        "left|right|leftmost|rightmost|middle|center|centre|top|bottom|upper|lower|edge|corner|far|"
        "farthest|farther|second|third|closest|closer|largest|smallest|bigger|smaller|biggest"
    )
    return re.search(rf"\b({words})\b", text) is not None


def color_fractions(pixels: np.ndarray) -> dict[str, float]:
    """Share of each colour word among RGB pixels uint8 (n, 3); doubtful pixels have no word."""
    rgb = pixels.astype(np.float32) / 255
    value, least = rgb.max(1), rgb.min(1)
    chroma = value - least
    saturation = chroma / np.maximum(value, 1e-6)
    r, g, b = rgb.T
    hue = np.select(
        [value == r, value == g],
        [((g - b) / (chroma + 1e-6)) % 6, (b - r) / (chroma + 1e-6) + 2],
        (r - g) / (chroma + 1e-6) + 4,
    )
    hue = hue * 60  # degrees
    vivid = (saturation > 0.4) & (value > 0.25)
    grayish = saturation < 0.16
    share = {
        "black": value < 0.22,
        "white": grayish & (value > 0.72),
        "gray": grayish & (value > 0.3) & (value < 0.65),
        "red": vivid & ((hue < 12) | (hue > 345)) & (value > 0.35),
        "orange": vivid & (hue >= 15) & (hue < 40) & (value > 0.75) & (saturation > 0.6),
        "brown": (saturation > 0.3) & (hue >= 8) & (hue < 42) & (value >= 0.22) & (value < 0.62),
        "yellow": vivid & (hue >= 43) & (hue < 68) & (value > 0.55),
        "green": vivid & (hue >= 75) & (hue < 165),
        "blue": vivid & (hue >= 190) & (hue < 260),
    }
    return {color: float(mask.mean()) for color, mask in share.items()}


def dominant_color(seen: Seen) -> str | None:
    """The colour word that is clearly true of the whole object (of a person: of the clothes)."""
    color = max(seen.colors, key=seen.colors.get, default=None)
    if color is None or seen.colors[color] < COLOR_SHARE:
        return None
    return None if seen.category == "person" and color in ("brown", "orange") else color


def gap(a: Seen, b: Seen) -> float:
    """Distance of two boxes as a fraction of the frame; 0 when they touch."""
    dx = max(a.box[0] - b.box[2], b.box[0] - a.box[2], 0)
    dy = max(a.box[1] - b.box[3], b.box[1] - a.box[3], 0)
    return float(np.hypot(dx, dy))


def facts(scene: list[Seen], index: int) -> set[tuple[str, ...]]:
    """What singles out `scene[index]` among all objects seen in one frame.

    `scene` must hold every visible object; those of its category are its look-alikes. An empty set
    means that no rule tells it apart.
    """
    me = scene[index]
    others = [s for i, s in enumerate(scene) if i != index and s.category == me.category]
    found = _color_facts(me, others) | _relation_facts(me, others, scene)
    if not others:
        return found | {("only",)} | _place_facts(me)
    return found | _order_facts(me, others) | _size_facts(me, others) | _corner_facts(me, others)


def _before(a: Seen, b: Seen, axis: int) -> bool:
    """a lies clearly left of (axis 0) or above (axis 1) b."""
    margin = (0.06, 0.1)[axis] + 0.2 * max(a.extent(axis), b.extent(axis))
    return b.center[axis] - a.center[axis] > margin


def _order_facts(me: Seen, others: list[Seen]) -> set[tuple[str, ...]]:
    found = set()
    for axis, (low, high) in enumerate((("left", "right"), ("top", "bottom"))):
        below = [_before(other, me, axis) for other in others]
        above = [_before(me, other, axis) for other in others]
        if not all(b or a for b, a in zip(below, above, strict=True)):
            continue  # level with another one
        rank, count = sum(below), len(others) + 1
        if rank in (0, count - 1):
            side = low if rank == 0 else high
            on_its_side = me.center[axis] < 0.45 if rank == 0 else me.center[axis] > 0.55
            found.add(("side" if count == 2 or on_its_side and count == 3 else "extreme", side))
        elif count == 3:
            found.add(("middle",) if axis == 0 else ("middle", "vertical"))
        if axis == 0 and rank == 1 and count >= 3:
            found.add(("second", "left"))
        if axis == 0 and rank == count - 2 and count >= 3:
            found.add(("second", "right"))
    return found


def _size_facts(me: Seen, others: list[Seen]) -> set[tuple[str, ...]]:
    found = set()
    areas = [other.area for other in others]
    if me.area > SIZE_RATIO * max(areas):
        found.add(("size", "large" if len(others) > 1 else "larger"))
    if me.area * SIZE_RATIO < min(areas):
        found.add(("size", "small" if len(others) > 1 else "smaller"))
    if me.category == "person" or me.category in ANIMALS | VEHICLES:
        feet = [other.box[3] for other in others]
        if me.area > DEPTH_RATIO * max(areas) and me.box[3] > max(feet) + 0.04:
            found.add(("depth", "front"))
        if me.area * DEPTH_RATIO < min(areas) and me.box[3] < min(feet) - 0.04:
            found.add(("depth", "back"))
    return found


def _color_facts(me: Seen, others: list[Seen]) -> set[tuple[str, ...]]:
    color = dominant_color(me)
    if color is None:
        return set()
    known = all(other.colors for other in others)
    if known and all(other.colors[color] < COLOR_SHARE_OTHERS for other in others):
        return {("color", color)}
    return set()


def _place_facts(me: Seen) -> set[tuple[str, ...]]:
    x, y = me.center
    if me.extent(0) > 0.6 or me.extent(1) > 0.85:
        return set()
    found = set()
    if x < 0.35 or x > 0.65:
        found.add(("place", "left" if x < 0.35 else "right"))
    if 0.4 < x < 0.6 and 0.35 < y < 0.65:
        found.add(("place", "middle"))
    return found | _corner_facts(me, [])


def _corner_facts(me: Seen, others: list[Seen]) -> set[tuple[str, ...]]:
    x, y = me.center
    if not (x < 0.3 or x > 0.7) or not (y < 0.3 or y > 0.7) or me.area > 0.12:
        return set()
    # The nearest look-alike must be well outside of this quarter of the picture.
    for other in others:
        dx, dy = abs(other.center[0] - x), abs(other.center[1] - y)
        if max(dx, dy) < 0.35:
            return set()
    return {("corner", "top" if y < 0.5 else "bottom", "left" if x < 0.5 else "right")}


def _relation_facts(me: Seen, others: list[Seen], scene: list[Seen]) -> set[tuple[str, ...]]:
    found = set()
    for anchor in scene:
        same = [s for s in scene if s.category == anchor.category]
        if anchor.category == me.category or len(same) > 1 or anchor.area < 0.006:
            continue
        if anchor.category in CARRIED and me.category == "person":
            inside = _contains(me, anchor)
            if inside and anchor.area < me.area and all(gap(o, anchor) > 0.06 for o in others):
                found.add(("with", anchor.category))
        if anchor.area < 0.015 or anchor.category == "dining table":
            continue
        if gap(me, anchor) < 0.03 and all(gap(other, anchor) > 0.15 for other in others):
            found.add(("beside", anchor.category))
        for axis, sides in enumerate((("left", "right"), ("above", "below"))):
            for low, side in zip((True, False), sides, strict=True):
                if _beside(me, anchor, axis, low) and all(
                    _before(anchor, o, axis) if low else _before(o, anchor, axis) for o in others
                ):
                    found.add(("relative", side, anchor.category))
    return found


def _contains(me: Seen, item: Seen) -> bool:
    x, y = item.center
    return me.box[0] < x < me.box[2] and me.box[1] < y < me.box[3]


def _beside(me: Seen, anchor: Seen, axis: int, low: bool) -> bool:
    """'me left of (low) or right of the anchor', or above or below it (axis 1), and near it."""
    across = 1 - axis
    shared = min(me.box[across + 2], anchor.box[across + 2]) - max(
        me.box[across], anchor.box[across]
    )
    if shared <= 0 or gap(me, anchor) >= 0.3:
        return False
    if low:
        return _before(me, anchor, axis) and me.box[axis + 2] < anchor.center[axis]
    return _before(anchor, me, axis) and me.box[axis] > anchor.center[axis]


# fact (or its kind alone) -> wordings; {n} is the object's noun, {0} and {1} are the fact's words
# and {a} is the noun of the other object.
WORDINGS: dict[tuple[str, ...], tuple[str, ...]] = {
    ("only",): ("{n}",),
    ("side", "left"): ("{n} on the left", "left {n}", "{n} on the left side", "{n} to the left"),
    ("side", "right"): (
        "{n} on the right",
        "right {n}",
        "{n} on the right side",
        "{n} to the right",
    ),
    ("side", "top"): ("{n} at the top", "upper {n}", "top {n}"),
    ("side", "bottom"): ("{n} at the bottom", "lower {n}", "bottom {n}"),
    ("extreme", "left"): ("leftmost {n}", "{n} on the far left", "first {n} from the left"),
    ("extreme", "right"): ("rightmost {n}", "{n} on the far right", "first {n} from the right"),
    ("extreme", "top"): ("topmost {n}", "{n} at the very top", "highest {n}"),
    ("extreme", "bottom"): ("lowest {n}", "{n} at the very bottom"),
    ("middle",): ("middle {n}", "{n} in the middle", "{n} in the center"),
    ("middle", "vertical"): ("middle {n}",),
    ("second",): ("second {n} from the {0}", "{n} second from the {0}"),
    ("size", "large"): ("largest {n}", "biggest {n}", "big {n}"),
    ("size", "larger"): ("larger {n}", "bigger {n}", "big {n}", "large {n}", "largest {n}"),
    ("size", "small"): ("smallest {n}", "tiniest {n}", "small {n}"),
    ("size", "smaller"): ("smaller {n}", "small {n}", "little {n}", "smallest {n}"),
    ("depth", "front"): ("{n} in front", "{n} closest to the camera", "{n} in the foreground"),
    ("depth", "back"): ("{n} in the background", "{n} in the back", "{n} farthest away"),
    ("color",): ("{0} {n}", "{0} {n}", "{n} that is {0}"),
    ("clothes",): ("{n} in {0}", "{n} wearing {0}", "{n} dressed in {0}"),
    ("place",): ("{n} on the {0} side", "{n} on the {0}"),
    ("place", "middle"): ("{n} in the middle", "{n} in the center"),
    ("corner",): ("{n} in the {0} {1} corner", "{n} at the {0} {1}", "{0} {1} {n}"),
    ("with",): ("{n} with the {a}", "{n} that has the {a}"),
    ("beside",): (
        "{n} next to the {a}",
        "{n} beside the {a}",
        "{n} near the {a}",
        "{n} by the {a}",
    ),
    ("relative", "left"): ("{n} left of the {a}", "{n} to the left of the {a}"),
    ("relative", "right"): ("{n} right of the {a}", "{n} to the right of the {a}"),
    ("relative", "above"): ("{n} above the {a}", "{n} over the {a}"),
    ("relative", "below"): ("{n} below the {a}", "{n} under the {a}"),
}


def noun(category: str, rng: np.random.Generator) -> str:
    """The category's name or a synonym."""
    return str(rng.choice(SYNONYMS.get(category, (category,))))


def kin_names(category: str, others: Iterable[str]) -> list[str]:
    """Names of its kin that no label has; none where `others`, the categories of all else that may
    be shown, have one of its group."""
    for group, names in GROUPS:
        if category in group and group.isdisjoint(others):
            return names
    return []


def phrase(fact: tuple[str, ...], seen: Seen, rng: np.random.Generator) -> str:
    """One random wording, in lower case, of a fact about an object."""
    is_person = seen.category == "person"
    if fact[0] == "color" and is_person:
        fact = ("clothes", fact[1])
    name, color = noun(seen.category, rng), dominant_color(seen)
    if color and fact[0] != "color" and not is_person and rng.random() < 0.3:
        name = f"{color} {name}"
    wording = str(rng.choice(WORDINGS.get(fact[:2]) or WORDINGS[fact[:1]]))
    if name == "someone" and not wording.startswith("{n}"):
        name = "person"  # not 'the left someone'
    anchor = noun(fact[-1], rng).replace("someone", "person")
    text = wording.format(*fact[1:], n=name, a=anchor)
    return with_article(text, fact[0] == "only", seen.category in PLURAL_NAMES, rng)


def with_article(text: str, unique: bool, plural: bool, rng: np.random.Generator) -> str:
    """'the ...' mostly, bare at times; 'a ...' only when there is no other of its kind."""
    if text == "someone" or text.startswith("someone "):
        return text
    choice = rng.random()
    if unique and not plural and choice < 0.3:
        return f"{'an' if text[0] in 'aeiou' else 'a'} {text}"
    return text if choice > 0.85 else f"the {text}"
