"""What a page carries is small and inert: figures survive as numbers, packed text is base64."""

from __future__ import annotations

import json
import re

import numpy as np
import plotly.graph_objects as go
import pytest

from dashboards.page.packing import compact_json, figure_document, packed, rounded, unpacked


def test_a_figure_keeps_its_numbers_to_five_digits() -> None:
    figure = go.Figure(go.Scatter(x=np.arange(3), y=np.array([1 / 3, np.nan, 2e-9 / 3]), customdata=np.eye(2) / 7))
    figure.update_layout(title={"text": "</script>"}, xaxis={"range": [0.123456789, 1]})
    document = json.loads(compact_json(figure_document(figure)))
    trace = document["data"][0]
    assert trace["x"] == [0, 1, 2] and trace["y"] == [0.33333, None, 6.6667e-10]
    assert trace["customdata"] == [[0.14286, 0.0], [0.0, 0.14286]]
    assert document["layout"]["xaxis"]["range"] == [0.123456789, 1], "only data are rounded"


def test_packed_text_comes_back_and_is_inert() -> None:
    text = "</script><script>alert(1)</script>\u2028 \u00e4" * 50
    document = packed(text)
    assert unpacked(document) == text and re.fullmatch("[A-Za-z0-9+/=]+", document)
    assert document == packed(text) and len(document) < len(text) / 10


@pytest.mark.parametrize(
    ("value", "short"), [(None, None), (7, 7), (float("inf"), None), (float("nan"), None), (123456.0, 123460.0)]
)
def test_rounded(value: float | None, short: float | None) -> None:
    assert rounded(value) == short
