"""The paper's tasks as dialogues (Appendix B): which rounds, in which order, with which answers.

"Two hours" are counted in slots: from slot s they reach to s + 2 h (or s - 2 h), included. At
half-hour resolution that is up to four slots, at hour resolution up to two: an event at 14:xx
covers 12:xx to 16:xx. Scenes whose two hours touch an unknown gap or the end of the record are no
task.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bua_jax.basics.errors import ConfigError
from bua_jax.dialogue import facts, rules
from bua_jax.dialogue.facts import SCENE_HOURS, Window
from bua_jax.dialogue.rounds import STAGE1_TASKS, UNDERSTANDING, Dialogue, Round
from bua_jax.dialogue.rules import ANNOTATORS, NOTHING
from bua_jax.dialogue.text import day_text
from bua_jax.events.schema import WEEKDAYS, Catalogue, EventStore, History
from bua_jax.events.windows import (
    AT_ONCE,
    WindowIndex,
    future_events,
    histories,
    sample_ids,
    target_day,
)

INSTRUCTIONS = {
    "reconstruction": "List the events in order.",
    "current_scene": "What was going on in the past two hours?",
    "future_scene": "What will happen in the next two hours?",
    "home_work": "Which places are home and work?",
    "hobbies": "What are this person's hobbies?",
    "key_behaviours": "Which behaviours are key?",
    "patterns": "Which patterns recur?",
    "summary": "Summarise this person.",
    "prediction": "Which behaviour comes next?",
}
PLACE_TASKS = ("home_work",)
"""Tasks that sets without places do not have."""


@dataclass(frozen=True)
class Writer:
    """Writes dialogues about windows of one store.

    `shares` float64[C] are those of training users alone (`events.groups.training_shares`). `rounds=False`
    leaves only the final round of stage 2; `shortened_share` of the training dialogues are that round
    alone (a small model then sees more final answers per token); `target_time_revealed` gives the
    target's weekday and time in the prediction instruction; `drill` is a question that it begins with.
    `seed` draws tasks and wordings. `answers`: the understanding rounds of a teacher by (start, end)
    of the history, in place of the rules'; what has none is left out.
    """

    store: EventStore
    shares: np.ndarray
    rounds: bool = True
    target_time_revealed: bool = False
    seed: int = 0
    shortened_share: float = 0.0
    drill: str = ""
    answers: Mapping[tuple[int, int], Mapping[str, str]] | None = None

    def window(self, start: int, end: int, name: str) -> Window:
        """All that an annotator may see of events[start:end]."""
        return next(self._windows(np.asarray([start]), np.asarray([end]), [name]))

    def windows(self, windows: WindowIndex) -> Iterator[Window]:
        """That of windows, one after the other; some are gathered together, for speed."""
        for begin in range(0, len(windows), AT_ONCE):
            some = windows.take(np.arange(begin, min(begin + AT_ONCE, len(windows))))
            yield from self._windows(some.start, some.end, sample_ids(self.store, some))

    def _windows(
        self, start: np.ndarray, end: np.ndarray, names: Sequence[str]
    ) -> Iterator[Window]:
        store = self.store
        for seen, name in zip(histories(store, start, end), names, strict=True):
            yield Window(seen, store.catalogue, self.shares, name, self.seed)

    def draw(self, name: str, what: str) -> float:
        """A number in [0, 1) that depends on seed, sample and purpose alone."""
        digest = hashlib.sha256(f"{self.seed}|{name}|{what}".encode()).digest()
        return int.from_bytes(digest[:7], "big") / 2**56


def understanding_rounds(
    window: Window, answers: Mapping[str, str] | None = None
) -> tuple[Round, ...]:
    """Key behaviours, patterns, summary: the rounds before a prediction or a generated day.

    answers: of a teacher, by kind; None: the rules'.
    """
    said = answers or {kind: ANNOTATORS[kind](window) for kind in UNDERSTANDING}
    return tuple(Round(kind, INSTRUCTIONS[kind], said[kind]) for kind in UNDERSTANDING)


def is_shortened(writer: Writer, name: str, split: str) -> bool:
    """Whether a stage-2 dialogue is its final round alone."""
    share = writer.shortened_share if split == "train" else 0.0
    return not writer.rounds or (share > 0 and writer.draw(name, "shortened") < share)


def generation_instruction(weekday: int) -> str:
    """The final instruction of a generation dialogue; the target's weekday is given."""
    return f"Write the events of the next day, {WEEKDAYS[weekday]}."


