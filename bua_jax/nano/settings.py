"""The recipe of nano's pretraining."""

import math
from dataclasses import dataclass

FORMS = ("vectors", "words", "mixed")
"""How a dialogue's history is given."""


@dataclass(frozen=True)
class Phase:
    """How hard the dialogues up to a step are; what copies is learnt on short texts, and then used."""

    before: float  # the step at which it ends
    forms: tuple[float, float, float]  # weights of `FORMS`
    longest: int  # events of a history; in words at most 16, mixed at most 28
    copies: float  # share of dialogues whose rounds are only what can be copied
    noise: float  # largest norm of the noise on an event's vector, relative to the vector's
    faint: float  # share of dialogues whose vectors hold, faintly, a distribution over labels


PHASES = (
    Phase(1000, (0, 1, 0), 8, 1.0, 0.0, 0.0),
    Phase(3000, (0.5, 0.3, 0.2), 16, 0.5, 0.1, 0.2),
    Phase(math.inf, (0.66, 0.17, 0.17), 44, 0.0, 0.3, 0.6),
)


LEVELS = {
    "8 events in words": Phase(math.inf, (0, 1, 0), 8, 1.0, 0.0, 0.0),
    "16 in words": Phase(math.inf, (0, 1, 0), 16, 0.0, 0.0, 0.0),
    "8 as vectors": Phase(math.inf, (1, 0, 0), 8, 1.0, 0.0, 0.0),
    "44 as vectors": Phase(math.inf, (1, 0, 0), 44, 0.0, 0.0, 0.6),
    "the last phase": PHASES[-1],
}
"""What is held out: how far a run has come."""


def phase_of(step: int) -> Phase:
    """The phase that a step belongs to."""
    return next(phase for phase in PHASES if step < phase.before)


FALL = 0.2  # share of the steps over which the rate falls to zero


@dataclass(frozen=True)
class Settings:
    """`rows` x `length` tokens a step; `vectors`: events given as vectors in a batch, at most."""

    steps: int = 12_000
    rows: int = 10
    length: int = 512
    vectors: int = 1120
    matrix_rate: float = 0.012  # Muon, of the layers' matrices
    rate: float = 2.5e-3  # Adam, of all else
    seed: int = 0

    @property
    def fall_begin(self) -> int:
        """The step from which the rate falls."""
        return self.steps - int(FALL * self.steps)
