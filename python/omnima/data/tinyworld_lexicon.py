"""The words of TinyWorld: who lives there, what they are like, where things lie."""

from __future__ import annotations

from typing import NamedTuple


class Gender(NamedTuple):
    """Pronouns of one gender, ready to be put into a sentence."""

    he: str
    him: str
    his: str
    He: str
    His: str


HE = Gender("he", "him", "his", "He", "His")
SHE = Gender("she", "her", "her", "She", "Her")


class Name(NamedTuple):
    """A name and the pronouns that go with it."""

    text: str
    gender: Gender


class Place(NamedTuple):
    """A place as one goes to it and as one is at it."""

    to: str
    at: str


class Lexicon(NamedTuple):
    """Every list that a story draws from; a smaller one makes a smaller world."""

    kinds: tuple[tuple[str, tuple[Name, ...]], ...]
    traits: tuple[str, ...]
    places: tuple[Place, ...]
    spots: tuple[str, ...]
    colors: tuple[str, ...]
    things: tuple[str, ...]
    foods: tuple[str, ...]
    fruits: tuple[str, ...]
    relatives: tuple[str, ...]
    days: tuple[str, ...]
    pits: tuple[str, ...]
    weathers: tuple[tuple[str, tuple[str, ...]], ...]
    aches: tuple[str, ...]
    lessons: tuple[str, ...]
    events: int  # the most events of one story
    counts: int  # the largest number of fruits that one picks
    largest: int  # the largest number of a sum


def _names(gender: Gender, text: str) -> tuple[Name, ...]:
    return tuple(Name(word, gender) for word in text.split())


_GIRLS = _names(SHE, "Lily Mia Anna Sara Ella Rose Nora Lucy")
_BOYS = _names(HE, "Tom Ben Max Sam Leo Jack Tim Finn")
_PETS = _names(HE, "Pip Rex Bruno Otto") + _names(SHE, "Coco Daisy Luna Fifi")
_ANIMALS = "dog cat fox bear rabbit duck mouse frog horse goat".split()


def _place(preposition: str, noun: str) -> Place:
    return Place(f"the {noun}", f"{preposition} the {noun}")


FULL = Lexicon(
    kinds=(("girl", _GIRLS), ("boy", _BOYS), *((animal, _PETS) for animal in _ANIMALS)),
    traits=tuple("kind brave shy clever funny quiet gentle proud".split()),
    places=(
        *(_place("in", noun) for noun in ("garden", "forest", "village", "barn", "valley")),
        *(_place("at", noun) for noun in ("park", "market", "farm", "beach")),
        *(_place("by", noun) for noun in ("lake", "river", "bridge")),
        _place("on", "hill"),
    ),
    spots=(
        "under a tree",
        "behind a rock",
        "in the grass",
        "next to a bush",
        "on a bench",
        "near the path",
        "beside a log",
        "inside a box",
    ),
    colors=tuple("red blue green yellow white black pink brown".split()),
    things=tuple(
        "ball kite book hat drum lamp boat doll key map coin shell bell scarf flute ring".split()
    ),
    foods=tuple("bread soup cheese milk honey cake corn rice".split()),
    fruits=tuple("apples pears plums nuts berries flowers leaves carrots".split()),
    relatives=tuple("mother father grandmother grandfather sister brother aunt uncle".split()),
    days=("One day", "One morning", "One sunny day", "One cold day", "One afternoon", "One summer"),
    pits=("into the water", "into the mud", "into a deep hole", "down a well", "over a wall"),
    weathers=(
        ("Then it began to rain", ("hid under a big tree", "got very wet", "ran into a dry cave")),
        ("Suddenly a strong wind blew", ("held on to a tree", "closed their eyes", "lay down")),
        ("Soon it began to snow", ("made a snowman", "felt cold", "built a fire")),
        ("The sun became very hot", ("rested in the shade", "drank cool water", "went to swim")),
        ("Then it grew dark", ("lit a candle", "looked at the stars", "told each other stories")),
    ),
    aches=("leg", "arm", "foot", "knee", "head"),
    lessons=(
        "A good friend is worth more than gold.",
        "It is good to share.",
        "Kind words cost nothing.",
        "Every day brings something new.",
        "It pays to look with care.",
        "Those who help will be helped.",
        "It is never too late to try.",
        "Even small friends can do great things.",
    ),
    events=5,
    counts=9,
    largest=20,
)

# A world so small that every one of its documents can be listed.
TINY = Lexicon(
    kinds=(("girl", _names(SHE, "Lily Mia")),),
    traits=("shy",),
    places=(_place("at", "park"), _place("on", "hill")),
    spots=("under a tree",),
    colors=("red",),
    things=("ball", "kite"),
    foods=("soup",),
    fruits=("nuts",),
    relatives=("aunt",),
    days=("One day",),
    pits=("into the mud",),
    weathers=(("Then it began to rain", ("got very wet",)),),
    aches=("leg",),
    lessons=("It is good to share.",),
    events=1,
    counts=2,
    largest=1,
)
