"""Compresses the contents of a page: figures with five significant digits, scripts and data as gzip.

A packed text is gzip in base64, which the page's ``unpack.js`` turns back; plotly.js is two fifths of its size then. No
character of base64 can open or close a tag, so packed text is inert whatever it holds.
"""

from __future__ import annotations

import base64
import gzip
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import plotly.graph_objects as go
from markupsafe import Markup

_DIGITS = 5
"""Significant digits of the numbers in a figure; hover texts show four."""


def packed(text: str) -> Markup:
    """``text`` as gzip in base64, the same bytes for the same text."""
    return Markup(base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode())


def unpacked(document: str) -> str:
    """The text of a packed one."""
    return gzip.decompress(base64.b64decode(document)).decode()


def figure_document(figure: go.Figure) -> dict[str, Any]:
    """Data and layout of a figure as plain lists and numbers."""
    plotly_json = figure.to_plotly_json()
    return {"data": _rounded_floats(_plain(plotly_json["data"])), "layout": _plain(plotly_json["layout"])}


def compact_json(document: Any) -> str:
    """JSON without spaces; a number that is not finite is an error."""
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def rounded(value: float | None, digits: int = _DIGITS) -> float | int | None:
    """``value`` with so many significant digits; None where it is not finite."""
    if value is None or isinstance(value, int):
        return value
    return float(f"{value:.{digits}g}") if math.isfinite(value) else None


def _plain(value: Any) -> Any:
    """Arrays, which plotly writes as base64 of doubles, become lists."""
    if isinstance(value, Mapping):
        if value.keys() >= {"dtype", "bdata"}:
            return _array(value).tolist()
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value


def _rounded_floats(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded_floats(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded_floats(item) for item in value]
    return rounded(value) if isinstance(value, float) else value


def _array(spec: Mapping[str, Any]) -> np.ndarray[Any, Any]:
    flat = np.frombuffer(base64.b64decode(spec["bdata"]), dtype=np.dtype(spec["dtype"]))
    shape = spec.get("shape")
    if shape is None:
        return flat
    return flat.reshape([int(size) for size in (shape.split(",") if isinstance(shape, str) else shape)])
