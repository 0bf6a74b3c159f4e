"""How does a test run a command? As a shell would, errors and exit code included, but here."""

import contextlib
import io
import socket
from dataclasses import dataclass

import pytest

from hmas_agents import cli


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended; `output` is both streams, standard output first."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def output(self) -> str:
        return self.stdout + self.stderr


def run_hmas(*words: object) -> Done:
    """Run `hmas WORDS` in this process."""
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as left,
    ):
        cli.main([str(word) for word in words])
    code = left.value.code
    assert isinstance(code, int)
    return Done(code, out.getvalue(), err.getvalue())


def free_port() -> int:
    """A port of 127.0.0.1 that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
