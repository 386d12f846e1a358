"""The entry point of ``sweep.py``: runs Hydra, and turns its errors into one line each and an exit code.

With ``-m`` Hydra calls the sweeper plugin in ``sweeps/plugins``, which runs the sweep; without it, :func:`_single`.
"""

from __future__ import annotations

import os
import sys

from sweeps.cli.completion import mended_completion
from sweeps.cli.help import found_text, help_text
from sweeps.compose.compose import CONF, enable_plugins
from trainer.contract.settings import ConfigError
from trainer.contract.status import ExitCode

MULTIRUN = ("-m", "--multirun")


def main() -> int:
    """Run Hydra on ``sys.argv``; returns the exit code, 2 after an error message if the configuration is invalid."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        words = [word for word in sys.argv[1:] if not word.startswith("-") and "=" not in word]
        print(found_text(words) if words else help_text())
        return 0
    enable_plugins()
    import hydra

    from sweeps.compose.arguments import check_arguments
    from sweeps.compose.explain import explained
    from sweeps.compose.presets import choosing
    from sweeps.compose.quoting import quote_strings

    sys.argv[1:] = [quote_strings(word) for word in _arranged(sys.argv[1:])]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises instead of printing its own text and leaving with status 1
    application = hydra.main(config_path=str(CONF), config_name="config", version_base="1.3")(_single)
    try:
        with explained(sys.argv[1:]):
            check_arguments(sys.argv[1:])
            with choosing(sys.argv[1:]), mended_completion(sys.argv[1:]):
                application()
    except KeyboardInterrupt:
        print("interrupted before anything was queued", file=sys.stderr)
        return ExitCode.INTERRUPTED
    except ConfigError as error:
        for sentence in str(error).splitlines():
            print(f"error: {sentence}", file=sys.stderr)
        return ExitCode.BAD_CONFIGURATION
    return 0


def _arranged(words: list[str]) -> list[str]:
    """Moves ``-m`` to the front, where Hydra's parser expects it; drops it beside ``--cfg``, which shows one
    configuration."""
    if "--cfg" in words or "-c" in words:
        return [word for word in words if word not in MULTIRUN]
    return sorted(words, key=lambda word: word not in MULTIRUN)


def _single(config: object) -> None:
    """One run, with the configuration that Hydra composed."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import DictConfig, OmegaConf

    from sweeps.compose.compose import Composed
    from sweeps.compose.presets import left_out
    from sweeps.launch import launch

    assert isinstance(config, DictConfig)
    overrides = OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False)
    assert isinstance(overrides, list)
    sys.exit(launch([Composed(config=config, overrides=tuple(overrides), left_out=left_out())], multirun=False))
