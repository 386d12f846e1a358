"""Differentiable, row-local terms added to the policy loss."""
