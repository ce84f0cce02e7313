"""BUA and what is left of it without a stage, its order or its rounds; and with reference answers."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np

from bua_jax.basics.config import Settings
from bua_jax.basics.legal import Legal, Real, Whole
from bua_jax.dialogue.rounds import UNDERSTANDING
from bua_jax.dialogue.tasks import prediction_instruction
from bua_jax.methods.protocol import (
    NO_NOTES,
    About,
    Cases,
    Description,
    Generation,
    Kind,
    Method,
    Notes,
    Prediction,
    Site,
)

if TYPE_CHECKING:
    from bua_jax.alignment.ask import Bua

_BATCHES = 8  # asked about at once: with few, many rows would wait for the longest dialogue
_WRITING = (
    "max_new_tokens",
    "cache_dtype",
    "weight_dtype",
    "refine",
    "decode",
)  # fields of `decoding`
_DRAWING = ("temperature", "top_p", "constrained")  # those of days alone
_SEES = ("weekday", "slot", "place", "behaviour")


@dataclass(frozen=True)
class Given:
    """Reference answers that stand in the place of the model's own to the first `rounds`."""

    rounds: int = 0
    another: bool = False  # they are about another person
    turned: bool = False  # each is that to the round after it, the last one's that to the first


OWN = Given()


@dataclass(frozen=True)
class AskedBua:
    """A trained model; what it is given are the cases' notes."""

    bua: "Bua"
    facts: Mapping[str, Any]
    given: Given = OWN

    @property
    def rows(self) -> int:
        return _BATCHES * self.bua.batch

    def predict(self, cases: Cases) -> Prediction:
        bua, decode = self.bua, self.bua.decoding.decode
        final = [
            prediction_instruction(bua.catalogue, case.weekday, case.slot or 0, drill=bua.drill)
            for case in cases
        ]
        kinds = UNDERSTANDING[: self.given.rounds]
        told = (*kinds[1:], *kinds[:1]) if self.given.turned else kinds
        given = [
            {kind: notes[other] for kind, other in zip(kinds, told, strict=True)}
            for notes in cases.notes
        ]
        log_p, said = bua.probabilities(cases.histories(), final, decode=decode, given=given)
        readable = np.isfinite(log_p).any(1)
        label = np.where(readable, log_p.argmax(1), -1).astype(np.int16)
        return Prediction(
            label,
            np.exp(log_p.astype(np.float64)) if decode == "labels" else None,
            [one.texts for one in said],
            [one.truncated for one in said],
        )

    def generate(self, cases: Cases) -> Generation:
        rows = [crc32(name.encode()) >> 1 for name in cases.sample_id]  # fits a signed integer
        days, said, _ = self.bua.days(cases.histories(), cases.weekday.tolist(), rows=rows)
        return Generation(
            [one.day for one in days],
            [one.text for one in days],
            [one.invalid for one in days],
            [one.texts for one in said],
            [one.truncated for one in said],
        )

    def describe(self, cases: Cases) -> Description:
        said = self.bua.understand(cases.histories())
        return Description([one.texts for one in said], [one.truncated for one in said])


def last_stage(config: Settings) -> str:
    """The last stage of the curriculum."""
    return f"stage{max(config.stages)}"


def _load(site: Site, *, rounds: bool, given: Given) -> AskedBua:
    from bua_jax.alignment.ask import Bua
    from bua_jax.alignment.parts import TRAINED, assemble
    from bua_jax.parallel.sharding import own_mesh

    config, how = site.config, site.config.execution
    (stage,) = (n for n in site.inputs if n.startswith("stage") or n == "joint")
    had = site.inputs[stage].settings  # as it was trained
    mesh, trained = own_mesh(how.mesh), site.inputs[stage].folder / TRAINED
    encoder = site.inputs["encoder"].folder
    bua = Bua(
        assemble(had.model, how, encoder, had.seed, mesh, trained=trained),
        config.decoding,
        np.asarray(site.inputs["data"].result["shares"]),
        with_rounds=config.dialogues.rounds and rounds,
        refine=config.decoding.refine and stage == "stage3" and rounds,
        seed=config.seed,
        batch=how.decode_batch,
        drill=had.model.drill,
    )
    facts = {
        "training_windows": site.inputs[stage].result["all_dialogues"],
        "signature": bua.signature(config.decoding.decode),
    }
    return AskedBua(bua, facts, given)


def _method(
    name: str,
    about: str,
    stage: Callable[[Settings], str] = last_stage,
    says: tuple[Kind, ...] = ("predict",),
    *,
    rounds: bool = True,
    given: Given = OWN,
    legal: Mapping[str, Legal] | None = None,
) -> Method:
    return Method(
        name,
        About(name, about, _SEES, "dialogues"),
        load=functools.partial(_load, rounds=rounds, given=given),
        says=says,
        needs=lambda config: ("data", "encoder", stage(config)),
        notes=Notes("reference", another=given.another) if given.rounds else NO_NOTES,
        reads=("dialogues.rounds", *(f"decoding.{name}" for name in _WRITING)),
        reads_for={"generate": tuple(f"decoding.{name}" for name in _DRAWING)},
        legal=legal or {},
    )


_LEGAL: dict[str, Legal] = {
    "warm_windows": Whole(1),
    "warm_steps": Whole(1),
    "warm_batch": Whole(1),
    "warm_lr": Real(0, 1),
}

_ROUNDS = len(UNDERSTANDING)

METHODS = (
    _method("bua", "the whole curriculum", says=("predict", "generate", "describe"), legal=_LEGAL),
    _method("bua_stage1", "the projector alone", lambda config: "stage1", says=("describe",)),
    _method(
        "bua_stage2", "before self-reflection", lambda config: "stage2", ("predict", "describe")
    ),
    _method("bua_joint", "all stages at once (Appendix S)", lambda config: "joint"),
    _method("bua_no_rounds", "asked without understanding rounds (Appendix J)", rounds=False),
    *(
        _method(f"bua_given{k}", f"reference answers for {k} rounds (Appendix J)", given=Given(k))
        for k in range(1, _ROUNDS + 1)
    ),
    _method(
        "bua_given_another",
        "reference answers about another person",
        given=Given(_ROUNDS, another=True),
    ),
    _method(
        "bua_given_shuffled",
        "reference answers, each to the next round's question",
        given=Given(_ROUNDS, turned=True),
    ),
)
