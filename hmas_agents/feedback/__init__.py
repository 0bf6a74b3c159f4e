"""How is the engine doing? Snapshots and the journal become QoS states."""

from hmas_agents.feedback.feedback import Feedback

__all__ = ["Feedback"]
