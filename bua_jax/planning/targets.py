"""Devices that a run can be planned for, and their compilers, none of which needs the device."""

import importlib.util
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
from jax.experimental import topologies

from bua_jax.basics.errors import ConfigError


@dataclass(frozen=True)
class Device:
    """One GPU, or one TPU chip; bytes, bytes/s and FLOP/s."""

    platform: str  # cuda or tpu
    title: str
    memory: float  # bytes that a program can be given
    usable: float  # share of them that a step may take, so that it fits
    peak: float  # bfloat16 FLOP/s, dense
    bandwidth: float  # of the memory
    link: float  # to other devices, one way: a GPU's NVLinks together, one ICI link of a TPU
    source: str
    cores: int = 0  # the rest is what XLA's compiler for NVIDIA asks for
    lanes: int = 0  # float32 units of a core
    clock: float = 0.0  # GHz
    cache: int = 0  # bytes of L2
    shared: int = 0  # bytes of a core's shared memory
    capability: int = 0  # major


_A100: dict[str, Any] = {
    "cores": 108,
    "lanes": 64,
    "clock": 1.41,
    "cache": 41943040,
    "shared": 167936,
}
_H100: dict[str, Any] = {
    "cores": 132,
    "lanes": 128,
    "clock": 1.98,
    "cache": 52428800,
    "shared": 233472,
}
_CUDA = "memory as the driver reports it (XLA's target_config specs)"
_HBM = "memory as libtpu's compiler allots it"
# A GPU's step may take 92 %: the CUDA context, NCCL's buffers and fragmentation need the rest (an
# assumption). What libtpu allots to a program is all its own.
DEVICES = {
    "a100-40g": Device(
        "cuda",
        "NVIDIA A100-SXM4-40GB",
        42331013120,
        0.92,
        312e12,
        1555e9,
        300e9,
        f"NVIDIA A100 datasheet (NVLink 600 GB/s both ways); {_CUDA}",
        capability=8,
        **_A100,
    ),
    "a100-80g": Device(
        "cuda",
        "NVIDIA A100-SXM4-80GB",
        85100068864,
        0.92,
        312e12,
        2039e9,
        300e9,
        f"NVIDIA A100 datasheet (NVLink 600 GB/s both ways); {_CUDA}",
        capability=8,
        **_A100,
    ),
    "h100": Device(
        "cuda",
        "NVIDIA H100 80GB HBM3",
        84942979072,
        0.92,
        989e12,
        3350e9,
        450e9,
        f"NVIDIA H100 SXM datasheet (dense; NVLink 900 GB/s both ways); {_CUDA}",
        capability=9,
        **_H100,
    ),
    "v4": Device(
        "tpu",
        "TPU v4",
        30.75 * 2**30,
        1.0,
        275e12,
        1200e9,
        50e9,
        f"Cloud TPU documentation, v4; links: Jouppi et al., ISCA 2023; {_HBM}",
    ),
    "v5e": Device(
        "tpu",
        "TPU v5e",
        15.75 * 2**30,
        1.0,
        197e12,
        819e9,
        50e9,
        f"Cloud TPU documentation, v5e (400 GB/s both ways over 4 links); {_HBM}",
    ),
    "v5p": Device(
        "tpu",
        "TPU v5p",
        95.74 * 2**30,
        1.0,
        459e12,
        2765e9,
        100e9,
        f"Cloud TPU documentation, v5p (1200 GB/s both ways over 6 links); {_HBM}",
    ),
}
_NODE = 8  # GPUs that NVLink connects
_PACKAGES = {
    "cuda": (("jax_plugins.xla_cuda12", "jax_plugins.xla_cuda13"), "jax-cuda12-plugin"),
    "tpu": (("libtpu",), "jax[tpu]"),
}


@dataclass(frozen=True)
class Target:
    """A number of equal devices; `shape` is (N,) of GPUs, or the chips of a TPU slice per axis."""

    name: str
    device: Device
    shape: tuple[int, ...]

    @property
    def count(self) -> int:
        return math.prod(self.shape)

    @property
    def wire(self) -> float:
        """Bytes/s that a device can send. A TPU chip at a slice's corner has a link per axis; what
        whole pods add by wrapping around is left out."""
        if self.device.platform == "cuda":
            return self.device.link
        return self.device.link * max(1, sum(size > 1 for size in self.shape))


def parse_target(text: str) -> Target:
    """`"a100-40g:8"`, `"v5e:2x4"`. Raises `ConfigError`."""
    name, _, shape = text.partition(":")
    known = ", ".join(DEVICES)
    if name not in DEVICES or not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", shape):
        raise ConfigError(
            f"--target={text!r} is not DEVICE:SHAPE with DEVICE among {known}; for example a100-40g:8 "
            "or v5e:2x4."
        )
    target = Target(name, DEVICES[name], tuple(map(int, shape.split("x"))))
    if target.device.platform == "cuda" and (len(target.shape) > 1 or target.count > _NODE):
        raise ConfigError(
            f"--target={text!r}: GPUs are planned for one node of up to {_NODE}, for example {name}:8; "
            "what a network between nodes costs is not modelled."
        )
    return target


def compiler_missing(target: Target) -> str | None:
    """The package to install for the target's own compiler; None if it is there."""
    modules, extra = _PACKAGES[target.device.platform]
    return None if any(_installed(module) for module in modules) else extra


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of the parent package
        return False


def compile_devices(target: Target, *, own: bool) -> Sequence[jax.Device]:
    """What to compile for: the target described to its `own` compiler, or as many CPU devices.

    Call it before anything else makes jax look for devices. Raises `ConfigError` for a slice that
    does not exist, or a compiler of another version than jaxlib.
    """
    jax.config.update("jax_platforms", "cpu")
    if not own:
        if target.count > 1:
            jax.config.update("jax_num_cpu_devices", target.count)
        return jax.devices()
    if target.device.platform == "cuda":
        os.environ.setdefault("JAX_SKIP_CUDA_CONSTRAINTS_CHECK", "1")
        shape = f"1x1x{target.count}"
        options = {"target_config": _target_config(target.device), "topology": shape}
        name = target.name
    else:
        os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # no search for the cloud's metadata
        os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
        options = {} if target.name == "v5e" else {"chip_config_name": "megacore"}
        name = f"{target.name}:{'x'.join(map(str, target.shape))}"
    try:
        described = topologies.get_topology_desc(
            platform=target.device.platform, topology_name=name, **options
        )
    except Exception as error:  # the plugins raise of many types
        raise ConfigError(
            f"The compiler for {target.device.title} refuses {name}: {error}. Give a slice that exists, "
            "and a compiler of jax's own version: pip install -U "
            f"'{_PACKAGES[target.device.platform][1]}'."
        ) from error
    return described.devices


def _target_config(device: Device) -> str:
    """XLA's description of a GPU, as text of its GpuTargetConfigProto."""
    return f"""
gpu_device_info {{
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  thread_dim_limit_x: 1024 thread_dim_limit_y: 1024 thread_dim_limit_z: 64
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  shared_memory_per_block: 49152 shared_memory_per_block_optin: {device.shared - 1024}
  shared_memory_per_core: {device.shared}
  core_count: {device.cores} fpus_per_core: {device.lanes} clock_rate_ghz: {device.clock}
  memory_bandwidth: {device.bandwidth:.0f} l2_cache_size: {device.cache}
  device_memory_size: {device.memory}
  cuda_compute_capability {{ major: {device.capability} }}
  name: "{device.title}" runtime_version: "12.8.0"
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 }}
device_description_str: "{device.title}"
"""
