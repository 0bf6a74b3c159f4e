"""Can a controller be pointed at `hmas eval hostile`, and is it stopped like any command?"""

import json
import signal
import socket
import subprocess
import sys

import httpx
import pytest

from tests.command_line import free_port, run_hmas


def test_it_proposes_what_it_was_told_until_it_is_interrupted():
    port = free_port()
    command = [
        sys.executable, "-c", "from hmas_agents.cli import main; main()",
        "eval", "hostile", "worst", "--policy", "edf:kappa=1", "--port", str(port),
    ]  # fmt: skip
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        url = process.stderr.readline().split()[-1]
        assert str(port) in url
        reply = httpx.post(f"{url}/chat/completions", json={"messages": []}).json()
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert "asked 1 times" in process.stderr.read()
    (proposal,) = json.loads(reply["choices"][0]["message"]["content"])["proposals"]
    assert (proposal["policy"], proposal["params"]) == ("edf", {"kappa": 1.0})


def test_a_taken_port_is_named():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = run_hmas("eval", "hostile", "garbage", "--port", port)
    assert result.exit_code == 2
    assert f"port {port}" in result.output


@pytest.mark.parametrize("policy", ["best", "edf:kappa=-1"])
def test_a_policy_that_there_is_not_is_refused(policy):
    result = run_hmas("eval", "hostile", "worst", "--policy", policy)
    assert result.exit_code == 2
    assert policy.partition(":")[0] in result.output
