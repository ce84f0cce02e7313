"""The shape of a mesh, as a config says it."""

from bua_jax.basics.errors import ConfigError


def parse_mesh(text: str) -> tuple[int, int, int]:
    """`"8"` -> (1, 8, 1); `"2x2x2"` -> (2, 2, 2). Raises `ConfigError`."""
    parts = str(text).split("x")
    if not all(p.isdigit() and int(p) > 0 for p in parts) or len(parts) not in (1, 3):
        raise ConfigError(
            f"mesh={text!r} is neither N nor DATAxFSDPxTENSOR, for example 8 or 2x2x2."
        )
    sizes = [int(p) for p in parts]
    return (1, sizes[0], 1) if len(sizes) == 1 else (sizes[0], sizes[1], sizes[2])
