"""Which candidate is better, by how much, and how sure is that? The engine's twin.

Candidates and a situation make a question; the worker draws futures, makes forecasts and searches;
the answer becomes predictions. One file each.
"""
