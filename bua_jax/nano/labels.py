"""Label sets as strangers write them: phrases, invented words, other scripts, emoji, codes.

Every world of nano's corpus draws a set of its own, so that a label is read off the prompt and never
recalled. The words of phrases come from `lexicon.txt`; everything else is made of characters.
"""

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from random import Random

from bua_jax.events.names import writable

_FORBIDDEN = ";<>|"  # what `Catalogue` refuses of what can be written

MOST_LABELS = 48
LONGEST = 40  # characters of a drawn label

# First and last code point of letters that words of other scripts are drawn from, and word lengths.
SCRIPTS = (
    (0x00E0, 0x00F6, 3, 8),  # accented Latin, among plain letters
    (0x0430, 0x044F, 3, 9),  # Cyrillic
    (0x03B1, 0x03C9, 3, 8),  # Greek
    (0x05D0, 0x05EA, 3, 6),  # Hebrew
    (0x0627, 0x064A, 3, 6),  # Arabic
    (0x0905, 0x0939, 2, 5),  # Devanagari
    (0x0E01, 0x0E2E, 2, 5),  # Thai
    (0x3042, 0x3093, 2, 5),  # Hiragana
    (0x30A2, 0x30F3, 2, 5),  # Katakana
    (0xAC00, 0xD7A3, 1, 3),  # Hangul
    (0x4E00, 0x9FA5, 1, 4),  # Chinese characters
)
_EMOJI = (
    (0x1F600, 0x1F64F),
    (0x1F300, 0x1F5FF),
    (0x1F680, 0x1F6C5),
    (0x1F950, 0x1F9FF),
    (0x2600, 0x26FF),
)
_PLANES = (
    *((0x00A1, 0x024F), (0x0250, 0x07FF), (0x0800, 0x1FFF), (0x2190, 0x2BFF), (0xE000, 0xFFFD)),
    *((0x10000, 0x1FFFD), (0x40000, 0x7FFFD), (0x80000, 0xBFFFD), (0xC0000, 0xFFFFD)),
    (0x100000, 0x10FFFD),
)


@cache
def lexicon() -> dict[str, tuple[str, ...]]:
    """Words by category: verb, noun, modifier."""
    text = (Path(__file__).parent / "lexicon.txt").read_text(encoding="utf-8")
    lines = (line.partition(":") for line in text.splitlines() if line)
    return {name: tuple(dict.fromkeys(words.split())) for name, _, words in lines}


def _phrase(rng: Random) -> str:
    words = lexicon()
    noun, verb = rng.choice(words["noun"]), rng.choice(words["verb"])
    form = rng.randrange(8)
    if form == 0:
        return noun
    if form == 1:
        return verb
    if form in (2, 3, 4):
        return f"{verb} {noun}"
    if form == 5:
        return f"{rng.choice(words['modifier'])} {noun}"
    if form == 6:
        return f"{verb} {rng.choice(words['modifier'])} {noun}"
    return (
        f"{noun} {rng.choice(('&', 'and', 'or', 'with', 'at', 'for'))} {rng.choice(words['noun'])}"
    )


@cache
def _followers() -> dict[str, str]:
    """Letters (and the end, "$") that follow two letters in the lexicon, as often as they do."""
    found: dict[str, list[str]] = {}
    for words in lexicon().values():
        for word in words:
            text = f"^^{word}$"
            for i in range(2, len(text)):
                found.setdefault(text[i - 2 : i], []).append(text[i])
    return {pair: "".join(letters) for pair, letters in found.items()}


def _invented_word(rng: Random) -> str:
    """A word that is spelled as the lexicon's are, and is rarely one of them."""
    text = "^^"
    while len(text) < 12:
        letter = rng.choice(_followers()[text[-2:]])
        if letter == "$" and len(text) > 4:
            break
        text += letter if letter != "$" else rng.choice("aeiou")
        if text[-2:] not in _followers():
            break
    return text[2:]


def _invented(rng: Random) -> str:
    return " ".join(_invented_word(rng) for _ in range(rng.choice((1, 1, 2))))


