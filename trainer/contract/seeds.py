"""Seeds of random generators: a hash of the seed of the run and of what the generator is for."""

from __future__ import annotations

import hashlib


def derive_seed(*parts: object) -> int:
    """A 63-bit seed from anything printable, e.g. ``derive_seed(run_seed, step, "rollout")``.

    All randomness of a run comes from generators seeded this way, so a resumed run repeats the undisturbed one.
    """
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
