"""A language model behind an API that writes understanding rounds, or reviews drafts, in the rules' place.

It sees a history in words: weekdays, clocks, places by rank and behaviours, no id, no date, and nothing of
what follows. Each text is held against the history by the rules; one that says what is not so, or
nothing, is asked for once more with the reasons, and left out, counted, if that does not help.
"""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from bua_jax.basics.console import notice
from bua_jax.basics.errors import DataError
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
MANY = 0.25
"""Share of answers that could not be used above which somebody should look at them."""
_WHY = {
    "form": "not in the form that was asked for",
    "cut": "cut at max_tokens",
    "nothing": "saying nothing",
}
"""Why an answer is left out, by what is wrong with it; all else is untrue."""
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
    issues = "; ".join(f'"{name}": {mend}' for name, mend in CRITERIA.items())
    return (
        f"{_events(window)}\nThis is a draft of a summary of that person: {draft}\nIn which of these does it "
        f"fall short? {issues}. Name them as issues, by the words in quotation marks and no others, and "
        f"write a better summary. {_TRUE}"
    )


def answer_form(kind: str) -> Any:
    """The form of an answer: `annotation` (a text by round) or `review` (issues and a summary).

    A word that is no issue of `CRITERIA` makes a review malformed: to drop it would be praise of the draft.
    """
    from pydantic import create_model

    if kind == "annotation":
        texts: dict[str, Any] = dict.fromkeys(UNDERSTANDING, (str, ...))
        return create_model("Understanding", **texts)
    words: Any = Literal[tuple(CRITERIA)]
    return create_model("Review", issues=(list[words], ...), summary=(str, ...))


@dataclass(frozen=True)
class Teacher:
    """Annotator and critic; `counts` of what was asked, asked again, false by aspect, and left out and why.

    Both raise `DataError` where no answer can be used, and say so loudly where many cannot.
    """

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
        why: dict[int, str] = {}
        for again in (False, True):
            if not left:
                break
            self.counts["asked again" if again else "asked"] += len(left)
            said, bad, reasked = self.chat.ask(asked, answer_form(kind)), [], []
            for i, one in zip(left, said, strict=True):
                value, wrong = None, [_unread(one.finish)]
                if one.value is not None:
                    value = read(one.value)
                    wrong = [w for text in texts(value) for w in self.untrue(windows[i], text)]
                if not wrong:
                    found[i] = value
                    continue
                self.counts.update(f"false: {aspect}" for aspect, _ in wrong)
                why[i] = _WHY.get(wrong[0][0], "untrue")
                bad.append(i)
                reasked.append(_anew(questions[i], one.text, [what for _, what in wrong]))
            left, asked = bad, reasked
        self.counts["left out"] += len(left)
        self.counts.update(f"left out: {why[i]}" for i in left)
        _check_left(len(windows), Counter(why[i] for i in left), kind)
        return found


def _check_left(asked: int, left: Counter[str], kind: str) -> None:
    """Raises `DataError` where all answers are left out, for the reasons `left`; warns where many are."""
    number, field = left.total(), "annotator" if kind == "annotation" else "reflect_critic"
    said = f"{number} of {asked} answers ({', '.join(f'{n} {why}' for why, n in left.items())})"
    remedy = (
        "What it said is kept in config.execution.api_cache. Name another config.teacher.model, give its "
        "answers more room by config.teacher.max_tokens where they are cut, or leave the texts to the rules: "
        f"config.dialogues.{field}=rules"
    )
    if asked and number == asked:
        raise DataError(f"The teacher gave no usable answer: {said} were left out. {remedy}.")
    if number > MANY * asked:
        notice(f"WARNING: of the teacher {said} cannot be used and are left out. {remedy}")


def _unread(finish: str) -> tuple[str, str]:
    """What is wrong with an answer that is in no form."""
    if finish == "length":
        return "cut", "it was cut, being too long"
    return "form", "it is not in the form that was asked for"


def _line(text: str) -> str:
    """A text as one line, as rounds are."""
    return " ".join(text.split())


def _anew(question: str, answer: str, wrong: Sequence[str]) -> str:
    reasons = "; ".join(dict.fromkeys(wrong))
    return (
        f"{question}\nAn earlier answer was: {json.dumps(answer, ensure_ascii=False)}\nThis of it is not so: "
        f"{reasons}. Answer anew, without that."
    )
