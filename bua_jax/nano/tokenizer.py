"""nano's tokenizer: byte-level BPE over label sets of all kinds, the instructions, times and places.

Bytes that no text holds (control characters but the line break, and what UTF-8 never uses) are left
out of the alphabet, so that every id can be met in pretraining.
"""

from collections.abc import Iterator
from random import Random

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, trainers

from bua_jax.dialogue.rules import ANNOTATORS, NOTHING
from bua_jax.dialogue.tasks import INSTRUCTIONS, generation_instruction
from bua_jax.dialogue.text import history_text
from bua_jax.events.schema import WEEKDAYS
from bua_jax.interop.tokenizer import IM_END, IM_START, byte_of_character
from bua_jax.nano.drills import DRILLS, FAINT
from bua_jax.nano.labels import SCRIPTS, label_set, lexicon
from bua_jax.nano.worlds import draw_world, window_of

_SPLIT = Regex(r" ?\d\d:\d\d| ?L\d\d?\b| ?\p{L}+| ?\d+| ?[^\s\p{L}\d]+|\s+(?!\S)|\s+")
_SPECIALS = (IM_START, IM_END)
_FREE_ROWS = 3  # for the soft tokens


def alphabet() -> list[str]:
    """Characters of the byte-level alphabet whose bytes occur in text."""
    used = {0x0A, *range(0x20, 0x7F), *range(0x80, 0xC0), *range(0xC2, 0xF5)}
    return [character for character, byte in byte_of_character().items() if byte in used]


def _lines(count: int) -> Iterator[str]:
    """Text to learn merges from: `count` worlds, their labels, and all that is fixed."""
    for number in range(count):
        rng = Random(f"tokenizer|{number}")
        window = window_of(draw_world(rng, 12), 0, 12, str(number))
        for label in label_set(rng, 12):
            yield f" {label}"
        if number % 4 == 0:
            yield history_text(window.catalogue, window.history)
            yield from (write(window) for write in ANNOTATORS.values())
            for drill in DRILLS:
                turn = drill(window, rng)
                if turn is not None:
                    yield from (turn.instruction, turn.answer)
    fixed = [*INSTRUCTIONS.values(), *NOTHING, FAINT, *map(generation_instruction, range(7))]
    fixed += [f"{day[:3]} {day}" for day in WEEKDAYS]
    clocks = [f"{hour:02d}:{minute:02d}" for hour in range(24) for minute in (0, 30)]
    fixed += [f"Mon {clock} L{i} other; {clock}" for clock in clocks for i in range(1, 11)]
    fixed += [f" {n} {n}; {n}" for n in range(100)]
    fixed += [
        f"{chr(c)} {chr(c)}" for first, last, *_ in SCRIPTS[:9] for c in range(first, last + 1)
    ]
    for text in fixed:
        yield from [text] * max(1, count // 40)
    for words in lexicon().values():
        yield from (f" {word}" for word in words)


def train_tokenizer(rows: int, count: int = 4000) -> tokenizers.Tokenizer:
    """A tokenizer for a table of `rows` rows, of which three stay free."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(_SPLIT, behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=rows - len(_SPECIALS) - _FREE_ROWS,
        initial_alphabet=alphabet(),
        limit_alphabet=256,
        min_frequency=2,
        max_token_length=12,
        show_progress=False,
    )
    tokenizer.train_from_iterator(_lines(count), trainer)
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in _SPECIALS])
    return tokenizer


def pieces(tokenizer: tokenizers.Tokenizer) -> tuple[str, ...]:
    """Texts of the ids that are whole characters, in the order of the ids; no line breaks."""
    found = (
        tokenizer.decode([i]) for i in range(tokenizer.get_vocab_size(with_added_tokens=False))
    )
    return tuple(text for text in found if text.strip() and "\ufffd" not in text)
