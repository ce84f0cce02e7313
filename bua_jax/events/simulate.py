"""The built-in simulated population: personas with routines, phases and hobbies.

Each person has a latent persona (work pattern, chronotype, hobbies, home and work places, a change of
phase for some). A day is a sequence of phases (morning, commute, work, lunch, leisure, evening); in a
phase behaviours follow each other by small rules that need more than the last event:

* staple behaviours come from the phase and the person's own favourites, so counting a window helps;
* most events are followed by their usual successor (subway -> pay), so a Markov chain helps more;
* a trigger pair (A then B) calls a rare behaviour C, another one in each half of the week. C itself is
  below 1 % of events and B is common: frequency never predicts it, context does.

Everything of person k depends on (seed, k) alone, so a larger population begins with the smaller one.
As a command it streams a population of any size to a parquet file that the readers take:

python -m bua_jax.events.simulate --users=100000 --days=60 --seed=1 --output=events.parquet
"""

import argparse
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from bua_jax.basics import interrupts
from bua_jax.basics.console import out, progress
from bua_jax.basics.errors import DataError
from bua_jax.basics.files import atomic_write
from bua_jax.events.schema import Catalogue, EventStore
from bua_jax.events.split import split_users

SLOTS = 48
DAILY = (
    "read news",
    "watch video",
    "chat",
    "pay",
)
STAPLES = (
    "alarm",
    "check weather",
    "subway",
    "drive",
    "breakfast",
    "email",
    "meeting",
    "edit document",
    "order takeout",
    "browse shop",
    "listen music",
    "play game",
    "phone call",
    "cook",
    "sleep mode",
)
TRIGGERS = {
    # (first, second): (Monday to Wednesday, Thursday to Sunday); a rare behaviour has one cause
    ("read news", "listen music"): ("learn words", "visit museum"),
    ("breakfast", "phone call"): ("track stocks", "water plants"),
    ("chat", "email"): ("book travel", "scan receipt"),
    ("watch video", "edit document"): ("edit video", "fix bike"),
    ("chat", "browse shop"): ("compare prices", "redeem coupon"),
    ("pay", "watch video"): ("live stream", "bake bread"),
    ("pay", "check weather"): ("park car", "refuel"),
    ("read news", "play game"): ("join tournament", "board game"),
    ("watch video", "check weather"): ("go running", "hike"),
}
TAIL = tuple(name for pair in TRIGGERS.values() for name in pair)
BEHAVIOURS = tuple(sorted(DAILY + STAPLES + TAIL))
_ID = {name: i for i, name in enumerate(BEHAVIOURS)}

PATTERNS = ("office", "shift", "student", "home office", "retired")
CHRONOTYPES = ("early", "middle", "late")
HOBBIES = ("watch video", "read news", "play game", "listen music", "browse shop", "cook", "chat")

# What belongs to a phase: the pool that favourites and successors are drawn from.
PHASES: dict[str, tuple[str, ...]] = {
    "morning": ("check weather", "breakfast", "read news", "listen music", "email"),
    "commute": ("subway", "drive", "pay", "listen music", "read news", "chat"),
    "work": ("email", "meeting", "edit document", "phone call", "chat"),
    "lunch": ("order takeout", "pay", "browse shop", "email", "meeting"),
    "evening": ("cook", "watch video", "play game", "browse shop", "chat", "order takeout"),
    "leisure": ("drive", "play game", "listen music", "browse shop", "cook", "phone call"),
}
# The usual successor of a behaviour within a phase; a person has each rule with its own strength.
SUCCESSOR = {
    "alarm": "breakfast",
    "check weather": "breakfast",
    "breakfast": "check weather",
    "subway": "chat",
    "drive": "phone call",
    "order takeout": "pay",
    "browse shop": "phone call",
    "email": "edit document",
    "meeting": "order takeout",
    "edit document": "meeting",
    "cook": "listen music",
    "play game": "watch video",
    "pay": "order takeout",
    "phone call": "email",
    "read news": "check weather",
    "watch video": "cook",
}
_TRIGGER_PROBABILITY = 0.85  # that a completed pair calls its rare behaviour
_ROUTINE = 0.11  # that a step of a phase is a pair, begun on purpose
_SIGNATURE = 0.2  # that a step is the person's signature behaviour
_SPONTANEOUS = 0.03  # that a step is a rare behaviour without its cause
_NOISE = 0.05


