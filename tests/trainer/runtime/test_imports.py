"""What a trainer process does not import."""

from __future__ import annotations

import subprocess
import sys

import pytest

FROM = "from trainer.runtime.imports import leave_out_unused\n"
MODEL = "from transformers import AutoModelForCausalLM as model; model.from_pretrained\n"


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_a_model_comes_without_scikit_learn_and_others_may_have_it() -> None:
    pytest.importorskip("sklearn")
    code = (
        FROM + "leave_out_unused()\n" + MODEL + "import sys; print('sklearn' in sys.modules, 'scipy' in sys.modules)\n"
    )
    code += "from sklearn.cluster import KMeans; print(KMeans.__name__)"
    assert python(code) == "False False\nKMeans"


def test_checks_come_without_them() -> None:
    assert (
        python("import trainer.setup.checks, sys; print('sklearn' in sys.modules, 'scipy' in sys.modules)")
        == "False False"
    )


def test_what_is_there_already_stays() -> None:
    pytest.importorskip("sklearn")
    assert (
        python("import sklearn\n" + FROM + "leave_out_unused()\nimport sys; print(sys.modules['sklearn'] is sklearn)")
        == "True"
    )
