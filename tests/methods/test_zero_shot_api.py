"""The row of a model behind an API: what it asks, how answers are read, and what it refuses to begin with."""

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ml_collections import ConfigDict

from bua_jax.basics import config as configs
from bua_jax.basics.errors import ApiError, ConfigError
from bua_jax.evaluation import results
from bua_jax.evaluation.prediction import prediction_metrics
from bua_jax.events.schema import Catalogue
from bua_jax.events.simulate import simulated_store
from bua_jax.events.windows import prediction_windows, sample_windows
from bua_jax.interop.openai import read_answer
from bua_jax.interop.openai_page import extra
from bua_jax.methods.protocol import Built, Case, Data, Site, cases_of
from bua_jax.methods.zero_shot_api import (
    METHOD,
    ZeroShotApi,
    answer_form,
    check,
    question,
    read_label,
)
from bua_jax.pipeline.methods import rows_of_slice
from tests.support.api import Do, completion, pick, serving
from tests.support.helpers import ROOT

STORE = simulated_store(12, 15, 3)
WINDOWS = sample_windows(prediction_windows(STORE, "test"), 6, 0)
CASES = cases_of(STORE, WINDOWS, 40)
LABELS = STORE.catalogue.behaviours


def listed(text: str) -> list[str]:
    return json.loads(text[text.index("one of: ") + 8 : -1])


def test_labels_come_in_an_order_of_the_case_and_the_seed() -> None:
    asked = [question(case, STORE.catalogue, 42) for case in CASES]
    orders = [listed(text) for text in asked]
    assert all(sorted(order) == sorted(LABELS) for order in orders)
    assert len({*map(tuple, orders), LABELS}) == len(CASES) + 1
    assert [question(case, STORE.catalogue, 42) for case in CASES] == asked
    first = question(CASES[0], STORE.catalogue, 43)
    assert first.split("one of")[0] == asked[0].split("one of")[0]
    assert listed(first) != orders[0]
    renamed = dataclasses.replace(CASES, sample_id=tuple("abcdef"), user=tuple("abcdef"))
    assert [question(case, STORE.catalogue, 42) for case in renamed] == asked  # nor do names leave


def test_where_a_label_stands_says_nothing() -> None:
    """Its mean place over many cases is the middle, within 5 standard errors of a uniform draw."""
    windows = sample_windows(prediction_windows(STORE, "train"), 400, 0)
    orders = [listed(question(c, STORE.catalogue, 0)) for c in cases_of(STORE, windows, 40)]
    orders = [list(order) for order in {tuple(order) for order in orders}]
    places = np.asarray([[order.index(label) for label in LABELS] for order in orders])
    error = np.sqrt((len(LABELS) ** 2 - 1) / 12 / len(orders))
    assert abs(places.mean(0) - (len(LABELS) - 1) / 2).max() < 5 * error


def test_a_question_holds_the_history_and_what_is_told() -> None:
    case: Case = CASES[0]
    last = LABELS[case.history.behaviour[-1]]
    text = question(case, STORE.catalogue, 42)
    assert text.split("\n")[-2].endswith(last)
    assert "Which behaviour comes next?" in text
    told = dataclasses.replace(case, weekday=1, slot=15)
    assert "comes next on Tue at 07:30?" in question(told, STORE.catalogue, 42)
    without = Catalogue(LABELS, 48, has_places=False)
    assert "weekday, time and behaviour" in question(case, without, 42)


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ('{"behaviour": "read"}', 0),
        ('{"behaviour": "read news"}', 1),  # of which another label is a part
        ('{"behaviour": "READ NEWS"}', 1),
        ('{"behaviour": "reading"}', -1),
        ('{"behaviour": "pay"}', 2),
        ('{"behaviour": "Pay"}', 3),
        ('{"behaviour": "PAY"}', -1),  # two labels without their case
        ('{"behaviour": ""}', -1),
        ('{"behaviour": 0}', -1),
        ('{"behaviour": "read", "behaviour": "pay"}', -1),
        ("read news", 1),
        (" Read. ", 0),
        ("They read news.", -1),
        ("", -1),
    ],
)
def test_how_an_answer_is_read(text: str, label: int) -> None:
    catalogue = Catalogue(("read", "read news", "pay", "Pay"), 48, has_places=True)
    for finish, found in (("stop", label), ("length", -1), ("content_filter", -1)):
        said = read_answer(completion(text, finish), answer_form())
        assert read_label(said, catalogue) == found


# ------------------------------------------------------------------------------------------- asked


def page(url: str, **fields: object) -> ConfigDict:
    """A config with the method's page, for a host that takes no key."""
    config = configs.load("configs/base.py").copy_and_resolve_references()
    config.methods.zero_shot_api.update({"url": url, "key_variable": "", **fields})
    config.execution.api_consent = "127.0.0.1"
    config.execution.api_limits.requests_per_minute = 60_000
    return config


def loaded(config: ConfigDict, folder: Path) -> ZeroShotApi:
    config.execution.api_cache = str(folder / "c")
    site = Site(config, folder, {})
    assert METHOD.fit is not None
    assert METHOD.fit(site, Data(STORE, pytest.fail)) == {"training_windows": 0}
    return METHOD.load(Site(config, folder, {"fit/zero_shot_api": Built(folder, config, {})}))


