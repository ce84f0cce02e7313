"""The paper's published numbers (arXiv 2604.23578), by table and row, and what contradicts them there.

They come from private data and a 7B model: printed beside our own, never a target that a run has met.
"""

from typing import NamedTuple

COLUMNS = ("rec_w", "prec_w", "overall", "head", "medium", "tail")
FROM = "the paper: private data (Honor), Qwen2.5-7B"


class Published(NamedTuple):
    """A row of a table, in shares."""

    table: str
    row: str
    values: tuple[float, ...]  # in the order of `COLUMNS`

    def value(self, metric: str) -> float | None:
        return self.values[COLUMNS.index(metric)] if metric in COLUMNS else None


_BUA = (0.644, 0.642, 0.471, 0.538, 0.489, 0.446)
_TABLES: dict[str, dict[str, tuple[float, ...]]] = {
    "Table 1": {
        "SASRec": (0.546, 0.535, 0.291, 0.420, 0.340, 0.222),
        "BehaveGPT": (0.567, 0.551, 0.206, 0.442, 0.354, 0.027),
        "TALLRec": (0.617, 0.607, 0.398, 0.452, 0.434, 0.355),
        "A-LLMRec": (0.584, 0.557, 0.348, 0.422, 0.394, 0.299),
        "CoLLM": (0.618, 0.596, 0.408, 0.453, 0.448, 0.363),
        "LLaRA": (0.615, 0.608, 0.404, 0.462, 0.439, 0.361),
        "BUA": _BUA,
    },
    "Table 4": {
        "Ours": _BUA,
        "w/o stage1": (0.613, 0.607, 0.370, 0.485, 0.452, 0.286),
        "w/o stage2": (0.587, 0.577, 0.456, 0.400, 0.159, 0.291),
        "w/o stage3": (0.592, 0.586, 0.334, 0.420, 0.357, 0.300),
        "w/o loss balance": (0.560, 0.552, 0.285, 0.385, 0.364, 0.197),
        "item-emb": (0.631, 0.626, 0.465, 0.523, 0.491, 0.437),
    },
    "Table 14": {  # printed with Prec_w first
        "SASRec": (0.589, 0.561, 0.331, 0.466, 0.389, 0.247),
        "BehaveGPT": (0.642, 0.644, 0.471, 0.538, 0.489, 0.446),
    },
}
PUBLISHED = {
    (table, row): Published(table, row, values)
    for table, rows in _TABLES.items()
    for row, values in rows.items()
}

FOOTNOTES: dict[tuple[str, str], str] = {
    (
        "Table 4",
        "w/o stage2",
    ): "Overall is printed above all of its groups, so cells are displaced.",
    ("Table 14", "BehaveGPT"): (
        "Prec_w .644 and Rec_w .642 are printed, in Table 1 the other way round."
    ),
    (
        "Table 14",
        "SASRec",
    ): "If the columns are exchanged, as the other row suggests, Rec_w is .561.",
}
"""Of rows that contradict the paper elsewhere, which are not shown without them."""
