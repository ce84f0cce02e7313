"""Who writes reference answers and criticises drafts: rules over the true window, or a teacher behind an API.

Neither sees a target (design, decision 15): a `Window` holds none.
"""

from collections import Counter
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


_AGAIN = (
    "The answer before this one could not be read: it must be that JSON object and nothing else."
)


def ask_twice(chat: Chat, questions: Sequence[str], shape: Any, counts: Counter[str]) -> list[Any]:
    """An answer to each question; one that is in no form is asked for once more.

    counts: of what was asked, asked again and left out (`value` is None still), which is added to.
    """
    said = chat.ask(questions, shape)
    bad = [row for row, one in enumerate(said) if one.value is None]
    if bad:
        again = chat.ask([f"{questions[row]}\n{_AGAIN}" for row in bad], shape)
        for row, one in zip(bad, again, strict=True):
            said[row] = one
    left_out = sum(one.value is None for one in said)
    counts.update({"asked": len(questions), "asked again": len(bad), "left out": left_out})
    return said


Untrue = Callable[[Window, str], Sequence[tuple[str, str]]]
"""(aspect, what is said) of each claim of a text that is not true of the window; see `judged.untrue`."""