def prediction_instruction(
    catalogue: Catalogue, weekday: int | None = None, slot: int = 0, *, drill: str = ""
) -> str:
    """The final instruction of a prediction dialogue; with a weekday the target's time is given.

    drill: a question that the model was pretrained on, which the instruction begins with.
    """
    text = f"{drill} {INSTRUCTIONS['prediction']}".strip()
    if weekday is None:
        return text
    return f"{text[:-1]} on {WEEKDAYS[weekday][:3]} at {catalogue.clock(slot)}?"


def zero_shot_instruction(catalogue: Catalogue) -> str:
    """What a base model that was never trained on dialogues is asked, after the history in words."""
    labels = ", ".join(catalogue.behaviours)
    return (
        "Above are events of one person, oldest first: weekday, time, place and behaviour. "
        f"Which behaviour comes next? Answer with one of: {labels}."
    )


def revealed_instruction(writer: Writer, end: int) -> str:
    """The prediction instruction for the target at position `end`, by the writer's switch."""
    store, drill = writer.store, writer.drill
    if not writer.target_time_revealed:
        return prediction_instruction(store.catalogue, drill=drill)
    weekday, slot = int(store.weekday[end]), int(store.slot[end])
    return prediction_instruction(store.catalogue, weekday, slot, drill=drill)


def stage1_tasks(catalogue: Catalogue, tasks: Sequence[str] = STAGE1_TASKS) -> tuple[str, ...]:
    """Those of `tasks` that the set has. Raises `ConfigError` for an unknown one, or for none."""
    for task in tasks:
        if task not in STAGE1_TASKS:
            raise ConfigError(
                f"{task!r} is no stage-1 task; expected some of {', '.join(STAGE1_TASKS)}."
            )
    kept = tuple(t for t in tasks if catalogue.has_places or t not in PLACE_TASKS)
    if not kept:
        raise ConfigError(
            f"The stage-1 tasks {', '.join(tasks) or '(none)'} leave nothing to do here"
            f"{'' if catalogue.has_places else ': the data set has no places'}. Add one of "
            "reconstruction, current_scene, future_scene, hobbies."
        )
    return kept


def stage1_dialogue(
    writer: Writer, task: str, windows: WindowIndex, row: int, split: str
) -> Dialogue | None:
    """A one-round dialogue; None where the window has no such scene (a gap), the set no places."""
    only = windows.take(np.asarray([row]))
    return _stage1(writer, task, only, 0, split, next(writer.windows(only)))


def _stage1(
    writer: Writer, task: str, windows: WindowIndex, row: int, split: str, window: Window
) -> Dialogue | None:
    store, start, end = writer.store, int(windows.start[row]), int(windows.end[row])
    if task in PLACE_TASKS and not store.catalogue.has_places:
        return None
    if task == "future_scene":
        following = future_events(store, end, SCENE_HOURS)
        if following is None:
            return None
        answer = rules.future_scene(window, _following(store, start, following, window.history))
    elif task == "current_scene" and not facts.past_scene(window)[1]:
        return None
    else:
        answer = ANNOTATORS[task](window)
    asked = Round(task, INSTRUCTIONS[task], answer)
    return Dialogue(window.sample_id, split, 1, task, start, end, (asked,))


def _following(
    store: EventStore, start: int, following: slice, seen: History
) -> list[tuple[int, int, int]]:
    """(slot, place ranked by the history, behaviour) of the events in `following`."""
    ranks: Mapping[int, int] = {}
    if store.catalogue.has_places:
        codes = store.location[start : start + len(seen)].tolist()
        ranks = dict(zip(codes, seen.place.tolist(), strict=True))
    return [
        (int(store.slot[i]), ranks.get(int(store.location[i]), 0), int(store.behaviour[i]))
        for i in range(following.start, following.stop)
    ]


def stage2_dialogue(
    writer: Writer, task: str, windows: WindowIndex, row: int, split: str
) -> Dialogue:
    """Understanding rounds (unless switched off), then the next behaviour's label or the next day.

    `task` is "prediction" or "generation"; `windows` are of that task. A teacher wrote its rounds, if one
    writes.
    """
    only = windows.take(np.asarray([row]))
    return _stage2(writer, task, only, 0, split, next(writer.windows(only)))


