"""A teacher in the rules' place: what it is asked, what of its answers is kept, and what is paid again."""

import json
from pathlib import Path
from typing import Any

import pytest
from ml_collections import ConfigDict

from bua_jax.basics.errors import ConfigError
from bua_jax.dialogue.critic import CRITERIA
from bua_jax.dialogue.facts import Window
from bua_jax.dialogue.rounds import UNDERSTANDING
from bua_jax.dialogue.rules import refined_summary
from bua_jax.dialogue.store import read_dialogues
from bua_jax.dialogue.tasks import Writer, understanding_rounds
from bua_jax.dialogue.teacher import Teacher, annotation_question, review_question
from bua_jax.dialogue.text import history_text
from bua_jax.evaluation.understanding.judged import untrue
from bua_jax.events.groups import training_shares
from bua_jax.events.simulate import simulated_store
from bua_jax.events.windows import prediction_windows, sample_id, sample_windows
from bua_jax.interop.openai_page import chat_of
from bua_jax.pipeline.chain import STEPS
from bua_jax.pipeline.dialogues import SETS, check_teacher, say_estimate
from bua_jax.pipeline.steps import Run, ensure
from bua_jax.pipeline.windows import step_of
from tests.support.api import Do, serving
from tests.support.steps import config_of

STORE = simulated_store(12, 15, 3)
FOUND = sample_windows(prediction_windows(STORE, "train"), 4, 0)
WRITER = Writer(STORE, training_shares(STORE))
WINDOWS = [
    WRITER.window(int(FOUND.start[i]), int(FOUND.end[i]), sample_id(STORE, FOUND, i))
    for i in range(4)
]


def events_in(question: str) -> str:
    return question.partition("\nAbove are events")[0]


def by_rules(window: Window) -> str:
    return json.dumps({turn.kind: turn.answer for turn in understanding_rounds(window)})


def settings(url: str, folder: Path, **fields: Any) -> ConfigDict:
    config = config_of("scale=tiny", dialogues__annotator="teacher", **fields)
    config.teacher.update({"url": url, "model": "fake", "json_mode": "prompt"})
    config.execution.api_consent = "127.0.0.1"
    config.execution.api_cache = str(folder / "answers.sqlite")
    config.execution.api_limits.requests_per_minute = 60_000
    return config


def test_false_answers_are_asked_again_once_with_the_reasons(tmp_path: Path) -> None:
    row_of = {history_text(w.catalogue, w.history): i for i, w in enumerate(WINDOWS)}
    label = WINDOWS[1].label(WINDOWS[1].behaviours[-1])
    lie = dict.fromkeys(UNDERSTANDING, f"Frequent: {label} (99 of 40).")

    def answer(body: dict[str, Any], before: int) -> Do:
        asked = body["messages"][0]["content"]
        row, again = row_of[events_in(asked)], "An earlier answer was" in asked
        if row == 2 or (row == 1 and not again):
            return Do(text=json.dumps(lie))
        if row == 3 and not again:
            return Do(text="Surely! This person likes coffee.")
        return Do(text=by_rules(WINDOWS[row]))

    with serving(answer, str) as api:
        config = settings(api.url, tmp_path)
        teacher = Teacher(chat_of(config.teacher, config.execution, "teacher"), untrue)
        said = teacher.annotate(WINDOWS)
        paid = len(api.calls)
        assert teacher.annotate(WINDOWS) == said
    assert len(api.calls) == paid + 1  # what is no answer is asked again, all else is kept
    assert said[2] is None
    for i in (0, 1, 3):
        assert said[i] == json.loads(by_rules(WINDOWS[i]))
    counts = {what: n / 2 for what, n in teacher.counts.items()}
    assert counts["asked"] == 4
    assert counts["asked again"] == 3
    assert counts["left out"] == 1
    assert counts["false: form"] == 1
    assert counts["false: counts"] == 3 * len(UNDERSTANDING)
    reasons = [asked for asked, *_ in api.calls if "An earlier answer was" in asked]
    assert any(f"counts of {label}: " in text for text in reasons)
    assert any("it is not in the form that was asked for" in text for text in reasons)


