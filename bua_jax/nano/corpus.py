"""nano's corpus: dialogues about worlds that are drawn anew for each.

A dialogue's history is written in words, given as vectors (an event's words' embeddings, weighted and
summed), or half and half. Its rounds are reading drills, the understanding rounds by the rules, and
questions about earlier answers. No answer is about an event after the window: there is no prediction,
no generated day and no future scene.

A vector may hold, faintly, the labels of a distribution drawn at random; the drill `FAINT` reads one
off the last vector. A fitted projector leaves such mixtures (`alignment/warm_start.py`).
"""

import dataclasses
from dataclasses import dataclass, field
from functools import partial
from random import Random

import numpy as np

from bua_jax.dialogue.critic import build_refinement, critique
from bua_jax.dialogue.facts import Window
from bua_jax.dialogue.prompts import label_tokens, next_turn, opening
from bua_jax.dialogue.rounds import UNDERSTANDING, Round
from bua_jax.dialogue.rules import ANNOTATORS, summary
from bua_jax.dialogue.tasks import INSTRUCTIONS
from bua_jax.dialogue.text import history_text
from bua_jax.events.schema import History
from bua_jax.interop.tokenizer import HFTokenizer
from bua_jax.nano.drills import COPIES, DRILLS, FAINT, Drill, echo
from bua_jax.nano.settings import FORMS, Phase
from bua_jax.nano.vectors import event_vectors, faint_labels
from bua_jax.nano.worlds import World, draw_world, window_of

OTHER_KINDS = ("reconstruction", "current_scene", "home_work", "hobbies", "refinement")
MOST = {"vectors": 44, "words": 16, "mixed": 28}  # events of a history
USUAL = 40  # events of many histories given as vectors, where they may be as long
RECALLED = 8  # vectors that a later turn repeats, at most


@dataclass
class Encoded:
    """A dialogue as tokens, aligned int lists of length T, and its events' vectors.

    vectors float32[S, U] are weights of the table's rows `columns` int64[U].
    """

    room: int  # tokens that it may have
    tokens: list[int] = field(default_factory=list)
    answer: list[int] = field(default_factory=list)  # 1-based round on answers' tokens, else 0
    shown: list[int] = field(default_factory=list)  # which vector a placeholder takes, else 0
    columns: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    vectors: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    rounds: list[Round] = field(default_factory=list)


def _answered(name: str, window: Window) -> Round:
    return Round(name, INSTRUCTIONS[name], ANNOTATORS[name](window))


