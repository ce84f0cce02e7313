"""JSON that a base writes under a grammar: objects of choices, and plans of events. It always parses."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from bua_jax.decoding import grammar
from bua_jax.decoding.dialogue import Decoder
from bua_jax.decoding.engine import DayTurn, Drawing, Job, Turn
from bua_jax.decoding.grammar import LAST, Option, Segments
from bua_jax.decoding.rounds import run_jobs
from bua_jax.dialogue.prompts import opening
from bua_jax.dialogue.text import place_text
from bua_jax.events.schema import NUM_PLACES, Catalogue

_EVENTS = 3  # of a plan, at most


def choices(fields: Mapping[str, Sequence[str]]) -> Segments:
    """Objects with those keys in that order, each with one of its values, which are JSON."""
    found: dict[str, list[Option]] = {"end": []}
    keys = list(fields)
    for number, key in enumerate(keys):
        last = number + 1 == len(keys)
        before = "{" if number == 0 else ""
        after, following = ("}", "end") if last else (", ", f"key {number + 1}")
        texts = (f"{before}{json.dumps(key)}: {value}{after}".encode() for value in fields[key])
        found[f"key {number}"] = [Option(text + LAST * last, following) for text in texts]
    return found


def plans(catalogue: Catalogue, minutes: Sequence[int]) -> Segments:
    """`{"plan": [{"minute": 0, "place": "L1", "activity": "pay"}, ...]}`, minutes in order, or no event.

    Places are those of the row; a set without places has no such key.
    """
    after = "place" if catalogue.has_places else "label"

    def clocks(before: str) -> list[Option]:
        return [
            Option(f'{before}{{"minute": {minute}, '.encode(), after, slot=slot)
            for slot, minute in enumerate(minutes)
        ]

    labels = [json.dumps(label, ensure_ascii=False) for label in catalogue.behaviours]
    return {
        "first": [Option(b'{"plan": []}' + LAST, "end"), *clocks('{"plan": [')],
        "clock": clocks(""),
        "place": [
            Option(f'"place": "{place_text(place)}", '.encode(), "label", place=place)
            for place in range(NUM_PLACES + 1)
        ],
        "label": [
            *(Option(f'"activity": {text}}}]}}'.encode() + LAST, "end") for text in labels),
            *(
                Option(f'"activity": {text}}}, '.encode(), "clock", continues=True)
                for text in labels
            ),
        ],
        "end": [],
    }


@dataclass(frozen=True)
class Form:
    """A grammar for a decoder, compiled when it is first used; `begin`: its first segment."""

    decoder: Decoder
    segments: Segments
    begin: str

    @cached_property
    def tables(self) -> grammar.Tables:
        decoder, tokenizer = self.decoder, self.decoder.tokenizer
        return grammar.compile_segments(
            self.segments, self.begin, decoder.vocabulary, tokenizer.vocab_size, tokenizer.im_end
        )

    @cached_property
    def most(self) -> int:
        """Bytes, and so tokens, of the longest text."""
        once = {
            name: max((len(o.text) for o in some), default=0)
            for name, some in self.segments.items()
        }
        repeated = sum(once.get(name, 0) for name in ("clock", "place", "label"))
        return sum(once.values()) + (_EVENTS - 1) * repeated

    def write(
        self,
        prompts: Sequence[str],
        streams: Sequence[int],
        places: Sequence[Sequence[int]],
        *,
        temperature: float,
        seed: int,
    ) -> list[str]:
        """A text for each prompt, drawn from (seed, its stream); places: that each may name."""
        decoder = self.decoder
        turns = [opening(decoder.tokenizer, 0, prompt) for prompt in prompts]
        drawing = Drawing(self.tables, temperature, 1.0, seed, _EVENTS, self.most, 0)

        def job(number: int) -> Job:
            day = DayTurn(0, tuple(places[number]), streams[number])
            reply = yield Turn(turns[number], wants="day", day=day)
            return decoder.tokenizer.decode(reply.tokens)

        jobs = [lambda number=number: job(number) for number in range(len(prompts))]
        slots = max(map(len, turns)) + drawing.limit + 1
        return run_jobs(decoder, slots, jobs, "writing JSON", drawing=drawing)
