"""nano's own text: corpus and tokenizer. Only a reserved population is read, and nothing is predicted.

A line of the corpus is a ChatML dialogue about a history; its rounds are reading drills (what stands
where in the history) and the understanding tasks. There is no prediction, generation or future-scene
answer in it. The first user turn spells the history out in words, or gives each event as one vector,
the mean of its words' embeddings. The second form is meant to help so small a model read a sequence
of vectors (nano without it was not trained for comparison); no encoder is involved in it.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np
import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, trainers

from bua_jax.dialogue import rules
from bua_jax.dialogue.critic import refinement_dialogue
from bua_jax.dialogue.facts import Window
from bua_jax.dialogue.prompts import next_turn, opening
from bua_jax.dialogue.rounds import Dialogue, Round
from bua_jax.dialogue.rules import ANNOTATORS, NOTHING
from bua_jax.dialogue.tasks import (
    INSTRUCTIONS,
    Writer,
    generation_instruction,
    prediction_instruction,
)
from bua_jax.dialogue.text import event_text, history_text
from bua_jax.events.schema import WEEKDAYS, Catalogue, EventStore
from bua_jax.events.simulate import RESERVED_SEEDS, simulated_store
from bua_jax.events.windows import prediction_windows, sample_windows
from bua_jax.interop.tokenizer import IM_END, IM_START, HFTokenizer

VOCABULARY = 2032  # ids of the tokenizer; the table has 2048 rows, the rest stays free
KINDS = (
    "reconstruction",
    "current_scene",
    "home_work",
    "hobbies",
    "key_behaviours",
    "patterns",
    "summary",
    "refinement",
)
# Words of other label sets, so that nano knows more than its population's labels.
OTHER_LABELS = (
    "Arts & Entertainment",
    "Athletics & Sports",
    "College & University",
    "Event",
    "Food",
    "Medical Center",
    "Nightlife Spot",
    "Office",
    "Outdoors & Recreation",
    "Professional & Other Places",
    "Residence",
    "School",
    "Shop & Service",
    "Travel & Transport",
    "Home",
    "Work",
    "Gym",
    "Restaurant",
    "Park",
    "Bank",
)
DRILL = "What was last?"
"""The drill that the prediction instruction of nano begins with (configs/models/nano.py): its answer
starts from the same event. One control without it ended at a validation loss of 1.07 instead of 1.04: too
little to tell."""
_SPLIT = Regex(r" ?\d\d:\d\d| ?L\d\d?\b| ?\p{L}+| ?\d+| ?[^\s\p{L}\d]+|\s+(?!\S)|\s+")


def corpus_store(num_users: int, num_days: int) -> EventStore:
    """The reserved population."""
    return simulated_store(num_users, num_days, RESERVED_SEEDS[0])


def relabelled(store: EventStore, rng: np.random.Generator) -> EventStore:
    """The same events under 14 labels of another set, so that text is read, not labels recalled."""
    labels = tuple(sorted(str(x) for x in rng.choice(OTHER_LABELS, 14, replace=False)))
    mapping = rng.integers(0, 14, len(store.catalogue.behaviours)).astype(np.int16)
    catalogue = Catalogue(labels, 24, store.catalogue.has_places)
    slot, behaviour = (store.slot // 2).astype(np.int16), mapping[store.behaviour]
    return dataclasses.replace(store, catalogue=catalogue, slot=slot, behaviour=behaviour)


def drill(window: Window, rng: np.random.Generator) -> Round:
    """A short question that only the history answers: its last event, a moment, what followed what."""
    catalogue, last = window.catalogue, len(window.history) - 1
    i = int(rng.integers(0, last + 1))
    kind = int(rng.choice(3, p=(0.5, 0.25, 0.25)))
    day, slot = int(window.history.weekday[i]), window.slots[i]
    if kind == 0:
        event = event_text(
            catalogue, window.slots[last], window.places[last], window.behaviours[last]
        )
        day = int(window.history.weekday[last])
        return Round("drill", DRILL, f"{WEEKDAYS[day][:3]} {event}")
    if kind == 1:
        same = (window.history.weekday == day) & (window.history.slot == slot)
        labels = [window.label(window.behaviours[j]) for j in np.flatnonzero(same)]
        question = f"What was on {WEEKDAYS[day][:3]} at {catalogue.clock(slot)}?"
        return Round("drill", question, "; ".join(labels))
    label = window.label(window.behaviours[i])
    at = [j for j in range(last) if window.behaviours[j] == window.behaviours[i]]
    labels = [window.label(window.behaviours[j + 1]) for j in at] or ["nothing"]
    return Round("drill", f"What came after {label}?", "; ".join(labels))


def dialogues(
    store: EventStore, count: int, seed: int, *, length: int
) -> Iterator[tuple[Window, Dialogue]]:
    """Dialogues about `count` windows of 10 to `length` events: drills among understanding rounds."""
    rng = np.random.default_rng(seed)
    windows = sample_windows(prediction_windows(store, "train", history_length=length), count, seed)
    writer = Writer.of(store)
    for row in rng.permutation(len(windows)):
        start, end = int(windows.start[row]), int(windows.end[row])
        start = max(start, end - int(rng.integers(10, length + 1)))
        window = writer.window(start, end, f"nano:{end}")
        kinds = [str(k) for k in rng.permutation(KINDS)[: rng.integers(1, 3)]]
        rounds = [drill(window, rng) for _ in range(int(rng.integers(1, 4)))]
        for kind in kinds:
            if kind == "refinement":
                other = writer.window(start, end, f"other:{end}")
                draft = rules.summary(other)
                rounds.append(refinement_dialogue(window, "train", start, end, draft).rounds[0])
            else:
                rounds.append(Round(kind, INSTRUCTIONS[kind], ANNOTATORS[kind](window)))
        # Drills stand anywhere: what they ask for is also found from far behind the history.
        rounds = [rounds[i] for i in rng.permutation(len(rounds))]
        yield (
            window,
            Dialogue(window.sample_id, "train", 1, "reconstruction", start, end, tuple(rounds)),
        )


def encode(
    tokenizer: HFTokenizer, window: Window, dialogue: Dialogue, *, spelled: bool
) -> tuple[list[int], list[bool]]:
    """ChatML token ids of a corpus dialogue, and which belong to answers (stop token included).

    `spelled` writes the history out in the first turn; else its events have a placeholder each.
    """
    ids: list[int] = []
    answer: list[bool] = []
    for number, turn in enumerate(dialogue.rounds):
        if number:
            head = next_turn(tokenizer, turn.instruction)
        elif spelled:
            text = f"{history_text(window.catalogue, window.history)}\n{turn.instruction}"
            head = opening(tokenizer, 0, text)
        else:
            head = opening(tokenizer, len(window.history), turn.instruction)
        body = [*tokenizer.encode(turn.answer), tokenizer.im_end]
        ids += head + body
        answer += [False] * len(head) + [True] * len(body)
    return ids, answer


def train_tokenizer(count: int = 6000) -> tokenizers.Tokenizer:
    """Byte-level BPE over the corpus, the instructions and the known labels; times stay whole."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(_SPLIT, behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - 3,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        min_frequency=2,
        show_progress=False,
    )
    store = corpus_store(60, 60)
    rng = np.random.default_rng(0)

    def lines() -> Iterator[str]:
        for part in (store, relabelled(store, rng), relabelled(store, rng)):
            for window, dialogue in dialogues(part, count // 3, seed=1, length=16):
                yield history_text(window.catalogue, window.history)
                for turn in dialogue.rounds:
                    yield from (turn.instruction, turn.answer)
        hidden, told = (
            prediction_instruction(store.catalogue, *at, drill=DRILL) for at in ((), (0, 0))
        )
        fixed = [*{**INSTRUCTIONS, "prediction": hidden}.values(), *NOTHING, told]
        fixed += [generation_instruction(day) for day in range(7)]
        fixed += [f" {label}" for label in (*OTHER_LABELS, *store.catalogue.behaviours)]
        clocks = [f"{h:02d}:{m:02d}" for h in range(24) for m in (0, 30)]
        fixed += [f"Mon {clock} L{i} other" for clock in clocks for i in range(1, 11)]
        for text in fixed:
            yield from [text] * 20

    tokenizer.train_from_iterator(lines(), trainer)
    specials = ("<|endoftext|>", IM_START, IM_END)
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in specials])
    return tokenizer
