"""Work in shards on a Ray cluster: each writes one file, finished files are kept, lost ones redone.

The cluster is an existing one (an address, or RAY_ADDRESS) or a local one. Its machines need the
package and must see the same paths.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bua_jax.basics import files
from bua_jax.basics.console import notice, progress
from bua_jax.basics.errors import BuaError, ConfigError

Work = Callable[[int, Path], None]
"""(number of the shard, file to write atomically); a module's function or a partial of one."""


def start_ray(address: str = "") -> Any:
    """Connects to `address`, RAY_ADDRESS or a running cluster, or else starts a local one.

    A cluster that this process is connected to already is used as it is. Returns the package ray. Raises
    `ConfigError` where that is not installed, and for an address that does not answer.
    """
    try:
        import ray
    except ImportError as error:
        raise ConfigError(
            "--engine=ray needs the package ray: pip install ray, or use --engine=local."
        ) from error
    if ray.is_initialized():
        return ray
    try:
        ray.init(
            address=address or None,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"No Ray cluster at {address or 'RAY_ADDRESS'!r} ({error}). Start one with ray start "
            "--head, or leave --ray_address out to work on this machine."
        ) from error
    return ray


def run_shards(  # noqa: PLR0913 (four of them are the cluster, by name)
    work: Work,
    count: int,
    folder: Path,
    suffix: str,
    *,
    address: str = "",
    cpus: float = 1,
    gpus: float = 0,
    retries: int = 3,
) -> list[Path]:
    """Has `work` write the files 0 to `count - 1` of `folder` that are not whole; returns all, in order.

    cpus, gpus: what a shard takes of a machine while it is worked on. A shard whose worker dies is
    worked on again up to `retries` times, then it is a `ConfigError`; what is finished stays in `folder`.
    A `BuaError` of `work` is raised as it is.
    """
    paths = [folder.resolve() / f"{number:05d}{suffix}" for number in range(count)]
    missing = [number for number, path in enumerate(paths) if not files.is_whole(path)]
    damaged = [paths[number].name for number in missing if paths[number].is_file()]
    if damaged:
        notice(f"{folder}: cut or altered, and made anew: {', '.join(damaged)}")
    if not missing:
        return paths
    ray = start_ray(address)
    remote = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=retries)(_one)
    waiting = {remote.remote(work, number, paths[number]): number for number in missing}
    for _ in progress(missing, "shards"):
        (done, *_), _ = ray.wait(list(waiting))
        number = waiting.pop(done)
        try:
            ray.get(done)
        except ray.exceptions.RayError as error:
            for other in waiting:
                ray.cancel(other)
            if isinstance(error, ray.exceptions.RayTaskError):
                raise (error.cause if isinstance(error.cause, BuaError) else error) from None
            raise ConfigError(
                f"Shard {number} of {count} was lost with its worker {retries + 1} times "
                f"({type(error).__name__}): killed, or out of memory. Finished shards are kept in {folder}; "
                "run the same command again, with fewer workers per machine or a higher --ray_retries."
            ) from error
    return paths


def _one(work: Work, number: int, path: Path) -> None:
    if not files.is_whole(path):  # of a run that was lost after it had written
        work(number, path)
        files.write_hash(path)
