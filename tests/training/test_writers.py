"""What TensorBoard shows of a finished run."""

from pathlib import Path

import pytest
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData

from bua_jax.basics.errors import WriteError
from bua_jax.pipeline.report import final_metrics
from bua_jax.training.writers import write_run


def events(folder: Path) -> list[Event]:
    """All events of the one file in a folder; each has its length before it, and hashes around."""
    (path,) = folder.iterdir()
    data, found = path.read_bytes(), []
    while data:
        size = int.from_bytes(data[:8], "little")
        found.append(Event.FromString(data[12 : 12 + size]))
        data = data[16 + size :]
    return found


def values(folder: Path) -> tuple[dict[str, float], dict[str, object]]:
    """(scalars, settings) that TensorBoard finds in a folder."""
    scalars: dict[str, float] = {}
    settings: dict[str, object] = {}
    for value in (value for event in events(folder) for value in event.summary.value):
        if value.tag == "_hparams_/session_start_info":
            told = HParamsPluginData.FromString(value.metadata.plugin_data.content)
            for name, one in told.session_start_info.hparams.items():
                settings[name] = getattr(one, str(one.WhichOneof("kind")))
        elif not value.tag.startswith("_hparams_"):
            scalars[value.tag] = value.simple_value
    return scalars, settings


def test_settings_and_metrics_of_a_run(tmp_path: Path) -> None:
    given = {"seed": 42, "model.name": "nano", "stages": [1, 2], "flag": True, "path": None}
    write_run(tmp_path, given, {"prediction/rec_w": 0.25, "bad": float("nan")})
    scalars, settings = values(tmp_path)
    assert scalars == {"prediction/rec_w": 0.25}
    assert settings == {
        **{"seed": 42, "model.name": "nano", "stages": "[1, 2]", "flag": True, "path": "null"}
    }
    write_run(tmp_path, {"seed": 1}, {"prediction/rec_w": 0.5})  # in the place of the first
    assert values(tmp_path) == ({"prediction/rec_w": 0.5}, {"seed": 1})
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match="Could not write the metrics"):
        write_run(tmp_path / "file", {}, {})


def test_the_numbers_of_an_evaluation() -> None:
    row = {"rec_w": 0.5, "hr@3": None, "people": 3, "signature": "x", "against": {"a": {"low": 1}}}
    days = {"bua": {"event": {"bleu": 0.1}}}
    found = final_metrics({"prediction": {"markov": row, "bua": row}, "generation": days})
    assert found == {
        **{f"prediction/{name}rec_w": 0.5 for name in ("", "markov/", "bua/")},
        **{f"prediction/{name}people": 3.0 for name in ("", "markov/", "bua/")},
        "generation/bua/event/bleu": 0.1,
    }
    assert final_metrics({"prediction": {}, "generation": {}}) == {}


def test_a_finished_run_has_them(quickstart: Path) -> None:
    scalars, settings = values(quickstart / "tensorboard")
    assert settings["model.name"] == "nano"
    assert settings["stage2.max_steps"] == 2
    assert {"prediction/rec_w", "prediction/lightgbm/log_loss"} <= scalars.keys()
    assert list((quickstart / "encoder" / "tensorboard").iterdir())
