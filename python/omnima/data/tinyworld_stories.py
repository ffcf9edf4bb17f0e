"""TinyWorld's stories: a small world, acted out; every choice shows in the text at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from omnima.data.tinyworld_lexicon import Gender, Lexicon, Name, Place

T = TypeVar("T")
Say = Callable[[str], object]


class Chooser(Protocol):
    """Where the choices of a document come from: a random draw, or a parser's guess."""

    def choose(self, options: Sequence[T]) -> T:
        """One of the options, each with the same probability."""
        ...

    def chance(self, wins: int, of: int) -> bool:
        """True with probability wins / of."""
        ...


class Person:
    """Someone in a story: a name, pronouns, what they are and what they are like."""

    __slots__ = ("gender", "name", "noun", "trait")

    def __init__(self, name: Name, noun: str, trait: str) -> None:
        self.name = name.text
        self.gender: Gender = name.gender
        self.noun = noun
        self.trait = trait


class World:
    """The state of a story: who is where, who holds what and where that came from."""

    __slots__ = (
        "done",
        "draw",
        "facts",
        "friend",
        "hero",
        "holder",
        "lexicon",
        "longing",
        "lost",
        "origin",
        "place",
        "relative",
        "say",
        "skies",
        "things",
        "told",
        "wish",
    )  # fmt: skip

    def __init__(self, draw: Chooser, say: Say, lexicon: Lexicon) -> None:
        self.draw = draw
        self.say = say
        self.lexicon = lexicon
        self.friend: Person | None = None
        self.holder: dict[str, Person] = {}  # "red ball" → who has it
        self.origin: dict[str, str] = {}  # "red ball" → what its holder says about it
        self.things: list[str] = []  # nouns in use: a story has one ball at most
        self.lost: list[str] = []
        self.told: list[str] = []  # items whose origin was asked for
        self.skies: list[str] = []  # weather that was seen
        self.done: set[str] = set()  # events that happen once at most
        self.wish = ""  # the item the hero is after, while it can still be had
        self.longing = ""  # what to say when it was not had in the end
        self.facts: dict[str, str] = {}  # question → answer

    def other(self, person: Person) -> Person:
        """The one of the two friends that `person` is not."""
        assert self.friend is not None
        return self.friend if person is self.hero else self.hero

    def somebody(self) -> Person:
        """The hero or the friend; the caller says the name at once."""
        if self.friend is None:
            return self.hero
        return self.draw.choose((self.hero, self.friend))

    def they(self) -> str:
        return "they" if self.friend else self.hero.gender.he

    def new_item(self) -> str:
        """Say a colour and a thing that the story does not have yet."""
        color = self.draw.choose(self.lexicon.colors)
        self.say(color)
        used = self.things
        thing = self.draw.choose([t for t in self.lexicon.things if t not in used])
        used.append(thing)
        self.say(" " + thing)
        return f"{color} {thing}"

    def can_have_more(self) -> bool:
        return len(self.things) < min(4, len(self.lexicon.things))

    hero: Person
    place: Place
    relative: str


# -- The beginning ---------------------------------------------------------------------------------

_OPENINGS = ("Once there was a ", "This is a story about a ", "Long ago there lived a ", "")


def _open(world: World) -> None:
    draw, say, lexicon = world.draw, world.say, world.lexicon
    opening = draw.choose(_OPENINGS)
    if opening:
        say(opening)
        trait = draw.choose(lexicon.traits)
        say(trait)
        noun, names = draw.choose(lexicon.kinds)
        say(f" {noun} named ")
        name = draw.choose(names)
        say(name.text + ".")
    else:
        noun, names = draw.choose(lexicon.kinds)
        say(f"A {noun} named ")
        name = draw.choose(names)
        say(name.text + " was very ")
        trait = draw.choose(lexicon.traits)
        say(trait + ".")
    world.hero = hero = Person(name, noun, trait)
    say(f" {hero.gender.He} lived ")
    world.place = draw.choose(lexicon.places)
    say(f"{world.place.at} with {hero.gender.his} ")
    world.relative = draw.choose(lexicon.relatives)
    say(world.relative + ".")
    world.facts[f"Where did {hero.name} live?"] = world.place.at
    world.facts[f"Who lived with {hero.name}?"] = f"{hero.gender.his} {world.relative}"
    world.facts[f"What was {hero.name} like?"] = trait


_REASONS: tuple[Callable[[World], str], ...] = (
    lambda w: "more than anything.",
    lambda w: f"for {w.hero.gender.his} birthday.",
    lambda w: f"because {w.hero.gender.his} {w.relative} had one too.",
    lambda w: f"to make {w.hero.gender.his} {w.relative} happy.",
)


