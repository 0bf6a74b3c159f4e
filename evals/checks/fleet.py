"""Does one controller steer two real servers through the death of one?

Two `hmas serve` on 127.0.0.2 and 127.0.0.3 stand behind a round-robin router; `hmas run` steers
both. One is killed (SIGKILL) and started again: the report says who noticed when, and after how
many ticks the new one had decision and contract. Run by `python -m evals.checks.fleet`.
"""

import argparse
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import IO

import httpx

from evals.checks.router import router
from evals.suite.suite import SMALL_MACHINE
from serving.engines.live import LiveEngine
from serving.engines.protocol import EngineUnavailable
from serving.launch.model import embedded

HOSTS = ("127.0.0.2", "127.0.0.3")
TOKEN, TICK_S, START_S = "of-the-fleet-check", 2.0, 600.0
_HMAS = "from hmas_agents.cli import main; main()"
_CONTRACT = "believe_clients = true\n[tenants.acme]\nweight = 2\n"
_CONFIG = f"[control]\nshort_tick_s = {TICK_S}\n[model]\nenabled = false\n[twin]\nenabled = false\n"
_BODY = {"prompt": "One two three", "max_tokens": 8, "model": "served",
         "vllm_xargs": {"tenant": "acme"}}  # fmt: skip


class Check:
    """One run of the check; lines go to standard output as they come.

    Args:
        out: folder for logs, ledger and what is given to the commands.
        port: of both servers; the router has the next one.
    """

    def __init__(self, out: Path, port: int) -> None:
        self._out, self._port = out, port
        out.mkdir(parents=True, exist_ok=True)
        for name, text in (("token", TOKEN), ("contract.toml", _CONTRACT), ("hmas.toml", _CONFIG)):
            (out / name).write_text(text)
        self._answers: Counter[str] = Counter()
        self._servers: dict[str, subprocess.Popen[bytes]] = {}
        self._began_s = time.monotonic()

    def run(self, ways: list[str]) -> bool:
        """Kill a server under a controller of each way to say where the servers are.

        Returns:
            Whether each time the new one was in step within two ticks.
        """
        with ExitStack() as stack:
            stack.callback(self._end_servers)
            for host in HOSTS:
                self._serve(host)
            for host in HOSTS:
                self._await_health(host)
            self._say("both servers are up")
            urls = [f"http://{host}:{self._port}" for host in HOSTS]
            stack.enter_context(router(urls, self._port + 1))
            stack.enter_context(self._traffic())
            ticks = [self._kill_one(where, HOSTS[1 - n % 2]) for n, where in enumerate(ways)]
        self._say(f"answers through the router: {dict(self._answers)}")
        return max(ticks) <= 2

    def _kill_one(self, where: str, kill: str) -> float:
        """Ticks from when the new server answered to when it had decision and contract."""
        log = self._out / "controller.log"
        log.unlink(missing_ok=True)
        told = ["--url", where, "--token-file", str(self._out / "token")]
        kept = ["--ledger", str(self._out / "ledger.sqlite")]
        config = ["--config", str(self._out / "hmas.toml")]
        controller = self._hmas(log, "run", "--mode", "act", *told, *kept, *config)
        try:
            self._say(f"hmas run --mode act --url {where}")
            for host in HOSTS:
                self._await_decision(host, contract=0)
            self._do("contract", "apply", str(self._out / "contract.toml"), "--yes", *told, *kept)
            for host in HOSTS:
                self._await_decision(host, contract=1)
            self._say("both have the decision and contract 1")
            self._status(told)
            os.killpg(self._servers[kill].pid, signal.SIGKILL)
            killed_s = time.monotonic()
            self._say(f"killed {kill}")
            _until(lambda: f"replica {kill}:{self._port} is away" in log.read_text(), 60)
            self._say(f"the controller noticed after {time.monotonic() - killed_s:.1f} s")
            self._status(told)
            self._serve(kill)
            self._await_health(kill)
            up_s = time.monotonic()
            self._say(f"{kill} is up again")
            self._await_decision(kill, contract=1)
            ticks = (time.monotonic() - up_s) / TICK_S
            self._say(f"it has decision and contract after {ticks:.1f} ticks of {TICK_S:g} s")
            self._status(told)
        finally:
            _end(controller, signal.SIGINT)
        self._say(f"controller.log:\n{log.read_text()}")
        return ticks

    def _end_servers(self) -> None:
        for process in self._servers.values():
            _end(process)

    def _say(self, line: str) -> None:
        print(f"{time.monotonic() - self._began_s:7.1f} s  {line}", flush=True)

    def _serve(self, host: str) -> None:
        arguments = ["--host", host, "--port", str(self._port), "--served-model-name", "served"]
        self._servers[host] = self._hmas(
            self._out / f"{host}.log", "serve", str(embedded().resolve()), *arguments,
            *SMALL_MACHINE, "--token-file", str(self._out / "token"),
        )  # fmt: skip

    def _hmas(self, log: Path, *words: str) -> subprocess.Popen[bytes]:
        env = os.environ | {
            "HMAS_TOKEN": TOKEN, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_CPU_KVCACHE_SPACE": "1",
        }  # fmt: skip
        file: IO[bytes]
        with log.open("ab") as file:
            return subprocess.Popen(
                [sys.executable, "-c", _HMAS, *words], env=env, stdout=file, stderr=file,
                start_new_session=True,
            )  # fmt: skip

    def _do(self, *words: str) -> None:
        log = self._out / "commands.log"
        if self._hmas(log, *words).wait(120):
            raise RuntimeError(f"hmas {' '.join(words)}: see {log}")

    def _status(self, told: list[str]) -> None:
        log = self._out / "status.log"
        log.unlink(missing_ok=True)
        self._hmas(log, "status", "--once", *told).wait(120)
        self._say("hmas status --once:\n" + log.read_text())

    def _await_health(self, host: str) -> None:
        def is_up() -> bool:
            try:
                return httpx.get(f"http://{host}:{self._port}/health", timeout=5).is_success
            except httpx.HTTPError:
                return False

        _until(is_up, START_S, every_s=1.0)

    def _await_decision(self, host: str, contract: int) -> None:
        with closing(LiveEngine(f"http://{host}:{self._port}", TOKEN)) as engine:

            def has_both() -> bool:
                try:
                    shot = engine.snapshot()
                except EngineUnavailable:
                    return False
                return bool(shot.controller_id) and shot.contract_epoch >= contract

            _until(has_both, 120)

    @contextmanager
    def _traffic(self) -> Iterator[None]:
        over = threading.Event()
        url = f"http://127.0.0.1:{self._port + 1}/v1/completions"

        def send() -> None:
            while not over.wait(0.5):
                try:
                    answer = httpx.post(url, json=_BODY, timeout=120)
                    self._answers[f"HTTP {answer.status_code}"] += 1
                except httpx.HTTPError as error:
                    self._answers[type(error).__name__] += 1

        threads = [threading.Thread(target=send) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            over.set()
            for thread in threads:
                thread.join()


def _until(holds: Callable[[], bool], limit_s: float, every_s: float = 0.1) -> None:
    end_s = time.monotonic() + limit_s
    while not holds():
        if time.monotonic() > end_s:
            raise TimeoutError(f"{holds.__qualname__} does not hold after {limit_s:g} s")
        time.sleep(every_s)


def _end(process: subprocess.Popen[bytes], how: signal.Signals = signal.SIGTERM) -> None:
    if process.poll() is None:
        process.send_signal(how)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


def main() -> None:
    """Run the check; exit code 1 if the new server was not in step within two ticks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("var/fleet_check"))
    parser.add_argument("--port", type=int, default=8211)
    parser.add_argument("--dns", help="a name with the addresses 127.0.0.2 and 127.0.0.3")
    given = parser.parse_args()
    urls = ",".join(f"http://{host}:{given.port}" for host in HOSTS)
    ways = [urls, *([f"dns://{given.dns}:{given.port}"] if given.dns else [])]
    sys.exit(not Check(given.out, given.port).run(ways))


if __name__ == "__main__":
    main()
