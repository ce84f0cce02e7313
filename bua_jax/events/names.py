"""Which ids and labels can be written: they stand in lines of text, tables, plots and terminals."""

import unicodedata

LONGEST_NAME = 256
MOST_LABELS = 10_000
_JOINERS = "\u200c\u200d"  # format characters that scripts and emoji need
WRITABLE = (
    f"at most {LONGEST_NAME} characters, none of them a line break, control or format character"
)


def writable(name: str) -> bool:
    """Whether an id or label can stand in a line of text, a table and a terminal."""
    return len(name) <= LONGEST_NAME and not any(
        unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") and c not in _JOINERS
        for c in name
    )
