"""Verifiers that run in processes of their own: one file each, named by ``_target_`` under ``task.verifiers``.

Nothing here may import torch: every process would wait for it.
"""
