"""The version of the package, and the signature of what it says."""

from typing import Any

__version__ = "0.1.0"


def signature(**said: Any) -> str:
    """What a result depends on, in the manner of sacreBLEU: `bua|data:...|seed:42|v0.1.0`."""
    return "|".join(
        ["bua", *(f"{name}:{value}" for name, value in said.items()), f"v{__version__}"]
    )
