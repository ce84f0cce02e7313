"""What follows from a config before anything is built: keys and needs."""

from pathlib import Path
from typing import Any

import pytest

from bua_jax.events.simulate import simulated_store
from bua_jax.methods import cross, sasrec
from bua_jax.methods.protocol import Data, Site
from bua_jax.pipeline.chain import STEPS
from bua_jax.pipeline.methods import ASKED
from bua_jax.pipeline.steps import Run, key, order, outline
from bua_jax.training import events
from tests.support.steps import config_of


@pytest.mark.parametrize(
    ("kind", "dim", "is_it"),
    [("sasrec", 16, True), ("sasrec", 24, False), ("behavegpt", 16, False)],
)
def test_the_row_sasrec_is_the_runs_encoder_only_if_that_is_as_wide(
    kind: str, dim: int, is_it: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or its record would say a width that it has not."""
    config = config_of(encoder__kind=kind, encoder__dim=dim, methods__sasrec__dim=16)
    assert ("encoder" in STEPS["fit/sasrec"].needs(config)) == is_it
    trained: list[Any] = []

    def train(one: Any, *rest: Any, **how: Any) -> tuple[dict[str, Any], list[Any]]:
        trained.append((one.kind, one.dim))
        return {}, []

    monkeypatch.setattr(events, "train_encoder", train)
    monkeypatch.setattr("bua_jax.interop.huggingface.save_tree", lambda *rest: None)
    data = Data(simulated_store(4, 3, 0), lambda name: pytest.fail("draws nothing"))
    sasrec.METHOD.fit(Site(config, tmp_path, {}), data)
    assert trained == [("sasrec", 16)] * (not is_it)


@pytest.mark.parametrize("kind", ["behavegpt", "sasrec"])
def test_a_rows_page_is_in_the_key_of_no_encoder(kind: str) -> None:
    """Nor in that of a stage: the encoder's width is `encoder.dim`, whatever it is."""
    one = config_of(encoder__kind=kind)
    wider = config_of(encoder__kind=kind, methods__sasrec__dim=80)
    changed = {name for name in STEPS if key(name, one, STEPS) != key(name, wider, STEPS)}
    rows = {"sasrec", "collm", "llara", "a_llmrec"}  # of which the others read its items
    rows |= {f"llara_{ending}" for ending in cross.NOTES}
    steps = {f"fit/{row}" for row in rows}
    steps |= {f"predict/{row}/{name}" for row in rows for name in ASKED["predict"]}
    assert changed == {*(steps & {*STEPS}), "evaluation"}


def test_the_order_of_steps_needs_no_folder() -> None:
    """It is that in which an empty workdir is filled."""
    config = config_of()
    found = order("evaluation", config, STEPS)
    assert found == [*outline(Run(config, Path("none")), "evaluation", STEPS)]
    assert len(found) == len({*found}) > 30
    places = {name: place for place, name in enumerate(found)}
    assert all(places[n] < places[name] for name in found for n in STEPS[name].needs(config))


def test_rows_that_read_no_encoder_outlive_another_one() -> None:
    """They are trained as often and in the batches that it is, and read nothing else of its part."""
    one = config_of()
    for field, value in (("kind", "sasrec"), ("dim", 24), ("dropout", 0.5), ("dro_lambda", 0.5)):
        other = config_of(**{f"encoder__{field}": value})
        for row in ("fit/alphafuse", "fit/pituning"):
            assert key(row, one, STEPS) == key(row, other, STEPS), (row, field)
            assert key(row, one, STEPS) != key(row, config_of(encoder__batch=7), STEPS)
