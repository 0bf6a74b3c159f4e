"""How long did each step take? vLLM's scheduler with the hook, writing a line per step.

For calibration and fidelity runs only: `--scheduler-cls
evals.checks.fidelity.step_log.step_log_scheduler`, with the file's name in HMAS_STEP_LOG. Loaded
inside vLLM's engine core, as the hook is; vLLM's own types stay behind `serving`.
"""

import os
from collections import deque
from typing import Any

from evals.machines.steps import line_of
from serving.hook.hook import SchedulerHook
from serving.perception.cost_model import StepShape, step_shape
from serving.scheduler import HMASScheduler, HMASSyncScheduler

VARIABLE = "HMAS_STEP_LOG"


class StepLog(SchedulerHook):
    """Before one of the hooked schedulers in a class statement."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        path = os.environ.get(VARIABLE, "")
        if not path:
            raise ValueError(f"{VARIABLE} is not set: name the file that gets the steps")
        super().__init__(*args, **kwargs)
        # Open as long as the scheduler: no `with`, and `Path.open` would say no more.
        self._sink = open(path, "a", buffering=1, encoding="utf-8")  # noqa: PTH123, SIM115
        self._begun: deque[tuple[Any, StepShape, float]] = deque()
        self._busy_since_s = 0.0  # end of the last step, if requests were left then

    def schedule(self, *args: Any, **kwargs: Any) -> Any:
        """As the hook; notes what the step is to compute."""
        began_s = self.clock()
        output = super().schedule(*args, **kwargs)
        if output.num_scheduled_tokens:
            shape = step_shape(output.num_scheduled_tokens, self.requests)
            self._begun.append((output, shape, began_s))
        else:
            self._busy_since_s = 0.0  # what follows is no computing
        return output

    def update_from_output(self, scheduler_output: Any, model_runner_output: Any) -> Any:
        """As the hook; logs the step."""
        outputs = super().update_from_output(scheduler_output, model_runner_output)
        self._safely("step log", self._log, scheduler_output)
        return outputs

    def _log(self, scheduler_output: Any) -> None:
        ended_s = self.clock()
        while self._begun and scheduler_output.num_scheduled_tokens:
            output, shape, began_s = self._begun.popleft()
            if output is scheduler_output:
                # While there is work, what lies between two steps is part of the later one:
                # input, output and, where vLLM schedules ahead, the wait for the device.
                seconds = ended_s - (self._busy_since_s or began_s)
                self._sink.write(line_of(ended_s, seconds, shape))
                break
        self._busy_since_s = ended_s if self.has_unfinished_requests() else 0.0


class LoggedScheduler(StepLog, HMASScheduler):
    """Where vLLM schedules ahead of the running step."""


class LoggedSyncScheduler(StepLog, HMASSyncScheduler):
    """Where it does not, as on a CPU."""


def step_log_scheduler(vllm_config: Any, **kwargs: Any) -> SchedulerHook:
    """What vLLM calls: the one that fits what vLLM itself would have taken."""
    ahead = vllm_config.scheduler_config.async_scheduling
    return (LoggedScheduler if ahead else LoggedSyncScheduler)(vllm_config=vllm_config, **kwargs)
