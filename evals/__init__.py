"""Does it pay? Workloads, suites, arms, metrics and reports.

`hmas eval run` and `hmas traces fetch` are the entry points (evals.commands).
"""
