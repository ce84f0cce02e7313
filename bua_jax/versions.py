"""Prints the environment: versions, devices, git revision. Attach it to a bug report.

python -m bua_jax.versions
"""

from bua_jax import cli
from bua_jax.basics.environment import versions


def main() -> None:
    for name, value in versions().items():
        print(f"{name:18} {value if value is not None else '-'}")


if __name__ == "__main__":
    cli.run(main)
