"""Step `dialogues`: the rule-based annotator writes the reference answers of stages 1 and 2."""

import dataclasses
from collections import Counter
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from bua_jax.console import notice, progress
from bua_jax.dialogue.rounds import Dialogue
from bua_jax.dialogue.store import write_dialogues
from bua_jax.dialogue.tasks import Writer, stage1_dialogue, stage2_dialogue
from bua_jax.events.schema import EventStore
from bua_jax.events.windows import (
    WindowIndex,
    generation_windows,
    prediction_windows,
    sample_windows,
)
from bua_jax.pipeline.data import load_store
from bua_jax.pipeline.steps import Run