@dataclass(frozen=True)
class Persona:
    """Ground truth of one person; saved apart from the events."""

    user: str
    pattern: str
    chronotype: str
    hobbies: tuple[str, ...]
    home: int  # area codes of the person's ten places
    work: int  # -1 where there is no separate work place
    commute: str  # subway or drive
    wake_slot: int
    change_day: int  # first day of the second phase of life; -1 = none


@dataclass(frozen=True)
class _Plan:
    """The parts of a person that shape days, drawn once per phase of life."""

    favourites: dict[str, np.ndarray]  # phase -> probability over its pool
    follow: dict[int, float]  # behaviour -> probability of its usual successor
    hobby_places: dict[str, int]
    signature: str  # what the person does at any time of the day


def _persona(rng: np.random.Generator, index: int, days: int) -> Persona:
    pattern = str(rng.choice(PATTERNS, p=(0.4, 0.12, 0.2, 0.16, 0.12)))
    chronotype = str(rng.choice(CHRONOTYPES, p=(0.3, 0.45, 0.25)))
    count = int(rng.integers(2, 5))
    hobbies = tuple(sorted(str(h) for h in rng.choice(HOBBIES, count, replace=False)))
    areas = index * 10 + rng.permutation(10)
    away = pattern in ("office", "shift", "student")
    return Persona(
        user=f"p{index:06d}",
        pattern=pattern,
        chronotype=chronotype,
        hobbies=hobbies,
        home=int(areas[0]),
        work=int(areas[1]) if away else -1,
        commute=str(rng.choice(["subway", "drive"], p=(0.5, 0.5))),
        wake_slot={"early": 12, "middle": 14, "late": 17}[chronotype] + int(rng.integers(0, 2)),
        change_day=int(days * rng.uniform(0.35, 0.65)) if rng.random() < 0.25 else -1,
    )


def _plan(rng: np.random.Generator, persona: Persona) -> _Plan:
    favourites = {}
    for phase, pool in PHASES.items():
        weight = rng.dirichlet(np.full(len(pool), 0.4))
        liked = np.asarray([name in persona.hobbies for name in pool])
        weight = weight + (0.35 * liked if phase in ("evening", "leisure") else 0.1 * liked)
        for i, name in enumerate(pool):
            if name in ("subway", "drive") and name != persona.commute:
                weight[i] = 0.0
        favourites[phase] = weight / weight.sum()
    follow = {_ID[name]: float(rng.choice([0.05, 0.85])) for name in SUCCESSOR}
    places = {h: int(persona.home - persona.home % 10 + rng.integers(0, 10)) for h in HOBBIES}
    return _Plan(favourites, follow, places, str(rng.choice(DAILY)))


def _day_phases(
    persona: Persona, weekday: int, rng: np.random.Generator
) -> list[tuple[str, int, int]]:
    """(phase, start slot, number of events) of a day."""
    weekend = weekday >= 5
    wake = persona.wake_slot + (2 if weekend else 0)
    if weekend or persona.pattern == "retired":
        plan = [("morning", wake, 2), ("leisure", 24, 2), ("leisure", 31, 1), ("evening", 39, 2)]
    elif persona.pattern == "home office":
        plan = [("morning", wake, 1), ("work", 19, 3), ("lunch", 26, 1), ("evening", 38, 2)]
    elif persona.pattern == "shift" and weekday % 2 == 0:
        plan = [("leisure", 22, 2), ("commute", 27, 1), ("work", 29, 2), ("commute", 43, 1)]
    else:
        middle = ("leisure", 20, 2) if persona.pattern == "student" else ("work", 20, 2)
        commute = ("commute", wake + 2, 1)
        plan = [
            ("morning", wake, 1),
            commute,
            middle,
            ("lunch", 26, 1),
            ("commute", 36, 1),
            ("evening", 40, 2),
        ]
    return [(name, start + int(rng.integers(0, 2)), count) for name, start, count in plan]


