"""A forecaster that says what the test says, for every future alike or one by one."""

from hmas_agents.twin_process import WorkerLostError
from hmas_agents.twin_worker import Ask


class Scripted:
    """Answers by policy, a list by future; keeps what it was asked.

    `"lost"`: the worker is gone; any other text: that future failed.

    `limits`: those that each policy was asked under last, None where nothing was said of them.
    """

    def __init__(self, **answers):
        self.answers, self.asked, self.limits = answers, [], {}

    def start(self):
        pass

    def wait_ready(self, limit_s):
        return True

    def send(self, situation):
        self.situation = situation

    def ask(self, ask: Ask, deadline_s):
        self.asked.append((ask.policy, ask.seed))
        self.limits[ask.policy] = ask.limits
        answer = self.answers.get(ask.policy, "not in the script")
        if isinstance(answer, list):
            answer = answer[ask.seed]
        if answer == "lost":
            raise WorkerLostError("twin_timeout: out of its time budget")
        return answer

    def close(self):
        pass
