"""Evaluation on fixed sessions: baselines, intervals, comparison of runs, plots."""
