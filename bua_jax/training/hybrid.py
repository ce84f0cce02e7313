"""How hybrid prompts are trained beyond dialogues: on one logit, and from words to soft tokens by a ramp."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bua_jax.feed.batches import Batch
from bua_jax.models.aligned import TokenLoss
from bua_jax.training.dialogues import Dialogues
from bua_jax.training.problem import Data


def single_logit(yes: int) -> TokenLoss:
    """CoLLM's loss: binary cross-entropy of the logit of the token `yes` alone, no softmax over answers."""

    def loss(logits: jax.Array, tokens: jax.Array) -> jax.Array:
        logit = logits[..., yes]
        return jax.nn.softplus(logit) - jnp.where(tokens == yes, logit, 0)

    return loss


def hybrid_share(step: int, steps: int) -> float:
    """LLaRA's curriculum: how likely a batch after `step` of `steps` shows soft tokens."""
    return min(1.0, step / steps)


def is_hybrid(step: int, steps: int, seed: int) -> bool:
    """Whether the batch after `step` steps does; it depends on these three alone."""
    return np.random.default_rng([seed, step]).random() < hybrid_share(step, steps)


class RampBatches(Iterator[Batch]):
    """Batches of which some have an inert token for every soft one; the position is theirs and the step."""

    def __init__(self, batches: Data, steps: int, seed: int, soft: int, inert: int) -> None:
        self._batches, self._steps, self._seed = batches, steps, seed
        self._soft, self._inert, self._step = soft, inert, 0

    def __next__(self) -> Batch:
        batch = dict(next(self._batches))
        if not is_hybrid(self._step, self._steps, self._seed):
            tokens = batch["tokens"]
            batch["tokens"] = np.where(tokens == self._soft, self._inert, tokens).astype(np.int32)
        self._step += 1
        return batch

    def get_state(self) -> dict[str, Any]:
        return {"step": self._step, "batches": self._batches.get_state()}

    def set_state(self, state: Mapping[str, Any]) -> None:
        self._step = int(state["step"])
        self._batches.set_state(state["batches"])

    def close(self) -> None:
        self._batches.close()


@dataclass(frozen=True)
class Ramp(Dialogues):
    """Dialogues that are first in words alone, batch by batch, and validated with their soft tokens.

    inert: the token that stands for soft ones till then. The loop is to pause the projector
    (`OptimizerSettings.paused`): without soft tokens its gradient is 0.
    """

    inert: int = 0

    def data(self) -> RampBatches:
        given = self.settings.total_steps, self.settings.seed, self.model.soft_id, self.inert
        return RampBatches(super().data(), *given)
