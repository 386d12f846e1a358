"""The fake trainer in a landscape that can be searched; started by jobs in the trainer's place."""

from __future__ import annotations

import os
import sys

import fake_trainer
import landscape

if __name__ == "__main__":
    fake_trainer.measured = landscape.measured
    fake_trainer.STEP_S = float(os.environ.get("FAKE_STEP_S", "0.02"))
    sys.exit(fake_trainer.main())
