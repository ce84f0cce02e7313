"""Who writes reference answers and criticises drafts: rules over the true window, or a teacher behind an API.

Neither sees a target (design, decision 15): a `Window` holds none.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from bua_jax.dialogue.facts import Window

WRITERS = ("rules", "teacher")


@dataclass(frozen=True)
class Review:
    """What a critic says of a draft; `refined` is the summary in its place."""

    score: float  # 0 to 1
    issues: tuple[str, ...]  # of `critic.CRITERIA`
    refined: str


class Chat(Protocol):
    """What a teacher needs of a host: see `interop.openai.Chat`."""

    def ask(self, questions: Sequence[str], shape: Any) -> list[Any]:
        """An answer to each question; its `value` is None where it is not in that form."""
        ...


Untrue = Callable[[Window, str], Sequence[tuple[str, str]]]
"""(aspect, what is said) of each claim of a text that is not true of the window."""