def _letters(rng: Random) -> str:
    return "".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(rng.randint(2, 7)))


def _code(rng: Random) -> str:
    head = "".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(rng.randint(1, 3)))
    head = head.upper() if rng.random() < 0.5 else head
    return f"{head}{rng.choice(('', '', '-', '_', ' '))}{rng.randint(0, 120)}"


def _script_word(rng: Random, script: tuple[int, int, int, int]) -> str:
    first, last, shortest, longest = script
    letters = [chr(rng.randint(first, last)) for _ in range(rng.randint(shortest, longest))]
    if first == 0x00E0:
        letters = [c if rng.random() < 0.3 else rng.choice("abdefgiklmnoprstu") for c in letters]
    return "".join(letters)


def _emoji(rng: Random) -> str:
    signs = "".join(chr(rng.randint(*rng.choice(_EMOJI))) for _ in range(rng.choice((1, 1, 2))))
    return signs if rng.random() < 0.6 else f"{signs} {rng.choice(lexicon()['noun'])}"


def _any_signs(rng: Random) -> str:
    """Code points of any plane, so that each byte of UTF-8 is met."""
    return "".join(chr(rng.randint(*rng.choice(_PLANES))) for _ in range(rng.randint(1, 3)))


def _styled(maker: Callable[[Random], str], rng: Random) -> Callable[[Random], str]:
    """`maker` in one way of writing: plain, Capitalised, UPPER, with underscores or hyphens."""
    style = rng.randrange(8)
    if style == 0:
        return lambda r: maker(r).title()
    if style == 1:
        return lambda r: maker(r).capitalize()
    if style == 2:
        return lambda r: maker(r).upper()
    if style == 3:
        return lambda r: maker(r).replace(" ", rng.choice("_-/"))
    return maker


def _family(maker: Callable[[Random], str], rng: Random) -> Callable[[Random], str]:
    """Labels that share a few beginnings."""
    heads = [maker(rng) for _ in range(rng.randint(1, 4))]
    return lambda r: r.choice(heads) + r.choice(("", " ", " ")) + maker(r)


_MAKERS: dict[str, tuple[Callable[[Random], str], float]] = {
    "phrase": (_phrase, 40),
    "invented": (_invented, 20),
    "letters": (_letters, 5),
    "code": (_code, 6),
    "emoji": (_emoji, 5),
    "signs": (_any_signs, 2),
}


def _maker(rng: Random, pieces: Sequence[str]) -> Callable[[Random], str]:
    """A way of making the labels of a set. `pieces` are texts of a tokenizer's ids."""
    weights = {**{name: weight for name, (_, weight) in _MAKERS.items()}, "script": 14.0}
    weights["pieces"] = 8.0 if pieces else 0.0
    kind = rng.choices([*weights], [*weights.values()])[0]
    if kind == "pieces":
        return lambda r: "".join(r.choice(pieces) for _ in range(r.randint(1, 4)))
    if kind == "script":
        script = rng.choice(SCRIPTS)
        words = rng.choice((1, 1, 2))
        return lambda r: " ".join(_script_word(r, script) for _ in range(words))
    maker = _MAKERS[kind][0]
    maker = _styled(maker, rng) if kind in ("phrase", "invented") else maker
    return _family(maker, rng) if kind != "emoji" and rng.random() < 0.15 else maker


def label_set(rng: Random, count: int, pieces: Sequence[str] = ()) -> tuple[str, ...]:
    """`count` different labels, in the order in which they were drawn.

    `pieces`: texts of a tokenizer's ids, of which some sets are composed, so that every id is met.
    """
    makers = [_maker(rng, pieces) for _ in range(1 if rng.random() < 0.8 else 2)]
    found: dict[str, None] = {}
    tries = 0
    while len(found) < count:
        tries += 1
        label = rng.choice(makers)(rng).strip() if tries < 4 * count else _invented(rng)
        fits = label and len(label) <= LONGEST and writable(label)
        if fits and not any(c in label for c in _FORBIDDEN):
            found[label] = None
    return tuple(found)
