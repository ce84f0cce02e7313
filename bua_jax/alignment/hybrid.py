"""What BUA, TALLRec, CoLLM, LLaRA and A-LLMRec share beyond the prompt: four switches, training, asking."""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bua_jax.alignment.parts import Parts
from bua_jax.basics import files
from bua_jax.basics.config import Settings
from bua_jax.basics.console import notice
from bua_jax.basics.errors import ConfigError
from bua_jax.decoding.dialogue import Decoder, check_finite, check_room, log_softmax
from bua_jax.decoding.engine import Job, Turn
from bua_jax.decoding.labels import CandidateTree, build_tree
from bua_jax.decoding.rounds import label_tree, run_jobs
from bua_jax.dialogue.hybrid import SOURCES, TARGETS, Asked, Known, Prompts, records
from bua_jax.dialogue.prompts import label_tokens
from bua_jax.events.schema import History
from bua_jax.feed import packing, token_file
from bua_jax.feed.records import check_positions, fitting
from bua_jax.feed.token_file import TokenFile
from bua_jax.models import projector, two_stage
from bua_jax.models.projector import Linear, Projector
from bua_jax.parallel import sharding
from bua_jax.training import loop
from bua_jax.training.dialogues import Dialogues, TrainSettings
from bua_jax.training.hybrid import Ramp, single_logit
from bua_jax.training.optimizer import OptimizerSettings

# ----------------------------------------------------------------------------------- four switches


@dataclass(frozen=True)
class Mapper:
    """How vectors become soft tokens."""

    module: type[Projector | Linear]
    aligned: bool = False  # items are first brought to the words of labels (`alignment.two_stage`)


MAPPINGS: dict[str, Mapper] = {
    "linear": Mapper(Linear),
    "mlp": Mapper(Projector),
    "two_stage": Mapper(Projector, aligned=True),
}


@dataclass(frozen=True)
class Phase:
    """A part of the training: what it trains, on prompts of which form."""

    trains: tuple[str, ...]
    form: str = "hybrid"  # hybrid; words: without soft tokens; ramp: from words to hybrid


SCHEDULES: dict[str, tuple[Phase, ...]] = {
    "joint": (Phase(("projector", "adapter")),),
    "adapter_then_projector": (Phase(("adapter",), "words"), Phase(("projector",))),
    "ramp": (Phase(("projector", "adapter"), "ramp"),),
    "projector": (Phase(("projector",)),),  # the language model stays as it is
}


@dataclass(frozen=True)
class Switches:
    """Keys of `SOURCES`, `MAPPINGS`, `SCHEDULES`, `TARGETS`. Raises `ConfigError` for what cannot work."""

    source: str
    mapping: str
    schedule: str
    target: str

    def __post_init__(self) -> None:
        shown, phases = SOURCES[self.source], SCHEDULES[self.schedule]
        soft = self.source != "none"
        if not soft and all("adapter" not in phase.trains for phase in phases):
            self._refuse("schedule", "there are no soft tokens, so nothing would be trained")
        if self.schedule == "ramp" and not (soft and shown.words):
            self._refuse("schedule", "it takes words, and soft tokens beside them")
        if MAPPINGS[self.mapping].aligned and not shown.items:
            self._refuse("mapping", "it aligns items, of which there are none")

    def _refuse(self, name: str, why: str) -> None:
        raise ConfigError(
            f"{name}={getattr(self, name)!r} cannot go with source={self.source!r}: {why}. Choose another of "
            "the two on the method's page."
        )

    @classmethod
    def of(cls, page: Settings) -> "Switches":
        """Those of a page in configs/methods."""
        return cls(page.source, page.mapping, page.schedule, page.target)

    @property
    def soft_tokens(self) -> str:
        """The kind of soft tokens that the model has (`models.aligned`)."""
        if self.source == "none":
            return "text"
        return "both" if SOURCES[self.source].words else "sequence"

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The schedule's; without soft tokens no projector is trained, and no phase of it alone is left."""
        kept = [p for p in ("projector", "adapter") if p == "adapter" or self.source != "none"]
        found = [
            Phase(tuple(p for p in phase.trains if p in kept), phase.form)
            for phase in SCHEDULES[self.schedule]
        ]
        return tuple(phase for phase in found if phase.trains)


# ------------------------------------------------------------------------------------------ the model


