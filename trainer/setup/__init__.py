"""From a resolved configuration to a checked run, before anything starts."""

from trainer.runtime.imports import leave_out_unused

leave_out_unused()  # here, because a process meets transformers first in the modules of this package
