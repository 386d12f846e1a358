"""Write ``docs/metrics.md`` and the README's metric table from the declarations: ``python docs/make_glossary.py``."""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from trainer.metrics.table import glossary_markdown, headlines_markdown  # noqa: E402

HEADER = "# Metrics\n\nMade by `python docs/make_glossary.py` from `trainer/metrics/declared.py`; do not edit.\n\n"
MARKED = re.compile(r"(?<=<!-- glossary -->\n).*?(?=<!-- /glossary -->)", re.DOTALL)


def pages() -> dict[Path, str]:
    """What the generated pages should say."""
    readme = ROOT / "README.md"
    table = "\n" + headlines_markdown() + "\nAll of them: [docs/metrics.md](docs/metrics.md).\n\n"
    return {
        ROOT / "docs" / "metrics.md": HEADER + glossary_markdown(),
        readme: MARKED.sub(lambda _: table, readme.read_text()),
    }


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text)