def with_mapping(parts: Parts, switches: Switches, seed: int) -> Parts:
    """`parts` with a fresh projector of the switches' kind, and their kind of soft tokens.

    parts: assembled for `switches.soft_tokens`, with the encoder that the source names.
    """
    if switches.source == "none":
        return parts
    mapper, model = MAPPINGS[switches.mapping], parts.model
    table = parts.variables["base"]["embed_tokens"]["embedding"]
    fresh = functools.partial(projector.init, embedding=table, module=mapper.module)
    key, encoder = jax.random.key(seed), model.encoder
    assert encoder is not None
    sizes: Any = encoder
    width, variables = sizes.config.state_dim, dict(parts.variables)
    variables["projector"] = fresh(key, width)
    if mapper.aligned:
        encoder = two_stage.Joint(sizes.config)
        first, second = jax.random.split(key)
        items, states = fresh(first, two_stage.WIDTH), fresh(second, width)
        variables["projector"] = {"item": items, "user": states}
        joint = jax.tree.map(jnp.zeros_like, two_stage.init(key, width, 1)["item"]["encode"])
        variables["encoder"] = {"sasrec": variables["encoder"], "joint": joint}
    module = mapper.module(table.shape[1])
    model = dataclasses.replace(model, projector=module, encoder=encoder)
    return dataclasses.replace(parts, model=model, variables=variables)


# ---------------------------------------------------------------------------------------- training

Cases = Mapping[str, Known]
"""By name."""


