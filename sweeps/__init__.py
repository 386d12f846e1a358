"""Many runs: identity, plan, queue, recovery. It starts ``python -m trainer RUN_DIR`` and reads what that writes.

Of ``trainer`` it may import :mod:`trainer.contract.config` only, and nothing of ``dashboards``; torch never.
"""
