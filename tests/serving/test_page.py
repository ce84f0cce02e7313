"""The page in a browser, with the model of a reduced quickstart behind it."""

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from queue import Queue
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from bua_jax.pipeline.finished import events_of
from bua_jax.serving import page
from bua_jax.serving.app import Office
from tests.support.browser import measured, sent_by
from tests.support.helpers import ROOT
from tests.support.serving import listening

PROGRAM = ROOT / "tests" / "programs" / "serve_page.html"


SENT: Queue[str] = Queue()


async def _program(request: Request) -> Response:
    if request.method == "POST":
        SENT.put((await request.body()).decode())
    return HTMLResponse(PROGRAM.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def people(quickstart: Path) -> list[dict[str, Any]]:
    return page.people_of(events_of(quickstart), 3)


@pytest.fixture(scope="module")
def url(office: Office, people: list[dict[str, Any]]) -> Iterator[str]:
    with listening(
        office, more=[*page.routes(people), Route("/program", _program, methods=["GET", "POST"])]
    ) as address:
        yield address


@pytest.fixture(scope="module")
def seen(chromium: str, url: str, tmp_path_factory) -> dict[str, Any]:
    """What happened to somebody at the keyboard; no line reached the console, so the policy held."""
    profile = tmp_path_factory.mktemp("profile")
    return json.loads(sent_by(chromium, f"{url}/program", profile, SENT))


def test_errors_are_said(seen: dict[str, Any]) -> None:
    assert seen["wrong"].startswith("The history is not JSON")
    assert "the number of events is 1" in seen["refused"]
    assert seen["stopped"] == "Stopped."


def test_the_page_shows_what_the_model_says(
    seen: dict[str, Any], url: str, people: list[dict[str, Any]]
) -> None:
    """The texts grow; they, the labels of model and encoder, and the day are what /person answers."""
    assert seen["people"] == ["none", "person 1", "person 2", "person 3"]
    assert seen["done"] == "Done."
    events = people[1]["events"]
    assert seen["lines"] == len(events) == len(seen["marks"])
    line = json.dumps({"events": events})
    answer = httpx.post(f"{url}/person", content=line, timeout=300)
    first, *_, held, said = map(json.loads, answer.text.splitlines())
    texts = said["understanding"]
    for part, pieces in held["claims"].items():
        assert "".join(words for words, _ in pieces) == texts[part]
        assert seen["verdicts"][part] == [piece for piece in pieces if piece[1]]
    assert any(seen["verdicts"].values())
    assert seen["texts"] == texts
    grown = set(seen["seen"]) - set(texts.values())
    assert any(text.startswith(one) for one in grown for text in texts.values() if one)
    assert seen["day"] == [
        " | ".join((event["time"], event["place"], event["behaviour"])) for event in said["events"]
    ]
    real = [" | ".join((e["time"], e["place"], e["behaviour"])) for e in people[1]["after"]]
    assert seen["real"] == real
    assert real
    none = "" if said["events"] else " (no events)"
    assert seen["weekdays"] == [said["weekday"] + none, "as it was"]
    shares = said["probabilities"], first["encoder"]
    for label, *shown in seen["labels"]:  # with one decimal
        assert [float(one) for one in shown] == pytest.approx(
            [100 * share[label] for share in shares], abs=0.06
        )
    likely = sorted(shares[0], key=lambda label: -shares[0][label])
    assert [label for label, *_ in seen["labels"][:8]] == likely[:8]


@pytest.mark.parametrize(("width", "dark"), [(390, False), (1400, True)])
def test_the_page_can_be_read(
    chromium: str, seen: dict[str, Any], tmp_path: Path, width: int, dark: bool
) -> None:
    """As it stood at the end, without its script."""
    text = re.sub("<script>.*?</script>", "", seen["page"], flags=re.DOTALL)
    found = measured(chromium, tmp_path, text, width, dark)
    assert found["overflow"] == 0
    assert found["pale"] == []
    assert found["stuck"] == 0
    assert found["untitled"] == 0
    assert found["texts"] > 20


def test_nothing_else_may_run_in_it(url: str) -> None:
    answer = httpx.get(url)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"https?://", answer.text)
    other = page.policy(answer.text.replace("SHOWN = 8", "SHOWN = 9"))
    assert other != policy


def test_the_day_that_is_offered_is_the_one_that_followed(quickstart: Path) -> None:
    """Looked up in the events by the last day that is shown, of any test user."""
    store, days = events_of(quickstart), defaultdict(list)
    labels, clock = store.catalogue.behaviours, store.catalogue.clock
    for user in store.users_of_split("test"):
        for at in range(store.offsets[user], store.offsets[user + 1]):
            event = clock(int(store.slot[at])), labels[store.behaviour[at]]
            days[int(user), int(store.day[at])].append(event)
    followed = {
        tuple(one): days[user, day + 1]
        for (user, day), one in [*days.items()]
        if (user, day + 1) in days
    }
    for one in page.people_of(store, 5):
        last = one["events"][-1]["day"]
        shown = [(e["time"], e["behaviour"]) for e in one["events"] if e["day"] == last]
        assert [(e["time"], e["behaviour"]) for e in one["after"]] == followed[tuple(shown)]


def test_people_have_numbers(url: str, quickstart: Path) -> None:
    """No id of the run's people leaves."""
    users = events_of(quickstart).users
    said = httpx.get(f"{url}/examples").text
    assert [one["id"] for one in json.loads(said)["people"]] == ["person 1", "person 2", "person 3"]
    assert not any(str(user) in said for user in users)
