"""Continuous batching: many dialogues at once, each on a row of one cache, none waiting for another.

A dialogue is a generator (a `Job`) that yields turns and is sent their answers; `run` gives it a row,
prefills only what is new, in chunks, decodes all rows together in one jitted loop, and hands a finished
row to the next job in the queue. Shapes are few and static, so nothing is compiled again. Rounds carry
token ids: an answer stays in the cache as it was decoded.
"""

import functools
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bua_jax.basics.console import notice
from bua_jax.basics.errors import ConfigError
from bua_jax.decoding import grammar, programs
from bua_jax.decoding.cache import Chunk, Weights, empty_rows
from bua_jax.decoding.labels import CandidateTree, LabelTree
from bua_jax.decoding.programs import Slots
from bua_jax.decoding.source import Listed, Source
from bua_jax.models.aligned import Aligned

_SHORTEST, _CHUNK = 32, 128  # tokens of a row that one call reads: powers of two between them
_ENDLESS = 2**31 - 1


@dataclass(frozen=True)
class DayTurn:
    """How a generated day is drawn; `row` with the engine's seed names its random stream."""

    weekday: int
    places: tuple[int, ...]
    row: int


@dataclass(frozen=True)
class Turn:
    """What a row reads next, and what it is to do then.

    tokens: the user turn, up to the first token of the answer; its placeholders stand for the events
    `shown`, indices into events int32[L, 4] (None without placeholders). wants: "text" (greedy),
    "day" (drawn as `day` says), "labels" (scores of all labels; the row forgets this turn after it) or
    "nothing" (a part of a long turn; the engine's own).
    """

    tokens: Sequence[int]
    wants: str = "text"
    shown: Sequence[int] = ()
    events: np.ndarray | None = None
    day: DayTurn | None = None


@dataclass(frozen=True)
class Reply:
    """Token ids without the stop token, and whether they were cut at the limit."""

    tokens: list[int]
    cut: bool


Job = Generator[Turn, Any, Any]
"""Yields turns; is sent a `Reply`, or for labels (log_p float32[C], greedy); returns its result."""


@dataclass(frozen=True)
class Drawing:
    """How days are drawn. `tables` is None for days without the grammar."""

    tables: grammar.Tables | None
    temperature: float
    top_p: float
    seed: int
    max_events: int
    max_tokens: int  # then the event at hand is finished and none is begun
    reserve: int  # tokens that finishing it may take

    @property
    def limit(self) -> int:
        """Tokens of a day at most."""
        return self.max_tokens + (self.reserve if self.tables is not None else 0)


