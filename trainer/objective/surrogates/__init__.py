"""Differentiable, row-local policy losses per token."""
