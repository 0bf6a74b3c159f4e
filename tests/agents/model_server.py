"""A model endpoint on a real socket that answers as the test tells it to."""

from evals.agent.model_double import Drip, Model, completion, proposals, serving

__all__ = ["Drip", "Model", "completion", "proposals", "serving"]
