"""A hooked scheduler whose registry also has a policy that raises, for the fault tests."""

from serving.policies import POLICIES, Policy, PolicyCard, PolicyContext, RequestView
from serving.scheduler import HMASScheduler


class Raising(Policy):
    """Fails on every request."""

    name = "raising"
    card = PolicyCard(helps="never", hurts="always")

    def key(self, view: RequestView, context: PolicyContext) -> tuple[float, ...]:
        raise ZeroDivisionError("this policy is broken")


class SchedulerWithBrokenPolicy(HMASScheduler):
    """The real hook; decisions may also name the policy `raising`."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        POLICIES.setdefault("raising", Raising())
        super().__init__(*args, **kwargs)
