"""The paper's tasks as dialogues (Appendix B): which rounds, in which order, with which answers."""

from dataclasses import dataclass

import numpy as np

from bua_jax.dialogue import annotators
from bua_jax.dialogue.annotators import ANNOTATORS, SCENE_HOURS, Window
from bua_jax.dialogue.rounds import UNDERSTANDING_KINDS, Dialogue, Round
from bua_jax.dialogue.text import SHORT_DAYS, day_text
from bua_jax.events.groups import training_shares
from bua_jax.events.schema import WEEKDAYS, Catalogue, EventStore, History
from bua_jax.events.windows import (
    WindowIndex,
    future_events,
    history,
    sample_id,
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
NOTHING = ("Nothing is recorded in the next two hours.", "No event in the next two hours.")


@dataclass(frozen=True)
class Writer:
    """Writes dialogues about windows of one store.

    `shares` come from training users alone. `rounds=False` leaves only the final round of stage 2;
    `target_time_revealed` gives the target's weekday and time in the prediction instruction.
    """

    store: EventStore
    shares: np.ndarray
    rounds: bool = True
    target_time_revealed: bool = False

    @classmethod
    def of(cls, store: EventStore, **switches: bool) -> "Writer":
        return cls(store, training_shares(store), **switches)

    def window(self, start: int, end: int, name: str) -> Window:
        return Window(history(self.store, start, end), self.store.catalogue, self.shares, name)


def understanding_rounds(window: Window) -> tuple[Round, ...]:
    """Key behaviours, patterns, summary: the rounds before a prediction or a generated day."""
    return tuple(
        Round(kind, INSTRUCTIONS[kind], ANNOTATORS[kind](window)) for kind in UNDERSTANDING_KINDS
    )


def generation_instruction(weekday: int) -> str:
    """The final instruction of a generation dialogue; the target's weekday is given."""
    return f"Write the events of the next day, {WEEKDAYS[weekday]}."


def prediction_instruction(catalogue: Catalogue, weekday: int | None = None, slot: int = 0) -> str:
    """The final instruction of a prediction dialogue; with a weekday the target's time is revealed."""
    text = INSTRUCTIONS["prediction"]
    if weekday is None:
        return text
    return f"{text[:-1]} on {SHORT_DAYS[weekday]} at {catalogue.clock(slot)}?"


def revealed_instruction(writer: Writer, end: int) -> str:
    """The prediction instruction for the target at position `end`, by the writer's switch."""
    store = writer.store
    if not writer.target_time_revealed:
        return prediction_instruction(store.catalogue)
    return prediction_instruction(store.catalogue, int(store.weekday[end]), int(store.slot[end]))


def stage1_dialogue(
    writer: Writer, task: str, windows: WindowIndex, row: int, split: str
) -> Dialogue | None:
    """A one-round dialogue of stage 1; None where the window has no such scene (a gap, no places)."""
    store, start, end = writer.store, int(windows.start[row]), int(windows.end[row])
    if task in PLACE_TASKS and not store.catalogue.has_places:
        return None
    name = sample_id(store, windows, row)
    window = writer.window(start, end, name)
    if task == "future_scene":
        following = future_events(store, end, SCENE_HOURS)
        if following is None:
            return None
        ranks = _place_ranks(store, start, end, window.history)
        rows = [
            (int(store.slot[i]), ranks.get(int(store.location[i]), 0), int(store.behaviour[i]))
            for i in range(following.start, following.stop)
        ]
        answer = annotators.future_scene(window, rows)
    else:
        if task == "current_scene" and window.history.gap[annotators.past_scene(window)[0]]:
            return None  # the two hours touch a gap
        answer = ANNOTATORS[task](window)
    return Dialogue(name, split, 1, task, start, end, (Round(task, INSTRUCTIONS[task], answer),))


def _place_ranks(store: EventStore, start: int, end: int, seen: History) -> dict[int, int]:
    """Raw area -> rank in the history."""
    return dict(zip(store.location[start:end].tolist(), seen.place.tolist(), strict=True))


def stage2_dialogue(
    writer: Writer, task: str, windows: WindowIndex, row: int, split: str
) -> Dialogue:
    """Understanding rounds (unless switched off), then the prediction or the next day."""
    store, start, end = writer.store, int(windows.start[row]), int(windows.end[row])
    name = sample_id(store, windows, row)
    window = writer.window(start, end, name)
    rounds = understanding_rounds(window) if writer.rounds else ()
    if task == "prediction":
        label = store.catalogue.behaviours[int(store.behaviour[end])]
        final = Round("prediction", revealed_instruction(writer, end), label)
    else:
        day = target_day(store, windows, row)
        final = Round(
            "generation", generation_instruction(day.weekday), day_text(store.catalogue, day)
        )
    return Dialogue(name, split, 2, task, start, end, (*rounds, final))


def is_nothing(dialogue: Dialogue) -> bool:
    """Whether a scene dialogue answers that nothing is recorded."""
    return dialogue.task == "future_scene" and dialogue.rounds[-1].answer in NOTHING


def cap_nothing(dialogues: list[Dialogue], share: float) -> list[Dialogue]:
    """Drops the last "nothing recorded" answers beyond `share` of the future scenes."""
    scenes = [d for d in dialogues if d.task == "future_scene"]
    something = sum(not is_nothing(d) for d in scenes)
    allowed = int(share * something / (1 - share)) if share < 1 else len(scenes)
    kept = []
    for dialogue in dialogues:
        if is_nothing(dialogue):
            if allowed == 0:
                continue
            allowed -= 1
        kept.append(dialogue)
    return kept
