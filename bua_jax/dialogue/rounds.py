"""A dialogue: rounds of instruction and answer about one window (sections 3.4 and 3.5)."""

from dataclasses import dataclass

STAGE1_TASKS = ("reconstruction", "current_scene", "future_scene", "home_work", "hobbies")
UNDERSTANDING = ("key_behaviours", "patterns", "summary")
"""The rounds before a prediction or generation, from simple to complex (section 3.4.2)."""
FINAL = ("prediction", "generation")
"""The rounds that the understanding is for."""

ROUND_KINDS: tuple[str, ...] = (
    *STAGE1_TASKS,
    *UNDERSTANDING,
    "prediction",
    "generation",
    "refinement",
)
TASKS: tuple[str, ...] = (*STAGE1_TASKS, "prediction", "generation", "refinement")


def kind_id(kind: str) -> int:
    """1-based id of a round kind; 0 is kept for tokens without one."""
    return ROUND_KINDS.index(kind) + 1


def task_id(task: str) -> int:
    """1-based id of a dialogue's task; 0 is kept for padding."""
    return TASKS.index(task) + 1


@dataclass(frozen=True)
class Round:
    """One question and its reference answer; `kind` is one of `ROUND_KINDS`."""

    kind: str
    instruction: str
    answer: str


@dataclass(frozen=True)
class Dialogue:
    """Rounds about the history events[start:end] of an `EventStore`; `task` is one of `TASKS`."""

    sample_id: str
    split: str
    stage: int
    task: str
    start: int
    end: int
    rounds: tuple[Round, ...]
