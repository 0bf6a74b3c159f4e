"""What would an operator's words change here? One `hmas tell`, as whoever types it sees it.

It is answered with no: the demo's controller has ended, and nobody has asked for it. Called by the
demo, which it cannot let fail: what goes wrong is one line.
"""

import subprocess
import sys

TEXT = (
    "acme-chat launches, expect twice their requests for 10 minutes; "
    "initech-docs can wait for 10 minutes"
)
HMAS = (sys.executable, "-P", "-c", "from hmas_agents.cli import main; main()")
LIMIT_S = 180.0  # 5 s where the compiled code is on disk, a minute and more where it is not
YOURSELF = (
    "say it yourself: `hmas serve`, beside it `hmas run --mode act`; a minute later `hmas tell "
    '"..."` with tenants of your contract, and y'
)


def show_tell(*options: str, hmas: tuple[str, ...] = HMAS, limit_s: float = LIMIT_S) -> list[str]:
    """The command, what it understood and foresaw, the answer, and how to do it oneself.

    Args:
        options: of `hmas tell`: server, token, ledger, configuration.
        hmas: the command before `tell`.
        limit_s: how long to wait for it.
    """
    said = why = ""
    try:
        done = subprocess.run(
            [*hmas, "tell", TEXT, *options],
            input="n\n", capture_output=True, text=True, timeout=limit_s, check=False,
        )  # fmt: skip
        said, why = done.stdout.rstrip(), done.stderr.strip() or f"exit code {done.returncode}"
    except subprocess.TimeoutExpired:
        why = f"no answer within {limit_s:g} s"
    except OSError as error:
        why = str(error)
    if not said.startswith("understood"):
        return [f"words were not shown: {why.splitlines()[-1]}"]
    return [f'$ hmas tell "{TEXT}"', f"{said} n", YOURSELF]