def _stage2(
    writer: Writer, task: str, windows: WindowIndex, row: int, split: str, window: Window
) -> Dialogue:
    store, start, end = writer.store, int(windows.start[row]), int(windows.end[row])
    rounds: tuple[Round, ...] = ()
    if not is_shortened(writer, window.sample_id, split):
        said = None if writer.answers is None else writer.answers[start, end]
        rounds = understanding_rounds(window, said)
    if task == "prediction":
        label = store.catalogue.behaviours[int(store.behaviour[end])]
        final = Round("prediction", revealed_instruction(writer, end), label)
    else:
        day = target_day(store, windows, row, window.history)
        final = Round(
            "generation", generation_instruction(day.weekday), day_text(store.catalogue, day)
        )
    return Dialogue(window.sample_id, split, 2, task, start, end, (*rounds, final))


def is_nothing(dialogue: Dialogue) -> bool:
    """Whether a scene dialogue answers that nothing is recorded."""
    return dialogue.task == "future_scene" and dialogue.rounds[-1].answer in NOTHING


def cap_nothing(dialogues: Sequence[Dialogue], share: float, seed: int = 0) -> list[Dialogue]:
    """Leaves at most `share` of the future scenes with "nothing recorded"; order is kept.

    Which ones stay is drawn by seed and sample id, so no user is favoured for coming first.
    """
    empty = [d.sample_id for d in dialogues if is_nothing(d)]
    something = sum(d.task == "future_scene" for d in dialogues) - len(empty)
    allowed = len(empty) if share >= 1 else int(share * something / (1 - share) + 1e-9)
    order = sorted(empty, key=lambda name: hashlib.sha256(f"{seed}|{name}".encode()).digest())
    kept = set(order[:allowed])
    return [d for d in dialogues if not is_nothing(d) or d.sample_id in kept]


def cap_stage1(
    found: Sequence[Dialogue], split: str, share: float, seed: int
) -> tuple[list[Dialogue], Counter[str]]:
    """`cap_nothing` in the training split alone, and how many dialogues it left out by reason."""
    capped = cap_nothing(found, share, seed) if split == "train" else list(found)
    reason = "future_scene: nothing recorded, beyond the cap"
    return capped, +Counter({reason: len(found) - len(capped)})


def write_stage1(
    writer: Writer,
    windows: WindowIndex,
    split: str,
    tasks: Mapping[str, float] | Sequence[str] = STAGE1_TASKS,
) -> tuple[list[Dialogue], Counter[str]]:
    """One dialogue per window, its task drawn in proportion to `tasks` (equal if only names).

    Returns the dialogues and how many windows were skipped by reason; a window's dialogue depends on
    no other window (`cap_stage1` comes after). Raises `ConfigError` for unknown tasks or bad proportions.
    """
    weights = dict(tasks) if isinstance(tasks, Mapping) else dict.fromkeys(tasks, 1.0)
    names = stage1_tasks(writer.store.catalogue, tuple(weights))
    total = sum(weights[name] for name in names)
    if total <= 0 or min(weights.values()) < 0:
        raise ConfigError(f"stage-1 proportions are {weights}; expected none below 0, some above.")
    bounds = np.cumsum([weights[name] / total for name in names])
    found, skipped = [], Counter[str]()
    for row, window in enumerate(writer.windows(windows)):
        drawn = writer.draw(window.sample_id, "task")
        task = names[min(int(np.searchsorted(bounds, drawn, side="right")), len(names) - 1)]
        dialogue = _stage1(writer, task, windows, row, split, window)
        if dialogue is None:
            skipped[f"{task}: two hours not fully known"] += 1
        else:
            found.append(dialogue)
    return found, skipped


def build_stage2(writer: Writer, task: str, windows: WindowIndex, split: str) -> Iterator[Dialogue]:
    """A stage-2 dialogue per window, but for those that a teacher was to write and did not.

    `task` is "prediction" or "generation". Raises `ConfigError` for another.
    """
    if task not in ("prediction", "generation"):
        raise ConfigError(f"{task!r} is no stage-2 task; expected prediction or generation.")
    for row, window in enumerate(writer.windows(windows)):
        name, at = window.sample_id, (windows.start[row], windows.end[row])
        if writer.answers is None or at in writer.answers or is_shortened(writer, name, split):
            yield _stage2(writer, task, windows, row, split, window)