@dataclass(frozen=True)
class Engine:
    """A model and the shapes it runs in: `batch` rows of `slots` tokens; answers of `max_new` at most."""

    model: Aligned
    weights: Weights
    stop: int
    batch: int
    slots: int
    max_new: int
    cache_dtype: str = "float32"
    tree: LabelTree | CandidateTree | None = None
    drawing: Drawing | None = None

    @property
    def at_once(self) -> int:
        """Rows that are prefilled together, and for which decoding is interrupted."""
        return max(1, self.batch // 4)


def _empty(engine: Engine) -> Slots:
    longest = max(engine.max_new, engine.drawing.limit if engine.drawing else 0)
    return _empty_slots(engine.model, engine.batch, engine.slots, engine.cache_dtype, longest)


@functools.partial(jax.jit, static_argnums=range(5))  # one small program in place of many
def _empty_slots(model: Aligned, batch: int, length: int, cache_dtype: str, longest: int) -> Slots:
    rows = empty_rows(model, batch, length, cache_dtype)
    tokens = jnp.zeros((batch, longest), jnp.int32)
    counts, stream, *day = (jnp.zeros(batch, jnp.int32) for _ in range(7))
    live, in_day = jnp.zeros(batch, bool), jnp.zeros(batch, bool)
    return programs.placed(
        Slots(rows, tokens, counts, live, in_day, stream, grammar.DayState(*day))
    )


class _Row:
    """A row's job, host side: its turn, which begins at slot `begin`, and the slots it has filled."""

    def __init__(self, key: Any, job: Job) -> None:
        self.key, self.job = key, job
        self.length = self.begin = self.cut_at = 0
        self.turn: Turn = next(job)

    def answered(self, value: Any) -> tuple[bool, Any]:
        """(True, the job's result) if `value` was its last answer; else it has another turn."""
        try:
            self.turn = self.job.send(value)
        except StopIteration as end:
            return True, end.value
        self.begin = self.length
        return False, None


def run(engine: Engine, jobs: Sequence[Callable[[], Job]]) -> Iterator[tuple[int, Any]]:
    """Runs all jobs; yields (index, result) as they finish.

    Where memory runs out, the batch is halved, which is said, and unfinished jobs begin again. Raises
    `ConfigError` if a dialogue outgrows the engine's slots.
    """
    left = dict(enumerate(jobs))
    while left:
        try:
            for number, result in serve(engine, Listed(iter(list(left.items())))):
                del left[number]
                yield number, result
            return
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error) or engine.batch == 1:
                raise
        engine = replace(engine, batch=engine.batch // 2)
        notice(f"out of memory: decoding goes on with {engine.batch} rows at a time")


def serve(  # noqa: C901 (one queue: its branches are what a row can want next)
    engine: Engine, source: Source, most: int = _ENDLESS
) -> Iterator[tuple[Any, Any]]:
    """Runs what `source` has until it ends; yields (key, result) as jobs finish.

    most: tokens after which it asks the source again, though no answer is finished.
    """
    rows: list[_Row | None] = [None] * engine.batch
    asking: list[int] = []  # rows whose turn is to be read
    slots = _empty(engine)
    while True:
        slots = _freed(slots, rows, source)
        asking = [at for at in asking if rows[at] is not None]
        for at in range(engine.batch):
            idle = not any(rows)
            if rows[at] is None and (following := source.take(idle)) is not None:
                rows[at] = _Row(following[0], following[1]())
                asking.append(at)
        again: list[int] = []
        freed = False
        while long := [at for at in asking if len(_row(rows, at).turn.tokens) > _CHUNK]:
            slots = _read_on(engine, slots, rows, long)
        for some in _together(engine, rows, asking):
            turns = [_row(rows, at) for at in some]
            if turns[0].turn.wants == "labels":
                for at, finished, result in _scored(engine, slots, rows, some):
                    if finished:
                        yield _row(rows, at).key, result
                        rows[at], freed = None, True
                    else:
                        again.append(at)
            else:
                slots = _begin(engine, slots, rows, some)
        asking = again
        if freed or again:
            continue
        live = [at for at, row in enumerate(rows) if row is not None]
        if not live:
            return
        slots = _answer(engine, slots, min(engine.at_once, len(live)), most)
        done = ~np.asarray(slots.live)
        tokens, counts = np.asarray(slots.tokens), np.asarray(slots.counts)
        for at in live:
            row = _row(rows, at)
            if not done[at]:
                source.heard(row.key, tokens[at, : counts[at]].tolist())
                continue
            answer = Reply(tokens[at, : counts[at]].tolist(), bool(counts[at] >= row.cut_at))
            row.length += int(counts[at]) + 1
            finished, result = row.answered(answer)
            if finished:
                yield row.key, result
                rows[at] = None
            else:
                asking.append(at)


def _freed(slots: Slots, rows: list[_Row | None], source: Source) -> Slots:
    """Without the rows whose jobs nobody wants any more; their part of `rows` is empty after it."""
    gone = [at for at, row in enumerate(rows) if row is not None and source.gone(row.key)]
    if not gone:
        return slots
    for at in gone:
        _row(rows, at).job.close()
        rows[at] = None
    return slots._replace(live=slots.live.at[np.asarray(gone)].set(False))


def _scored(
    engine: Engine, slots: Slots, rows: Sequence[_Row | None], some: list[int]
) -> Iterator[tuple[int, bool, Any]]:
    """(row, whether its job is finished, its result) of rows whose turn wants the labels' scores."""
    assert engine.tree is not None
    scores = programs.score(
        engine.model,
        engine.weights,
        slots.rows,
        *_next_chunk(engine, rows, some),
        tree=engine.tree,
        stop=engine.stop,
    )
    log_p, greedy = map(np.asarray, scores)
    for i, at in enumerate(some):
        row = _row(rows, at)
        row.length = row.begin
        yield at, *row.answered((log_p[i], int(greedy[i])))


def _row(rows: Sequence[_Row | None], at: int) -> _Row:
    row = rows[at]
    assert row is not None
    return row


def _together(
    engine: Engine, rows: Sequence[_Row | None], asking: list[int]
) -> Iterator[list[int]]:
    """Rows that one call can serve together: of one kind, and of about the same length."""
    kinds: dict[tuple, list[int]] = {}
    for at in asking:
        turn = _row(rows, at).turn
        soft = turn.events is not None
        kinds.setdefault((turn.wants == "labels", soft, _bucket(len(turn.tokens))), []).append(at)
    for members in kinds.values():
        for begin in range(0, len(members), engine.at_once):
            yield members[begin : begin + engine.at_once]


def _bucket(n: int) -> int:
    """The power of two, 32 at least, that holds n: few shapes are compiled."""
    return max(_SHORTEST, 1 << (n - 1).bit_length())


def _next_chunk(engine: Engine, rows: Sequence[_Row | None], some: list[int]):
    """(row numbers int32[n], their lengths int32[n], chunk), padded to one of two numbers of rows.

    The rows' lengths grow by it. Raises `ConfigError` if one outgrows its slots.
    """
    most = engine.at_once
    size = max(1, most // 4) if len(some) <= most // 4 else most
    which = np.full(size, engine.batch, np.int32)
    lengths, counts = np.zeros(size, np.int32), np.zeros(size, np.int32)
    turns = [_row(rows, at).turn for at in some]
    tokens = np.zeros((size, _bucket(max(len(turn.tokens) for turn in turns))), np.int32)
    for i, at in enumerate(some):
        row = _row(rows, at)
        which[i], lengths[i], counts[i] = at, row.length, len(row.turn.tokens)
        tokens[i, : counts[i]] = row.turn.tokens
        room = 0
        if row.turn.wants in ("text", "day"):
            drawing = engine.drawing if row.turn.wants == "day" else None
            row.cut_at = drawing.limit if drawing else engine.max_new
            room = row.cut_at + 1
        row.length += int(counts[i])
        if row.length + room > engine.slots:
            raise ConfigError(
                f"A dialogue needs {row.length + room} tokens of cache, and a row has {engine.slots}."
            )
    with_events = [turn.events for turn in turns if turn.events is not None]
    if not with_events:
        return which, lengths, Chunk(tokens, counts)
    longest = _bucket(max(map(len, with_events)))
    events, event_counts = np.zeros((size, longest, 4), np.int32), np.zeros(size, np.int32)
    soft_index = np.zeros_like(tokens)
    for i, turn in enumerate(turns):
        if turn.events is None:
            continue
        event_counts[i] = len(turn.events)
        events[i, : event_counts[i]] = turn.events
        soft_index[i, tokens[i] == engine.model.soft_id] = turn.shown
    return which, lengths, Chunk(tokens, counts, soft_index, events, event_counts)


def _read_on(engine: Engine, slots: Slots, rows: Sequence[_Row | None], long: list[int]) -> Slots:
    """The rows read the first chunk of their turns, and have the rest before them."""
    rest: list[Turn] = []
    for at in long:
        row = _row(rows, at)
        row.turn, after = _split(row.turn, engine.model.soft_id)
        rest.append(after)
    for some in _together(engine, rows, long):  # by what the chunks hold, not the whole turns
        slots = _begin(engine, slots, rows, some)
    for at, turn in zip(long, rest, strict=True):
        _row(rows, at).turn = turn
    return slots


def _split(turn: Turn, soft_id: int) -> tuple[Turn, Turn]:
    """A turn's first chunk, after which nothing is wanted, and the rest; each with its soft tokens."""
    front = turn.tokens[:_CHUNK]
    shown = sum(token == soft_id for token in front)

    def part(tokens: Sequence[int], shown: Sequence[int], wants: str) -> Turn:
        events = turn.events if len(shown) else None
        return replace(turn, tokens=tokens, wants=wants, shown=shown, events=events)

    first = replace(part(front, turn.shown[:shown], "nothing"), day=None)
    return first, part(turn.tokens[_CHUNK:], turn.shown[shown:], turn.wants)


def _begin(engine: Engine, slots: Slots, rows: Sequence[_Row | None], some: list[int]) -> Slots:
    """The rows read their turns and begin to answer, where something is wanted."""
    which, lengths, chunk = _next_chunk(engine, rows, some)
    answers = np.asarray([_row(rows, at).turn.wants != "nothing" for at in some])
    answers = np.resize(answers, len(which))  # the rest is padding, which is dropped
    in_day, stream = np.zeros(len(which), bool), np.zeros(len(which), np.int32)
    start = np.zeros((5, len(which)), np.int32)
    for i, at in enumerate(some):
        day = _row(rows, at).turn.day
        if day is not None:
            in_day[i], stream[i] = True, day.row
            start[:, i] = grammar.start_of(day.weekday, day.places)
    return programs.read(
        engine.model,
        engine.weights,
        slots,
        which,
        lengths,
        answers,
        in_day,
        stream,
        tuple(start),
        chunk,
    )


def _answer(engine: Engine, slots: Slots, wanted: int, most: int) -> Slots:
    drawing = engine.drawing
    tables, settings, limits, greedy = None, None, None, True
    if drawing is not None:
        greedy, tables = drawing.temperature == 0, drawing.tables
        key = jax.random.key(drawing.seed)
        settings = (max(drawing.temperature, 1e-6), drawing.top_p, key)
        limits = (drawing.max_events, drawing.max_tokens, drawing.limit)
    return programs.decode(
        engine.model,
        engine.weights,
        slots,
        tables,
        settings,
        (wanted, most),
        stop=engine.stop,
        max_new=engine.max_new,
        limits=limits,
        greedy=greedy,
    )
