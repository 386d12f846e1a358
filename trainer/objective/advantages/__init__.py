"""Rewards per group to one advantage per rollout; once per rollout batch, no gradient."""