def test_predictions_are_labels_and_who_said_them(tmp_path: Path) -> None:
    texts = ['{"behaviour": "no such thing"}', f"{LABELS[4].upper()}.", "", "I cannot tell."]

    def answer(body: dict[str, Any], before: int) -> Do:
        bodies.append(body)
        said = [*texts, *(json.dumps({"behaviour": LABELS[7]}) for _ in range(2))]
        row = asked.index(body["messages"][0]["content"].rpartition("\n")[0])
        return Do(text=said[row], finish="length") if row == 2 else Do(text=said[row])

    asked, bodies = [question(case, STORE.catalogue, 42) for case in CASES], []
    with serving(answer, pick) as api:
        extra = '{"seed": 5, "temperature": null}'
        method = loaded(page(api.url, extra=extra, max_tokens=9, json_mode="prompt"), tmp_path)
        rows = rows_of_slice(method, "predict", CASES, slice(0, 6))
    assert [label.item() for label in rows["label"]] == [-1, 4, -1, -1, 7, 7]
    assert rows["probability"] is None
    assert rows["cut"] == [0, 0, 1, 0, 0, 0]
    assert json.loads(rows["text"][3]) == {
        "prediction": "I cannot tell.",
        "model": "fake-0324",
        "system_fingerprint": "fp_1",
        "answered": "2025-06-15",
    }
    assert {*bodies[0]} == {"model", "messages", "max_tokens", "seed"}
    assert [bodies[0][name] for name in ("model", "max_tokens", "seed")] == ["deepseek-chat", 9, 5]
    assert method.facts["asked"] == {"url": api.url, "model": "deepseek-chat"}
    path = tmp_path / results.FILE
    how = results.Ready(method.facts, 6, lambda some: rows)
    results.write(path, "predict", {}, "identity", CASES.sample_id, how)
    read = results.read(path)
    assert read.answered_by == {"fake-0324 fp_1": 6}
    assert read.probability is None
    scored = prediction_metrics([0, 4, 4, 4, 7, 0], read.label, {}, read.probability)
    assert (scored["n"], scored["invalid"]) == (6, 3)  # the invalid ones are wrong, not left out
    assert scored["rec_w"] == pytest.approx(2 / 6)
    assert "log_loss" not in scored


def test_a_host_that_writes_nothing_is_an_error(tmp_path: Path) -> None:
    with serving(lambda body, n: Do("raw", text=completion("", "length").decode()), pick) as api:
        method = loaded(page(api.url, json_mode="prompt"), tmp_path)
        with pytest.raises(ApiError, match=r"wrote nothing .* 6 questions .*length.*max_tokens"):
            method.predict(CASES)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"execution.api_consent": ""}, r"api_consent='' is not '127\.0\.0\.1', .*--config\.exec"),
        ({"methods.zero_shot_api.url": ""}, r"config\.methods\.zero_shot_api\.url is empty.* Set it"),
        ({"methods.zero_shot_api.model": ""}, r"zero_shot_api\.model is empty"),
        ({"methods.zero_shot_api.url": "http://a.org"}, r"url='http://a\.org': anybody on the way"),
        ({"execution.api_limits.cost": 1.0}, r"api_limits\.cost=1 .* give the prices"),
    ],
)  # fmt: skip
def test_what_is_refused_before_anything_is_sent(
    tmp_path: Path, fields: dict[str, Any], said: str
) -> None:
    with serving(lambda body, n: Do(), pick) as api:
        config = page(api.url)
        config.update_from_flattened_dict(fields)
        for begin in (lambda: check(config), lambda: loaded(config, tmp_path)):
            with pytest.raises(ConfigError, match=said):
                begin()
    assert api.calls == []


def test_a_key_is_needed_when_something_is_sent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And said before: answers that are kept need none."""
    with serving(lambda body, n: Do(), pick) as api:
        config = page(api.url, key_variable="NO_X", json_mode="prompt")
        check(config)
        assert (
            "key_variable='NO_X': that environment variable is not set" in capsys.readouterr().err
        )
        method = loaded(config, tmp_path)
        with pytest.raises(ConfigError, match=r"variable='NO_X': .*not set.* Put the API key"):
            method.predict(CASES)
    assert api.calls == []


def test_a_body_takes_more_fields() -> None:
    assert extra("") == {}
    assert extra('{"a": {"b": null}}') == {"a": {"b": None}}
    for wrong in ("[]", "{", '{"messages": []}', '{"stream": true}'):
        with pytest.raises(ConfigError, match="expected an object of JSON"):
            extra(wrong)


def test_without_the_extra_all_else_works(tmp_path: Path) -> None:
    """Its packages are not imported where nobody asks a host; and are named where somebody does."""
    for name in ("aiolimiter", "pydantic", "tenacity"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"raise RuntimeError('{name} is imported')")
    code = "import bua_jax.pipeline.chain, bua_jax.pipeline.checks, bua_jax.pipeline.evaluate"
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec

    def found(name: str) -> Any:
        return None if name in ("aiolimiter", "tenacity") else find(name)

    monkeypatch.setattr(importlib.util, "find_spec", found)
    with pytest.raises(ConfigError, match=r"extra api: pip install aiolimiter tenacity$"):
        check(page("http://127.0.0.1:9"))