def _place(persona: Persona, plan: _Plan, phase: str, name: str, rng: np.random.Generator) -> int:
    if rng.random() < _NOISE:
        return persona.home - persona.home % 10 + int(rng.integers(0, 10))
    if phase in ("work", "lunch") and persona.work >= 0:
        return persona.work
    if phase == "leisure" and name in persona.hobbies:
        return plan.hobby_places[name]
    return persona.home


def _person(  # noqa: C901 (one stream of draws: their order is the population)
    seed: int, index: int, days: int
) -> tuple[Persona, dict[str, np.ndarray]]:
    """One person's persona and events as columns day, weekday, slot, location, behaviour."""
    rng = np.random.default_rng([seed, index])
    persona = _persona(rng, index, days)
    plans = [_plan(rng, persona), _plan(rng, persona)]
    pairs = list(TRIGGERS)
    rows: list[tuple[int, int, int, int, int]] = []
    before, last = -1, -1

    def emit(day: int, weekday: int, slot: int, location: int, behaviour: int) -> None:
        nonlocal before, last
        rows.append((day, weekday, min(slot, SLOTS - 1), location, behaviour))
        before, last = last, behaviour

    for day in range(days):
        weekday = day % 7
        plan = plans[int(0 <= persona.change_day <= day)]
        if rng.random() < (0.7 if weekday < 5 else 0.2):
            emit(day, weekday, persona.wake_slot + 2 * (weekday >= 5), persona.home, _ID["alarm"])
        slot = 0
        half = int(weekday >= 3)
        for phase, start, count in _day_phases(persona, weekday, rng):
            slot = max(slot, start)
            pool = PHASES[phase]
            queue = [_ID[persona.commute]] if phase == "commute" else []
            for _ in range(count + int(rng.random() < 0.3)):
                if not queue and rng.random() < _ROUTINE:
                    pair = pairs[int(rng.integers(len(pairs)))]
                    queue = [_ID[pair[0]], _ID[pair[1]]]
                elif not queue and rng.random() < _SIGNATURE:
                    queue = [_ID[plan.signature]]
                elif not queue and rng.random() < _SPONTANEOUS:
                    queue = [_ID[str(rng.choice(TAIL))]]
                elif not queue and rng.random() < _NOISE:
                    queue = [_ID[str(rng.choice(DAILY + STAPLES))]]
                elif not queue and last in plan.follow and rng.random() < plan.follow[last]:
                    queue = [_ID[SUCCESSOR[BEHAVIOURS[last]]]]
                elif not queue:
                    queue = [_ID[pool[int(rng.choice(len(pool), p=plan.favourites[phase]))]]]
                while queue:
                    name = BEHAVIOURS[queue.pop(0)]
                    emit(day, weekday, slot, _place(persona, plan, phase, name, rng), _ID[name])
                    called = TRIGGERS.get((BEHAVIOURS[before], name)) if before >= 0 else None
                    if called is not None and rng.random() < _TRIGGER_PROBABILITY:
                        where = _place(persona, plan, phase, name, rng)
                        emit(day, weekday, slot, where, _ID[called[half]])
                slot += int(rng.random() < 0.6)
        if rng.random() < 0.5:
            emit(day, weekday, max(slot + 1, 45), persona.home, _ID["sleep mode"])
    columns = np.asarray(rows, np.int64).T
    names = ("day", "weekday", "slot", "location", "behaviour")
    events = dict(zip(names, columns, strict=True))
    order = np.lexsort((np.arange(len(rows)), events["slot"], events["day"]))
    return persona, {name: column[order] for name, column in events.items()}


def people(
    num_users: int, num_days: int, seed: int
) -> Iterator[tuple[Persona, dict[str, np.ndarray]]]:
    """Persona and events of each person in turn, in constant memory."""
    for index in range(num_users):
        yield _person(seed, index, num_days)


def catalogue() -> Catalogue:
    """The label set of simulated events."""
    return Catalogue(BEHAVIOURS, SLOTS, has_places=True, has_dates=True)


def read_personas(path: Path) -> dict[str, Persona]:
    """The ground truth that `write_personas` wrote, by user. Raises `DataError` for another file."""
    try:
        rows = pl.read_parquet(path).to_dicts()
        found = [Persona(**{**row, "hobbies": tuple(row["hobbies"])}) for row in rows]
    except (OSError, pl.exceptions.PolarsError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} is damaged or no file of personas ({error}). Remove its folder and run the same command "
            "again to rebuild it."
        ) from error
    return {one.user: one for one in found}


