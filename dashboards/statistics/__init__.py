"""Confidence intervals, hypothesis tests, the fit of the reward-entropy law, and the formatting of numbers."""
