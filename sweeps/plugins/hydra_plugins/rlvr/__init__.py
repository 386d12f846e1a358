"""Hydra's side of ``sweeps``: configuration source, sweeper, launcher. Found by Hydra through
:mod:`sweeps.compose.compose`.

Hydra accepts plugins from the namespace package ``hydra_plugins`` only and imports every file here at each start, so
these files stay thin: they must not import anything heavy and must not decide anything.
"""
