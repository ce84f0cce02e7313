"""A model as the judge of a run's items, by the verb: what it costs, what may be sent, what comes of it."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from bua_jax.dialogue.rules import refined_summary
from bua_jax.dialogue.text import history_text
from bua_jax.evaluation.rating.items import Item, read_items, write_items
from bua_jax.events.windows import shown_id
from bua_jax.experiments.judging import TRIED, spoilt_texts, writers
from bua_jax.interop.openai import tokens_of
from bua_jax.pipeline.chain import STEPS
from bua_jax.pipeline.data import load_store
from bua_jax.pipeline.dialogues import writer_of
from bua_jax.pipeline.steps import Run, ensure
from bua_jax.pipeline.windows import load_set
from tests.evaluation.rating.leaning import leaning
from tests.support.api import Do, serving
from tests.support.runs import verb
from tests.support.steps import config_of

CONFIG = "--config=configs/curriculum.py:scale=tiny"


class Made(NamedTuple):
    """A run with test windows, and a file of items about ten of them."""

    run: Run
    file: Path
    true: dict[str, str]  # history in words -> summary by the rules


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("judged")
    run = Run(config_of("scale=tiny"), folder / "run")
    ensure(run, "windows/test", STEPS)
    store = load_store(run)
    frozen, writer = load_set(run, "test", store), writer_of(run.config, store)
    windows = frozen.windows
    some, true = [], {}
    for row in range(len(frozen)):
        name = shown_id(store, windows, row)
        window = writer.window(int(windows.start[row]), int(windows.end[row]), name)
        text = history_text(store.catalogue, window.history)
        true[text] = refined_summary(window)
        if len(some) < 10:
            lines = tuple(text.splitlines())
            texts = {"bua": f"no {row} good", "human": f"no {row} poor"}
            some.append(Item(name, lines, window.label(0), texts))
    write_items(folder / "items.jsonl", some)
    return Made(run, folder / "items.jsonl", true)


def knowing(true: dict[str, str]) -> Callable[[str], str]:
    """A judge who knows which of two texts is true of the history, or good."""
    other = leaning()

    def answer(question: str) -> str:
        said = re.findall(r"\nText A: (.*)\nText B: (.*)\nWhich is better", question)
        if not said or said[0][0].startswith("no "):
            return other(question)
        chosen = "A" if said[0][0] == true[question.partition("\nAbove are events")[0]] else "B"
        return json.dumps({"rationality": chosen, "interpretability": chosen})

    return answer


def test_a_run_is_judged(made: Made, tmp_path: Path) -> None:
    """Nothing is sent for the estimate or without consent; the second time nothing is paid."""
    tokens: list[int] = []

    def plan(body: dict[str, Any], before: int) -> Do:
        tokens.append(tokens_of(body)[0])
        return Do()

    with serving(plan, knowing(made.true)) as api:
        fields = {
            "judge.url": api.url,
            "judge.model": "fake-7b",
            "judge.json_mode": "prompt",
            "execution.api_cache": tmp_path / "answers.sqlite",
            "execution.api_limits.requests_per_minute": 60_000,
            "dialogues.annotator": "teacher",
            "teacher.model": "fake-70b",
        }
        flags = [f"--config.{name}={value}" for name, value in fields.items()]
        flags += [CONFIG, f"--workdir={made.run.workdir}", f"--input={made.file}"]

        def judge(name: str, *more: str) -> Any:
            return verb("rate", "judge", f"--output={tmp_path / name}", *flags, *more)

        done = judge("a", "--estimate")
        assert done.returncode == 0, done.stderr
        estimate = done.stdout
        number = int(estimate.split()[0])
        refused = judge("a")
        assert refused.returncode == 2
        assert "config.execution.api_consent='' is not '127.0.0.1'" in refused.stderr
        assert api.calls == []
        assert [*tmp_path.iterdir()] == []
        consent = "--config.execution.api_consent=127.0.0.1"
        done = judge("a", consent)
        assert done.returncode == 0, done.stderr
        assert len(api.calls) == number
        assert f"about {sum(tokens):,} tokens in" in estimate
        assert judge("b", consent).returncode == 0
        assert len(api.calls) == number
    for end in ("json", "html"):
        assert (tmp_path / f"a.{end}").read_bytes() == (tmp_path / f"b.{end}").read_bytes()
    said = json.loads((tmp_path / "a.json").read_text())
    assert said["judge"]["model"] == "fake-7b"
    assert said["judge"]["answered"] == ["fake-0324"]
    for found in said["criteria"].values():
        assert found["right"]["value"] == 1
        assert found["unusable"] == ""
        assert found["pairs"]["bua - human"]["both"]["value"] > 0.9
    (kin,) = said["kin"]
    assert "the run's teacher, 'fake-70b', are of one family (fake)" in kin
    assert "are of one family (fake)" in " ".join(done.stderr.split())
    assert "Where the truth is known" in done.stdout


def test_spoilt_texts_are_of_the_items_people(made: Made) -> None:
    some = read_items(made.file)
    found = spoilt_texts(made.run, some)
    assert 100 < len(found) <= TRIED
    for one in found:
        true = made.true["\n".join(some[one.item].history)]
        assert one.text == true
        assert one.spoilt != true
    assert {one.item for one in found} == {*range(len(some))}


def test_items_of_another_run(made: Made, tmp_path: Path) -> None:
    flags = (CONFIG, f"--output={tmp_path / 'a'}", "--estimate")
    done = verb("rate", "judge", f"--workdir={tmp_path}", f"--input={made.file}", *flags)
    assert done.returncode == 2
    assert "lacks data, windows/test. Give --workdir the run that the items are of" in done.stderr
    strange = tmp_path / "items.jsonl"
    strange.write_text(made.file.read_text().replace('"id": "', '"id": "x', 1))
    done = verb("rate", "judge", f"--workdir={made.run.workdir}", f"--input={strange}", *flags)
    assert done.returncode == 2
    assert "is of no test window of" in done.stderr
    strange.write_text(made.file.read_text().replace('"history": ["', '"history": ["Sun ', 1))
    done = verb("rate", "judge", f"--workdir={made.run.workdir}", f"--input={strange}", *flags)
    assert done.returncode == 2
    assert "has another history than its test window of" in done.stderr
    assert len(done.stderr.strip().split("\n\n")) == 1


def test_who_wrote_what_is_judged() -> None:
    config = config_of(model__name="qwen2.5-7b")
    sources = ("bua", "human", "reference", "untuned")
    own = {f"the writer of {name!r}": "qwen2.5-7b" for name in ("bua", "untuned")}
    assert writers(config, sources) == {**own, "the writer of 'human'": "human"}
    config.dialogues.reflect_critic, config.teacher.model = "teacher", "deepseek-chat"
    assert writers(config, sources)["the run's teacher"] == "deepseek-chat"
