"""What did a run come to? Metrics, statistics over seeds, and the files that hold them."""
