import pytest

from bua_jax.events.benchmark import benchmark_events


@pytest.mark.parametrize("format", ["parquet", "csv"])
def test_the_benchmark_reads_what_it_writes(tmp_path, format: str) -> None:
    """A run at a toy size: the figures for 10 million rows are measured by hand."""
    found = benchmark_events(20_000, tmp_path, format)
    assert (found["rows"], found["people"]) == (20_000, 20)
    assert found["prediction_windows"] == 20_000 - 20 * 10
    assert 0 < found["generation_windows"] < 20 * 60
    assert found["array_windows"] > 10_000
    assert found["total_s"] > 0
    assert 0.05 < found["peak_gib"] < 4
