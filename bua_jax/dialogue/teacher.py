"""A language model behind an API that writes understanding rounds, or reviews drafts, in the rules' place.

It sees a history in words: weekdays, clocks, places by rank and behaviours, no id, no date, and nothing of
what follows. Each text is held against the history by the rules; one that says what is not so is asked for
once more with the reasons, and left out, counted, if that does not help.
"""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from bua_jax.dialogue.annotator import Chat, Review, Untrue
from bua_jax.dialogue.critic import CRITERIA
from bua_jax.dialogue.facts import Window
from bua_jax.dialogue.rounds import UNDERSTANDING
from bua_jax.dialogue.text import history_text

_ABOUT = {
    "key_behaviours": "which behaviours are key, how often they occur and when",
    "patterns": "which sequences, times and places recur",
    "summary": "who this person is: traits, then habits, then anchors such as home",
}
_TRUE = (
    "Say only what the events show, with exact counts and times, and name behaviours as they are written "
    "there. Nothing about what comes next, no advice."
)
T = TypeVar("T")


def _events(window: Window) -> str:
    catalogue = window.catalogue
    fields = (
        "weekday, time, place and behaviour" if catalogue.has_places else "weekday, time, behaviour"
    )
    where = " L1 is the place where the person is most often, L2 the next." * catalogue.has_places
    return (
        f"{history_text(catalogue, window.history)}\nAbove are events of one person, oldest first: {fields}; "
        f"a line of dots stands for a time of which nothing is known.{where}"
    )


def annotation_question(window: Window) -> str:
    """What a teacher is asked for the understanding rounds."""
    parts = "; ".join(f"{kind}: {_ABOUT[kind]}" for kind in UNDERSTANDING)
    return f"{_events(window)}\nWrite three short texts about this person. {parts}. {_TRUE}"


def review_question(window: Window, draft: str) -> str:
    """What a teacher is asked about a drafted summary (section 3.4.3, Appendix O)."""
    issues = "; ".join(f"{name} ({mend})" for name, mend in CRITERIA.items())
    return (
        f"{_events(window)}\nThis is a draft of a summary of that person: {draft}\nIn which of these does it "
        f"fall short? {issues}. Name them as issues, and write a better summary. {_TRUE}"
    )


def answer_form(kind: str) -> Any:
    """The form of an answer: `annotation` (a text by round) or `review` (issues and a summary)."""
    from pydantic import create_model

    if kind == "annotation":
        texts: dict[str, Any] = dict.fromkeys(UNDERSTANDING, (str, ...))
        return create_model("Understanding", **texts)
    return create_model("Review", issues=(list[str], ...), summary=(str, ...))


@dataclass(frozen=True)
class Teacher:
    """Annotator and critic; `counts` of what was asked, asked again, false by aspect, and left out."""

    chat: Chat
    untrue: Untrue
    counts: Counter[str] = field(default_factory=Counter)

    def annotate(self, windows: Sequence[Window]) -> list[dict[str, str] | None]:
        """The understanding rounds of each window; None where no true text came."""

        def read(value: Any) -> dict[str, str]:
            return {kind: _line(getattr(value, kind)) for kind in UNDERSTANDING}

        questions = [annotation_question(window) for window in windows]
        return self._true(windows, questions, "annotation", read, lambda texts: [*texts.values()])

    def review(self, windows: Sequence[Window], drafts: Sequence[str]) -> list[Review | None]:
        """What is said of each draft, its score being the share of criteria that it meets."""

        def read(value: Any) -> Review:
            issues = tuple(name for name in CRITERIA if name in value.issues)
            return Review(1 - len(issues) / len(CRITERIA), issues, _line(value.summary))

        questions = [review_question(w, draft) for w, draft in zip(windows, drafts, strict=True)]
        return self._true(windows, questions, "review", read, lambda review: [review.refined])

    def _true(
        self,
        windows: Sequence[Window],
        questions: Sequence[str],
        kind: str,
        read: Callable[[Any], T],
        texts: Callable[[T], list[str]],
    ) -> list[T | None]:
        """An answer to each question whose texts hold; asked twice at most."""
        found: list[T | None] = [None] * len(windows)
        left, asked = list(range(len(windows))), list(questions)
        for again in (False, True):
            if not left:
                break
            self.counts["asked again" if again else "asked"] += len(left)
            said, bad, reasked = self.chat.ask(asked, answer_form(kind)), [], []
            for i, one in zip(left, said, strict=True):
                value = None if one.value is None else read(one.value)
                wrong = [("form", "it is not in the form that was asked for")]
                if value is not None:
                    wrong = self._wrong(windows[i], texts(value))
                if value is not None and not wrong:
                    found[i] = value
                    continue
                self.counts.update(f"false: {aspect}" for aspect, _ in wrong)
                bad.append(i)
                reasked.append(_anew(questions[i], one.text, [what for _, what in wrong]))
            left, asked = bad, reasked
        self.counts["left out"] += len(left)
        return found

    def _wrong(self, window: Window, texts: Sequence[str]) -> list[tuple[str, str]]:
        empty = [("form", "a text is empty")] * sum(not text for text in texts)
        return empty + [one for text in texts for one in self.untrue(window, text)]


def _line(text: str) -> str:
    """A text as one line, as rounds are."""
    return " ".join(text.split())


def _anew(question: str, answer: str, wrong: Sequence[str]) -> str:
    reasons = "; ".join(dict.fromkeys(wrong))
    return (
        f"{question}\nAn earlier answer was: {json.dumps(answer, ensure_ascii=False)}\nThis of it is not so: "
        f"{reasons}. Answer anew, without that."
    )
