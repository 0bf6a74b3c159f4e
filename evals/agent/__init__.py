"""Does the policy agent choose well? Cases, labels by simulation, scores, replay of a run."""