def write_personas(path: Path, personas: Iterable[Persona]) -> None:
    """Writes a row per person, atomically."""
    with atomic_write(path) as temporary:
        pl.DataFrame([asdict(one) for one in personas]).write_parquet(temporary)


def simulated_store(
    num_users: int, num_days: int, seed: int, *, personas: Path | None = None
) -> EventStore:
    """A simulated population, split by person; writes the ground truth to `personas` if given."""
    truth, parts, counts = [], [], []
    for persona, events in progress(people(num_users, num_days, seed), "simulating", num_users):
        truth.append(persona)
        parts.append(np.stack(list(events.values())).astype(np.int32))
        counts.append(parts[-1].shape[1])
    if personas is not None:
        write_personas(personas, truth)
    day, weekday, slot, location, behaviour = np.concatenate(parts, axis=1)
    users = [p.user for p in truth]
    assigned = split_users(users)
    return EventStore(
        catalogue=catalogue(),
        users=np.asarray(users),
        split=np.asarray([assigned[u] for u in users], np.int8),
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        day=day,
        weekday=weekday.astype(np.int8),
        slot=slot.astype(np.int16),
        location=location,
        behaviour=behaviour.astype(np.int16),
        gap=np.zeros(len(day), bool),
    ).with_fingerprint()


START = np.datetime64("2024-01-01T00:00", "m")
"""A Monday: first day of a population that is written with dates."""
_FILE = pa.schema(
    [
        ("user", pa.string()),
        ("time", pa.string()),
        ("location", pa.string()),
        ("behaviour", pa.string()),
    ]
)


def _dated(persona: Persona, events: dict[str, np.ndarray]) -> pa.Table:
    """A person's events as the columns of a user's own file."""
    minutes = events["day"] * 1440 + events["slot"] * (1440 // SLOTS)
    names = np.asarray(BEHAVIOURS)[events["behaviour"]]
    columns = [
        np.full(len(minutes), persona.user),
        np.datetime_as_string(START + minutes.astype("timedelta64[m]")),
        np.char.add("area ", events["location"].astype(str)),
        names,
    ]
    return pa.table([pa.array(column.tolist()) for column in columns], schema=_FILE)


def write_population(
    path: Path, num_users: int, num_days: int, seed: int, *, personas: Path, chunk: int = 500
) -> int:
    """Streams a population to parquet `chunk` people at a time; returns the number of events.

    Columns user, time (ISO 8601), location, behaviour. The ground truth goes to `personas` as JSON
    lines. Memory does not grow with `num_users`; both files appear only when they are complete.
    """
    count = 0
    with (
        atomic_write(path) as temporary,
        atomic_write(personas) as truth_path,
        pq.ParquetWriter(temporary, _FILE) as writer,
        open(truth_path, "w", encoding="utf-8") as truth,
    ):
        block: list[pa.Table] = []
        everyone = people(num_users, num_days, seed)
        for number, (persona, events) in enumerate(progress(everyone, "simulating", num_users), 1):
            truth.write(json.dumps(asdict(persona)) + "\n")
            block.append(_dated(persona, events))
            if number % chunk == 0 or number == num_users:
                table = pa.concat_tables(block)
                writer.write_table(table)
                count += len(table)
                block = []
    return count


if __name__ == "__main__":
    interrupts.as_usual()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--users", type=int, default=500, help="people")
    parser.add_argument("--days", type=int, default=60, help="days per person")
    parser.add_argument("--seed", type=int, default=1, help="of the population")
    parser.add_argument("--output", type=Path, required=True, help="parquet file to write")
    parser.add_argument(
        "--personas", type=Path, help="ground truth; default: OUTPUT.personas.jsonl"
    )
    args = parser.parse_args()
    if min(args.users, args.days) < 1:
        parser.error("expected --users and --days of at least 1")
    where = args.personas or args.output.with_suffix(".personas.jsonl")
    written = write_population(args.output, args.users, args.days, args.seed, personas=where)
    out.print(f"{written} events of {args.users} people in {args.output}, ground truth in {where}")