def _kind(name: str, window: Window, world: World) -> Round | None:
    """An understanding round by the rules; a refinement is of a summary of the window's first half."""
    if name == "refinement":
        draft = summary(window_of(world, 0, max(2, len(window.slots) // 2), "draft"))
        return build_refinement(window, draft, critique(window, draft))
    if name == "home_work" and not window.catalogue.has_places:
        return None
    return _answered(name, window)


def draw_copies(rng: Random, window: Window) -> list[Round]:
    """Drills whose answers are pieces of the prompt."""
    drawn = rng.choices([*COPIES], [*COPIES.values()], k=rng.randint(2, 6))
    rounds = [turn for drill in drawn if (turn := _drilled(drill, window, rng)) is not None]
    if len(rounds) > 1 and rng.random() < 0.5:
        rounds.append(echo(rounds, rng))
    return rounds


def _drilled(drill: Drill, window: Window, rng: Random) -> Round | None:
    turn = drill(window, rng)
    return turn and dataclasses.replace(turn, kind=drill.__name__)


def draw_rounds(rng: Random, window: Window, world: World) -> list[Round]:
    """Understanding rounds and drills in one of three mixtures."""
    plan = rng.random()
    kinds: list[str] = []
    if plan < 0.4:
        kinds, count = list(UNDERSTANDING[: rng.choice((1, 2, 3, 3, 3))]), rng.randint(0, 3)
    elif plan < 0.55:
        kinds, count = [rng.choice(OTHER_KINDS)], rng.randint(1, 3)
    else:
        count = rng.randint(3, 8)
    chosen = [_kind(name, window, world) for name in kinds]
    rounds = [turn for turn in chosen if turn is not None]
    for drill in rng.choices([*DRILLS], [*DRILLS.values()], k=count):
        if (turn := _drilled(drill, window, rng)) is not None:
            rounds.insert(rng.randint(0, len(rounds)), turn)
    if len(rounds) > 1 and rng.random() < 0.3:
        rounds.append(echo(rounds, rng))
    return rounds or [_answered("key_behaviours", window)]


def _part(seen: History, part: slice) -> History:
    """Some consecutive events of a history."""
    values = {f.name: getattr(seen, f.name)[part].copy() for f in dataclasses.fields(History)}
    values["gap"][:1] = False
    return History(**values)


@dataclass(frozen=True)
class _Prompt:
    """How a history is given: which of its events as vectors, and the others in words."""

    given: range
    words: str
    vectors_first: bool


def _draw_prompt(rng: Random, form: str, window: Window) -> _Prompt:
    length = len(window.slots)
    count = {"vectors": length, "words": 0, "mixed": rng.randint(1, length - 1)}[form]
    vectors_first = form != "mixed" or rng.random() < 0.5
    given = range(count) if vectors_first else range(length - count, length)
    if count == length:
        return _Prompt(given, "", vectors_first)
    spelled = slice(count, length) if vectors_first else slice(0, length - count)
    words = history_text(window.catalogue, _part(window.history, spelled))
    return _Prompt(given, words + "\n", vectors_first)


def _first_turn(tokenizer: HFTokenizer, prompt: _Prompt, instruction: str) -> list[int]:
    """The opening with the history as vectors, in words, or both in one of the two orders."""
    if prompt.vectors_first:
        return opening(tokenizer, len(prompt.given), prompt.words + instruction)
    whole = opening(tokenizer, len(prompt.given), instruction)
    head = 1 + len(tokenizer.encode("user\n"))
    return [*whole[:head], *tokenizer.encode(prompt.words), *whole[head:]]


def _append(
    encoded: Encoded, tokenizer: HFTokenizer, prompt: _Prompt, turn: Round, again: range
) -> bool:
    """Adds a round whose user turn shows the vectors `again`; False, and nothing, where it is too long."""
    if encoded.rounds:
        head = next_turn(tokenizer, turn.instruction, len(again))
    else:
        head = _first_turn(tokenizer, prompt, turn.instruction)
    encode = partial(label_tokens, tokenizer) if turn.kind == "faint" else tokenizer.encode
    body = [*encode(turn.answer), tokenizer.im_end]
    if len(encoded.tokens) + len(head) + len(body) > encoded.room:
        return False
    places = iter(again)
    encoded.shown += [next(places) if t == tokenizer.soft else 0 for t in head]
    encoded.shown += [0] * len(body)
    encoded.tokens += head + body
    encoded.rounds.append(turn)
    encoded.answer += [0] * len(head) + [len(encoded.rounds)] * len(body)
    return True


def draw_dialogue(
    rng: Random, tokenizer: HFTokenizer, pieces: tuple[str, ...], room: int, phase: Phase
) -> Encoded:
    """A dialogue of at most `room` tokens, with as many of its rounds as fit."""
    form = rng.choices(FORMS, phase.forms)[0]
    longest = min(phase.longest, MOST[form])
    length = USUAL if longest > USUAL and rng.random() < 0.4 else rng.randint(2, longest)
    world = draw_world(rng, length, pieces)
    window = window_of(world, 0, length, f"{rng.random():.9f}")
    prompt = _draw_prompt(rng, form, window)
    plain = rng.random() < phase.copies
    rounds = draw_copies(rng, window) if plain else draw_rounds(rng, window, world)
    encoded = Encoded(room)
    if prompt.given:
        faint, labels = None, window.catalogue.behaviours
        if rng.random() < phase.faint:
            faint = faint_labels(np.random.default_rng(rng.getrandbits(32)), length, len(labels))
            if prompt.given[-1] == length - 1 and rng.random() < 0.8:
                drawn = rng.choices(labels, faint[-1].tolist())[0]
                rounds.insert(rng.randint(0, len(rounds)), Round("faint", FAINT, drawn))
        encoded.columns, encoded.vectors = event_vectors(tokenizer, window, faint)
    for turn in rounds:
        again = prompt.given
        if encoded.rounds:
            repeats = prompt.given and rng.random() < 0.3
            again = again[-rng.randint(1, RECALLED) :] if repeats else again[:0]
        if not _append(encoded, tokenizer, prompt, turn, again):
            break
    return encoded