def _want(world: World) -> None:
    hero = world.hero
    world.say(f" {hero.name} wanted a ")
    world.wish = world.new_item()
    world.say(" " + world.draw.choose(_REASONS)(world))
    world.longing = f" {hero.name} still wanted a {world.wish}."
    world.facts[f"What did {hero.name} want?"] = f"a {world.wish}"


def _have(world: World) -> None:
    hero = world.hero
    world.say(f" {hero.gender.His} {world.relative} gave {hero.gender.him} a ")
    item = world.new_item()
    world.say(".")
    world.holder[item] = hero
    world.origin[item] = f"My {world.relative} gave it to me"
    world.facts[f"Who gave {hero.name} the {item}?"] = f"{hero.gender.his} {world.relative}"


def _miss(world: World) -> None:
    hero = world.hero
    world.say(f" {hero.name} was sad because {hero.gender.he} had lost a ")
    world.wish = world.new_item()
    world.say(".")
    world.longing = f" {hero.name} never saw the {world.wish} again."
    world.facts[f"Why was {hero.name} sad?"] = f"{hero.gender.he} had lost a {world.wish}"


_PLOTS = (_want, _have, _miss)


def _set_out(world: World) -> None:
    draw, say, hero = world.draw, world.say, world.hero
    say(f" {draw.choose(world.lexicon.days)}, {hero.gender.he} went to ")
    here = world.place
    world.place = draw.choose([place for place in world.lexicon.places if place is not here])
    say(world.place.to + ".")
    if not draw.chance(7, 8):
        return
    say(f" There {hero.gender.he} met a ")
    trait = draw.choose(world.lexicon.traits)
    say(trait)
    noun, names = draw.choose(world.lexicon.kinds)
    say(f" {noun} named ")
    name = draw.choose([n for n in names if n.text != hero.name])
    world.friend = friend = Person(name, noun, trait)
    world.facts[f"Where did {hero.name} meet {friend.name}?"] = world.place.at
    world.facts[f"What was {friend.name} like?"] = trait
    if draw.chance(1, 3):
        say(f"{friend.name}, who had a ")
        item = world.new_item()
        say(".")
        world.holder[item] = friend
        world.origin[item] = "I brought it from home"
    else:
        say(f"{friend.name}.")


# -- The events ------------------------------------------------------------------------------------


def _find(world: World) -> None:
    draw, say = world.draw, world.say
    who = world.somebody()
    say(f" {who.name} found ")
    if world.wish and world.wish not in world.holder and draw.chance(1, 2):
        item = world.wish
        say(f"the {item} ")
    else:
        say("a ")
        item = world.new_item()
        say(" ")
    spot = draw.choose(world.lexicon.spots)
    say(f"{spot}.")
    world.holder[item] = who
    world.origin[item] = f"I found it {spot} {world.place.at}"
    world.facts[f"Who found the {item}?"] = who.name
    world.facts[f"Where was the {item}?"] = f"{spot} {world.place.at}"


_THANKS: tuple[Callable[[Person, Person], str], ...] = (
    lambda giver, taker: f' "Thank you, {giver.name}!" said {taker.name}.',
    lambda giver, taker: f" {taker.name} smiled and thanked {giver.gender.him}.",
    lambda giver, taker: f" This made {taker.name} very happy.",
)


def _give(world: World) -> None:
    draw, say = world.draw, world.say
    item = draw.choose(list(world.holder))
    giver = world.holder[item]
    taker = world.other(giver)
    say(f" {giver.name} gave the {item} to {taker.name}.")
    say(draw.choose(_THANKS)(giver, taker))
    world.holder[item] = taker
    if item not in world.told:
        world.told.append(item)  # the giver will not ask where it came from
    world.facts[f"Who gave {taker.name} the {item}?"] = giver.name


def _drop(world: World) -> None:
    draw, say = world.draw, world.say
    item = draw.choose(list(world.holder))
    who = world.holder[item]
    say(f" But {who.name} dropped the {item} ")
    pit = draw.choose(world.lexicon.pits)
    say(f"{pit}.")
    world.facts[f"Where did the {item} fall?"] = pit
    if world.friend is not None and draw.chance(1, 2):
        helper = world.other(who)
        say(f" {helper.name} was {helper.trait}, and {helper.gender.he} brought it back to ")
        say(f"{who.name}.")
    else:
        say(f" It was gone, and {who.name} cried.")
        del world.holder[item]
        world.lost.append(item)
        if item == world.wish:
            world.wish = ""


