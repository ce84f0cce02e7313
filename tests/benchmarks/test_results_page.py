"""The page of speeds is what the command makes of the files, each of which says where it comes from."""

import pytest

from bua_jax.benchmarks import results_page
from bua_jax.benchmarks.timing import provenance
from tests.support.helpers import ROOT

RESULTS = ROOT / "docs" / "results"
MEASURED = results_page.read(RESULTS / "speeds")


def test_the_page_is_what_the_command_makes_of_the_files() -> None:
    assert MEASURED
    assert (RESULTS / "speeds.md").read_text(encoding="utf-8") == results_page.page(MEASURED)


@pytest.mark.parametrize("name", MEASURED)
def test_a_measurement_names_command_and_commit(name: str) -> None:
    said = MEASURED[name]
    assert said.keys() >= provenance("train", 0.0).keys()
    assert f"docs/results/speeds/{name}.json" in said["command"]
    assert not said["versions"]["git"].endswith("+"), "measured on a changed checkout"


def test_tables_of_what_was_found() -> None:
    """Rows, rows by name and one row; numbers to three digits; what is no table stands among the facts."""
    said = provenance("train", 1.25) | {
        "command": "python -m bua_jax.bench train",
        "base": "nano",
        "left_out": {},
        "peers": [{"step": "ours", "seconds": 0.12345, "losses": [1.5, 2.0]}],
        "labels": {"tree": {"ratio": 1234.5}},
        "sizes": {"rows": {"data": 1000000}},
    }
    shown = results_page.page({"one": said})
    assert "```bash long\npython -m bua_jax.bench train\n```" in shown
    assert "| base | nano |" in shown
    assert "load 1.2" in shown
    assert "| step | seconds | losses |\n| --- | --- | --- |\n| ours | 0.123 | 1.5 2 |" in shown
    assert "|  | ratio |\n| --- | --- |\n| tree | 1,230 |" in shown
    assert "|  | data |\n| --- | --- |\n| rows | 1,000,000 |" in shown
    assert "left_out" not in shown
