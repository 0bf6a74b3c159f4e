"""How much could any scheduler have met? The bound that reports measure goodput against."""

from evals.sim.bound.upper_bound import Binding, Bound, upper_bound

__all__ = ["Binding", "Bound", "upper_bound"]
