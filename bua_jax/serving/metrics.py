"""What `/metrics` says, in Prometheus' text format (version 0.0.4)."""

from collections import Counter
from collections.abc import Iterator, Mapping

BUCKETS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
"""Upper bounds in seconds of the histogram of answers."""


class Metrics:
    """Counts of requests by route and status, and of answers by kind with how long they took."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()
        self.failed: Counter[str] = Counter()
        self.gone: Counter[str] = Counter()
        self._below: Counter[tuple[str, float]] = Counter()
        self._seconds: Counter[str] = Counter()
        self._answers: Counter[str] = Counter()

    def ended(self, kind: str, seconds: float, *, failed: bool) -> None:
        """A history was answered so many seconds after it was sent, or failed."""
        if failed:
            self.failed[kind] += 1
            return
        self._answers[kind] += 1
        self._seconds[kind] += seconds  # type: ignore[assignment]  # a Counter adds floats too
        for bound in BUCKETS:
            self._below[kind, bound] += seconds <= bound

    def text(self, gauges: Mapping[str, tuple[str, float]]) -> str:
        """All of it; gauges: name -> (what it is, value)."""
        return "".join(line + "\n" for line in self._lines(gauges))

    def _lines(self, gauges: Mapping[str, tuple[str, float]]) -> Iterator[str]:
        yield from _head("bua_requests_total", "Requests by route and status.", "counter")
        for (route, status), count in sorted(self.requests.items()):
            yield f'bua_requests_total{{route="{route}",status="{status}"}} {count}'
        for name, said, counts in (
            ("bua_failed_total", "Histories that were not answered.", self.failed),
            ("bua_gone_total", "Histories whose client went away.", self.gone),
        ):
            yield from _head(name, said, "counter")
            for kind, count in sorted(counts.items()):
                yield f'{name}{{kind="{kind}"}} {count}'
        name = "bua_answer_seconds"
        yield from _head(name, "Seconds from a request to a history's answer.", "histogram")
        for kind, count in sorted(self._answers.items()):
            for bound in BUCKETS:
                below = self._below[kind, bound]
                yield f'{name}_bucket{{kind="{kind}",le="{bound:g}"}} {below}'
            yield f'{name}_bucket{{kind="{kind}",le="+Inf"}} {count}'
            yield f'{name}_sum{{kind="{kind}"}} {self._seconds[kind]:.6f}'
            yield f'{name}_count{{kind="{kind}"}} {count}'
        for name, (said, value) in gauges.items():
            yield from _head(name, said, "gauge")
            yield f"{name} {value:g}"


def _head(name: str, said: str, kind: str) -> Iterator[str]:
    yield f"# HELP {name} {said}"
    yield f"# TYPE {name} {kind}"
