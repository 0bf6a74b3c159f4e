"""How would SGLang have scheduled it? An emulation in virtual time, not SGLang itself.

The rules of SGLang 0.5.23's default scheduling, written anew from what its source says,
on the cost model and the KV capacity that every simulated arm shares. What it leaves out
is on top of `engine`.
"""

from evals.arms.sglang.engine import EmulatedSGLang

__all__ = ["EmulatedSGLang"]
