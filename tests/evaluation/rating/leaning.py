"""A judge whose leanings are planted: it prefers the better of two texts, but for pairs of some numbers."""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

_TEXTS = re.compile(r"\nText A: (.*)\nText B: (.*)\nWhich is better")
_TEXT = re.compile(r"\nThis is a text about that person: (.*)\nScore it")


def number_of(text: str) -> int:
    """The number that a text has: `... no 12 ...`."""
    return int(re.findall(r"\bno (\d+)\b", text)[0])


def leaning(
    first: Callable[[int], bool] = lambda number: False,
    wrong: Callable[[int], bool] = lambda number: False,
    longer: Callable[[int], bool] = lambda number: False,
) -> Callable[[str], str]:
    """What a host answers, by the number of a pair: the text shown first, the worse one, or the longer one.

    The better of two texts is the one that says `good`, which is also what scores 3.
    """

    def answer(question: str) -> str:
        if said := _TEXT.findall(question):
            score = 3 if "good" in said[0] else 1
            return json.dumps({"rationality": score, "interpretability": score - 1})
        ((a, b),) = _TEXTS.findall(question)
        number, chosen = number_of(a), "A" if "good" in a else "B"
        if wrong(number):
            chosen = "AB"[chosen == "A"]
        if longer(number):
            chosen = "A" if len(a.split()) > len(b.split()) else "B"
        if first(number):
            chosen = "A"
        return json.dumps({"rationality": chosen, "interpretability": chosen})

    return answer


@dataclass(frozen=True)
class Spoken:
    """A chat without a host."""

    answer: Callable[[str], str]

    def ask(self, questions: Sequence[str], shape: Any) -> list[Any]:
        found = []
        for question in questions:
            said = self.answer(question)
            value = shape.model_validate_json(said, strict=True) if said[0] == "{" else None
            found.append(SimpleNamespace(value=value, model="fake"))
        return found
