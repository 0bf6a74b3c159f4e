"""Does the decision tree split where it pays, and nowhere else?"""

import numpy as np

from evals.arms.switching import grow, leaf_of

NAMES, SETTINGS = ("load", "noise"), ("fixed-fcfs", "fixed-edf", "fixed-sjf")


def rows(count=200, seed=1):
    """Below a load of 0.5 the first setting misses nothing, above it the second does."""
    states = np.random.default_rng(seed).random((count, 2))
    misses = np.full((count, 3), 10.0)
    misses[states[:, 0] <= 0.5, 0] = 0.0
    misses[states[:, 0] > 0.5, 1] = 0.0
    return states, misses


def test_a_tree_finds_the_split_that_leaves_nothing_missed():
    states, misses = rows()
    nodes = grow(states, misses, NAMES, SETTINGS, 3)
    assert len(nodes) == 3  # one split is enough, and more gain nothing
    assert len(nodes[0]) == 4
    name, threshold, below, above = nodes[0]
    assert (name, nodes[below], nodes[above]) == ("load", ("fixed-fcfs",), ("fixed-edf",))
    assert 0.4 < threshold < 0.6
    assert leaf_of(nodes, {"load": 0.1, "noise": 0.9}) == "fixed-fcfs"
    assert leaf_of(nodes, {"load": 0.9, "noise": 0.9}) == "fixed-edf"


def test_a_split_costs_what_the_best_of_each_side_misses():
    states, misses = rows()
    misses[:, 2] = 1.0  # nearly as good everywhere: only a real gain is a reason to switch
    nodes = grow(states, misses, NAMES, SETTINGS, 1)
    assert leaf_of(nodes, {"load": 0.9, "noise": 0.0}) == "fixed-edf"
    assert grow(states, misses, NAMES, SETTINGS, 0) == (("fixed-sjf",),)


def test_deeper_trees_follow_what_one_split_cannot():
    states = np.random.default_rng(2).random((400, 2))
    misses = np.full((400, 3), 10.0)
    corner = (states[:, 0] > 0.5) & (states[:, 1] > 0.5)
    misses[corner, 1] = misses[~corner, 0] = 0.0
    flat, deep = (grow(states, misses, NAMES, SETTINGS, depth) for depth in (1, 2))

    def missed(nodes):
        said = [leaf_of(nodes, dict(zip(NAMES, row, strict=True))) for row in states]
        return sum(misses[i, SETTINGS.index(name)] for i, name in enumerate(said))

    assert missed(deep) < 0.2 * missed(flat)


def test_a_leaf_is_not_about_a_handful_of_rows_and_constant_states_split_nothing():
    states, misses = rows(100)
    states[:] = 1.0
    assert len(grow(states, misses, NAMES, SETTINGS, 3)) == 1
    states, misses = rows(100)
    misses[:] = 1.0
    misses[0] = (100.0, 0.0, 100.0)  # one window of one run
    assert len(grow(states, misses, NAMES, SETTINGS, 3)) == 1
