"""The recipe of nano's pretraining."""

from dataclasses import dataclass

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
    noise: float = 0.5  # largest norm of the noise on an event's vector, relative to the vector's
    seed: int = 0

    @property
    def fall_begin(self) -> int:
        """The step from which the rate falls."""
        return self.steps - int(FALL * self.steps)
