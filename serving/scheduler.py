"""Which scheduler does vLLM load? `--scheduler-cls serving.scheduler.hmas_scheduler`.

vLLM schedules ahead of the running step unless its configuration, platform or
features forbid it, and has a scheduler for either; the hook goes with the same one.
"""

from typing import Any

from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.scheduler import Scheduler

from serving.hook.hook import SchedulerHook


class HMASScheduler(SchedulerHook, AsyncScheduler):
    """The hook on vLLM's asynchronous scheduler."""


class HMASSyncScheduler(SchedulerHook, Scheduler):
    """The hook on vLLM's synchronous scheduler, where vLLM does not schedule ahead."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.scheduler_config.async_scheduling:
            raise ValueError(
                "--scheduler-cls serving.scheduler.HMASSyncScheduler, but vLLM schedules "
                "asynchronously: give serving.scheduler.hmas_scheduler, which follows vLLM"
            )


def hmas_scheduler(vllm_config: Any, **kwargs: Any) -> SchedulerHook:
    """What vLLM calls: the hook on the scheduler that vLLM itself would have taken."""
    ahead = vllm_config.scheduler_config.async_scheduling
    return (HMASScheduler if ahead else HMASSyncScheduler)(vllm_config=vllm_config, **kwargs)
