"""Hydra plugins: a configuration source that fills in defaults, a sweeper and a launcher.

Hydra finds plugins in the namespace package ``hydra_plugins`` only, and imports every file here at each start. So these
files import nothing heavy, and leave the work to other modules of ``sweeps``. :mod:`sweeps.compose.compose` puts the
package on the path.
"""
