"""Results of serving runs: summary, metrics, figures, and their part of a report."""
