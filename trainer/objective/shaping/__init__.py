"""Rewards to rewards, once per rollout, before advantages."""