@dataclass(frozen=True)
class Learning:
    """How the phases are trained. stage: a stage's settings, of which `epochs` and `peak_lr` are not read."""

    stage: Settings
    epochs: float
    peak_lr: float
    negatives: int  # candidates beside each true one, where the target is `yes_no`
    seed: int

    def settings(self, plan: packing.PackingPlan, paused: tuple[str, ...]) -> TrainSettings:
        """Of a phase whose batches `plan` describes."""
        stage = self.stage
        total = max(1, math.ceil(self.epochs * plan.steps_per_epoch))
        how = OptimizerSettings(
            peak_lr=self.peak_lr,
            initial_lr=stage.initial_lr,
            final_lr=stage.final_lr,
            warmup_share=stage.warmup_share,
            weight_decay=stage.weight_decay,
            clip_norm=stage.clip_norm,
            paused=paused,
        )
        return TrainSettings(
            microbatches=stage.microbatches,
            total_steps=total,
            evaluate_every=max(1, total // stage.evaluations),
            checkpoint_every=max(1, total // stage.checkpoints),
            seed=self.seed,
            optimizer=how,
        )


def train(
    parts: Parts,
    prompts: Prompts,
    switches: Switches,
    cases: Mapping[str, Cases],
    learning: Learning,
    folder: Path,
) -> tuple[Parts, dict[str, Any]]:
    """`parts` after all phases of the schedule, and what was measured; goes on after a cut.

    cases: of the splits train and validation; each phase keeps its tokens and checkpoints in a folder of
    its own. Raises `DataError` where prompts are too long.
    """
    measured: dict[str, Any] = {}
    for number, phase in enumerate(switches.phases, 1):
        own = folder / f"phase{number}"
        mesh = parts.mesh or sharding.make_mesh("1", jax.local_devices()[:1])
        problem, settings = of_phase(parts, prompts, switches, phase, cases, learning, own)
        identity = {
            **parts.identity,
            "switches": dataclasses.asdict(switches),
            "settings": dataclasses.asdict(settings),
            "trained": [dataclasses.asdict(before) for before in switches.phases[: number - 1]],
        }
        with jax.set_mesh(mesh):
            best, said = loop.fit(
                problem, parts.variables, phase.trains, settings, own, mesh, identity
            )
        measured |= {f"phase{number}_{name}": value for name, value in said.items()}
        parts = dataclasses.replace(parts, variables={**parts.variables, **best})
    return parts, measured


def of_phase(
    parts: Parts,
    prompts: Prompts,
    switches: Switches,
    phase: Phase,
    cases: Mapping[str, Cases],
    learning: Learning,
    folder: Path,
) -> tuple[Dialogues, TrainSettings]:
    """What a phase trains on, and how; its tokens are written into the folder once."""
    if phase.form == "words":
        prompts = dataclasses.replace(prompts, source=SOURCES["none"])
        model = dataclasses.replace(parts.model, soft_tokens="text")
    else:
        model = parts.model
    length, seed = learning.stage.row_length, learning.seed

    def kept(split: str) -> TokenFile:
        path = folder / f"tokens_{split}.arrow"
        if not files.is_whole(path):
            folder.mkdir(parents=True, exist_ok=True)
            made = list(records(prompts, switches.target, cases[split], learning.negatives, seed))
            fit = fitting(made, length)
            if skipped := len(made) - len(fit):
                notice(f"skipped {skipped} of {len(made)} prompts longer than {length} tokens")
            token_file.write(path, fit, {})
        found = TokenFile(path)
        check_positions(found, model.llm.config.max_positions)
        return found

    plan = packing.plan_packing(
        found := kept("train"),
        row_length=length,
        batch_dialogues=learning.stage.batch_dialogues,
        seed=seed,
        rows_multiple=learning.stage.microbatches,
    )
    ramp = phase.form == "ramp"
    settings = learning.settings(plan, ("projector",) if ramp else ())
    loss = single_logit(prompts.answers[0]) if TARGETS[switches.target] else None
    given = model, plan, settings, found, kept("validation"), "hybrid prompts", loss
    inert = parts.tokenizer.soft_end
    return (Ramp(*given, inert=inert) if ramp else Dialogues(*given)), settings


# ------------------------------------------------------------------------------------------- asking


def _turn(asked: Asked, wants: str) -> Turn:
    events = asked.events if asked.shown else None
    return Turn(asked.tokens, wants, asked.shown, events)


def label_scores(
    decoder: Decoder, prompts: Prompts, histories: Sequence[History], notes: Sequence[str] = ()
) -> tuple[np.ndarray, list[tuple[str, bool]]]:
    """Log-probabilities float32[n, C] of all labels, exact; and what is written freely, and if it was cut.

    notes: about the person of each history, or none.
    """
    noted = _noted(decoder, prompts, histories, notes)
    asked = [prompts.label(history, note) for history, note in noted]

    def job(i: int) -> Job:
        log_p, _ = yield _turn(asked[i], "labels")
        check_finite(log_p, i)
        answer = yield _turn(asked[i], "text")
        return log_softmax(log_p), (decoder.tokenizer.decode(answer.tokens), answer.cut)

    slots = max(len(one.tokens) for one in asked) + decoder.max_new_tokens + 1
    jobs = [functools.partial(job, i) for i in range(len(asked))]
    found = run_jobs(decoder, slots, jobs, "predicting", tree=label_tree(decoder))
    return np.stack([log_p for log_p, _ in found]), [written for _, written in found]


def yes_logits(
    decoder: Decoder, prompts: Prompts, histories: Sequence[History], notes: Sequence[str] = ()
) -> np.ndarray:
    """float32[n, C]: of each label as the candidate, the logit of the answer yes; all in one pass.

    notes: as of `label_scores`.
    """
    noted = _noted(decoder, prompts, histories, notes)
    asked = [prompts.head(history, note) for history, note in noted]

    def job(i: int) -> Job:
        logits, _ = yield _turn(asked[i], "labels")
        check_finite(logits, i)
        return logits

    slots = max(len(one.tokens) for one in asked)
    jobs = [functools.partial(job, i) for i in range(len(asked))]
    return np.stack(run_jobs(decoder, slots, jobs, "predicting", tree=candidate_tree(prompts)))


def candidate_tree(prompts: Prompts) -> CandidateTree:
    """The rests of the questions about all labels."""
    rest = [prompts.candidate(c) for c in range(len(prompts.catalogue.behaviours))]
    questions = build_tree([one.tokens for one in rest])
    events = np.concatenate([one.events for one in rest])
    soft_index = np.zeros_like(questions.tokens)
    for number, leaf in enumerate(questions.leaves):
        mine = questions.ancestors[leaf] & (questions.tokens == prompts.tokenizer.soft)
        soft_index[mine] = number
    return CandidateTree(questions, soft_index, events, np.asarray(prompts.answers[0], np.int32))


def _noted(
    decoder: Decoder, prompts: Prompts, histories: Sequence[History], notes: Sequence[str]
) -> list[tuple[History, str]]:
    """Histories with their notes. Raises `ConfigError` for one longer than the encoder reads."""
    if prompts.source.encoder:
        for history in histories:
            check_room(decoder, history)
    return list(zip(histories, notes or [""] * len(histories), strict=True))


def longest_label(prompts: Prompts) -> int:
    """Tokens that free text is given: one more than the longest label, so that a longer one is none."""
    labels = prompts.catalogue.behaviours
    return 1 + max(len(label_tokens(prompts.tokenizer, label)) for label in labels)
