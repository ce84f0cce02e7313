"""Step `data`: events read or simulated, split by person, and described."""

from typing import Any

from bua_jax.basics.config import Settings
from bua_jax.basics.errors import ConfigError
from bua_jax.events.card import write_card
from bua_jax.events.groups import training_shares
from bua_jax.events.readers import DataSpec, read_store
from bua_jax.events.rows import BadRows
from bua_jax.events.schema import EventStore
from bua_jax.events.simulate import RESERVED_SEEDS, simulated_store
from bua_jax.pipeline.steps import Run

EVENTS = "events.parquet"


def data_sources(config: Settings) -> dict[str, str]:
    """The file that the events are read from."""
    path = config.data.get("path")
    return {"data.path": path} if path else {}


def load_store(run: Run) -> EventStore:
    """The events of a run's finished `data` step. Raises `DataError` for others than it wrote."""
    return EventStore.load(run.file("data", EVENTS))


def build_data(run: Run) -> dict[str, Any]:
    """Writes data/events.parquet and the data card; simulated sets also data/personas.parquet."""
    data = run.config.data
    folder, report = run.folder("data"), BadRows()
    if data.name == "simulated":
        if data.seed in RESERVED_SEEDS:
            raise ConfigError(
                f"config.data.seed={data.seed} is reserved: nano was pretrained on that population. "
                "Choose another, for example --config.data.seed=1."
            )
        store = simulated_store(
            data.num_users, data.num_days, data.seed, personas=folder / "personas.parquet"
        )
    else:
        store = read_store(DataSpec.from_mapping(data.to_dict()), report)
    store.save(folder / EVENTS)
    write_card(store, folder, report.duplicates)
    return {
        "fingerprint": store.fingerprint,
        "catalogue": store.catalogue.fingerprint(),
        "shares": training_shares(store).tolist(),
    }