def test_a_review_has_issues_and_a_true_summary(tmp_path: Path) -> None:
    def answer(body: dict[str, Any], before: int) -> Do:
        asked = body["messages"][0]["content"]
        (window,) = (w for w in WINDOWS if history_text(w.catalogue, w.history) == events_in(asked))
        said = {
            "issues": ["hierarchy", "no such issue", "temporal"],
            "summary": refined_summary(window),
        }
        return Do(text=json.dumps(said))

    with serving(answer, str) as api:
        config = settings(api.url, tmp_path)
        teacher = Teacher(chat_of(config.teacher, config.execution, "teacher"), untrue)
        reviews = teacher.review(WINDOWS, [f"Draft {i}." for i in range(4)])
    for window, review in zip(WINDOWS, reviews, strict=True):
        assert review is not None
        assert review.issues == ("hierarchy", "temporal")
        assert review.score == pytest.approx(1 - 2 / len(CRITERIA))
        assert review.refined == refined_summary(window)
    assert all(f"Draft {i}." in "".join(a for a, *_ in api.calls) for i in range(4))


def test_questions_hold_no_target_no_id_and_no_date() -> None:
    """All that follows a window may change: the questions stay byte for byte; nor do people's names leave."""
    for i, window in enumerate(WINDOWS):
        asked, start, end = annotation_question(window), int(FOUND.start[i]), int(FOUND.end[i])
        other = simulated_store(12, 15, 3)
        for column, many in ((other.behaviour, len(STORE.catalogue.behaviours)), (other.slot, 48)):
            column[end:] = (column[end:] + 1) % many
        other.location[end:] = other.location[0]
        assert (other.behaviour[end:] != STORE.behaviour[end:]).all()
        changed = Writer(other, training_shares(STORE)).window(start, end, "x")
        assert annotation_question(changed) == asked
        assert review_question(changed, "d") == review_question(window, "d")
        assert not any(user in asked for user in STORE.users)
        assert window.sample_id not in asked


def test_a_data_set_is_built_again_from_what_was_paid(tmp_path: Path) -> None:
    """The same bytes, with nobody there to ask; and a teacher that may not be asked is refused first."""
    texts: dict[str, str] = {}

    def answer(question: str) -> str:
        label = events_in(question).rsplit(" ", 1)[-1]
        said = {kind: f"The {kind} of somebody." for kind in UNDERSTANDING}
        texts[question] = label
        return json.dumps(said)

    with serving(lambda body, n: Do(), answer) as api:
        config = settings(api.url, tmp_path, windows__train=24, windows__validation=8)
        for name in SETS:
            ensure(Run(config, tmp_path / "a"), step_of(name), STEPS)
        refused = config.copy_and_resolve_references()
        refused.execution.api_consent = ""
        with pytest.raises(ConfigError, match=r"config\.teacher\.url: histories of people"):
            check_teacher(refused, ["dialogues"])
        check_teacher(refused, ["encoder"])
        assert api.calls == []
        ensure(Run(config, tmp_path / "a"), "dialogues", STEPS)
        paid = len(api.calls)
    ensure(Run(config, tmp_path / "b"), "dialogues", STEPS)
    assert paid == len(texts)
    first, second = (tmp_path / run / "dialogues" / "stage2.parquet" for run in "ab")
    assert first.read_bytes() == second.read_bytes()
    kinds = {
        turn.answer
        for dialogue in read_dialogues(first)
        for turn in dialogue.rounds
        if turn.kind == "summary"
    }
    assert kinds == {"The summary of somebody."}
    record = json.loads((tmp_path / "a" / "dialogues" / "record.json").read_text())
    assert record["result"]["teacher"] == {"asked": paid, "left out": 0}


def test_what_it_would_cost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = settings("http://localhost/v1", tmp_path, windows__train=24, windows__validation=8)
    config.execution.api_limits.price_out = 1000.0
    config.dialogues.shortened_share = 0.0
    run = Run(config, tmp_path)
    say_estimate(run, lambda step: ensure(run, step, STEPS))
    said = " ".join(capsys.readouterr().out.split())
    number = int(said.split()[0])
    assert 28 <= number <= 32  # a history before a day and before an event is asked about once
    assert f"{number} questions, each asked twice at most" in said
    assert f"at most {number * 768:,} out, {number * 768 / 1000:.2f} at the prices" in said