def _ask(world: World) -> None:
    item = world.draw.choose([i for i in world.holder if i not in world.told])
    who = world.holder[item]
    asker = world.other(who)
    world.say(f' "Where did you get the {item}?" asked {asker.name}.')
    world.say(f' "{world.origin[item]}," said {who.name}.')
    world.told.append(item)


def _walk(world: World) -> None:
    world.done.add("walk")
    world.say(f" After that {world.they()} went to ")
    here = world.place
    world.place = world.draw.choose([place for place in world.lexicon.places if place is not here])
    world.say(world.place.to + ".")


def _weather(world: World) -> None:
    sky, ends = world.draw.choose([w for w in world.lexicon.weathers if w[0] not in world.skies])
    world.skies.append(sky)
    world.say(f" {sky}, so {world.they()} ")
    end = world.draw.choose(ends)
    if world.friend is None:
        end = end.replace("their", world.hero.gender.his)
        end = end.replace(
            "told each other stories", f"thought of {world.hero.gender.his} {world.relative}"
        )
    world.say(f"{end}.")


def _eat(world: World) -> None:
    who = world.somebody()
    world.say(f" {who.name} was hungry, so ")
    if world.friend is None:
        world.say(f"{who.gender.he} ate some ")
    else:
        world.say(f"{world.other(who).name} gave {who.gender.him} some ")
    food = world.draw.choose(world.lexicon.foods)
    world.say(f"{food}.")
    world.done.add("eat")
    world.facts[f"What did {who.name} eat?"] = food


def _fall(world: World) -> None:
    who = world.somebody()
    world.say(f" {who.name} fell and hurt {who.gender.his} ")
    ache = world.draw.choose(world.lexicon.aches)
    world.say(f"{ache}.")
    world.done.add("fall")
    if world.friend is None:
        world.say(f" But {who.gender.he} was {who.trait} and got up again.")
    else:
        world.say(f" {world.other(who).name} helped {who.gender.him} up.")
    world.facts[f"What did {who.name} hurt?"] = f"{who.gender.his} {ache}"


def _count(world: World) -> None:
    draw, say, hero = world.draw, world.say, world.hero
    numbers = range(2, world.lexicon.counts + 1)
    assert world.friend is not None
    mine = draw.choose(numbers)
    say(f" {hero.name} picked {mine} ")
    fruit = draw.choose(world.lexicon.fruits)
    say(fruit)
    yours = draw.choose(numbers)
    say(f" and {world.friend.name} picked {yours}. Now they had {mine + yours} {fruit}.")
    world.done.add("count")
    world.facts[f"How many {fruit} did they have?"] = str(mine + yours)


def _possible(world: World) -> list[Callable[[World], None]]:
    events: list[Callable[[World], None]] = []
    events += (event for name, event in _ONCE.items() if name not in world.done)
    if world.can_have_more():
        events.append(_find)
    if len(world.skies) < len(world.lexicon.weathers):
        events.append(_weather)
    if world.holder:
        events.append(_drop)
    if world.friend is not None:
        if "count" not in world.done:
            events.append(_count)
        if world.holder:
            events.append(_give)
            if any(item not in world.told for item in world.holder):
                events.append(_ask)
    return events


_ONCE = {"walk": _walk, "eat": _eat, "fall": _fall}


# -- The end ---------------------------------------------------------------------------------------


def _close(world: World) -> None:
    hero, friend, say = world.hero, world.friend, world.say
    say(f" In the evening {hero.name} went home to {hero.gender.his} {world.relative}.")
    for item, who in world.holder.items():
        if item == world.wish and who is hero:
            say(f" At last {hero.gender.he} had the {item}.")
        else:
            say(f" {who.name} kept the {item}.")
        world.facts[f"Who has the {item} now?"] = who.name
    if world.longing and world.holder.get(world.wish) is not hero:
        say(world.longing)
    for item in world.lost:
        say(f" The {item} was lost.")
        world.facts[f"Who has the {item} now?"] = "nobody"
    if friend is not None:
        say(f" {hero.name} and {friend.name} were friends.")
    say(" " + world.draw.choose(world.lexicon.lessons))


def tell_story(draw: Chooser, say: Say, lexicon: Lexicon) -> dict[str, str]:
    """Say one story; return what can be asked about it, question → answer."""
    world = World(draw, say, lexicon)
    _open(world)
    draw.choose(_PLOTS)(world)
    _set_out(world)
    for event in range(lexicon.events):
        happening: list[Callable[[World], None]] = _possible(world)
        if event >= 2 or lexicon.events == 1:
            happening.append(_close)
        chosen = draw.choose(happening)
        chosen(world)
        if chosen is _close:
            break
    else:
        _close(world)
    return world.facts
