"""The tables of README.md, made from ``results/*.json``.

    python -m benchmarks.report

What stands between ``<!-- begin NAME -->`` and ``<!-- end NAME -->`` is replaced; a result that is not there yet says
how to get it. Nothing else in the file is touched.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from benchmarks.common import HERE, RESULTS
from benchmarks.servos import SHOWN

README = HERE / "README.md"


def rows(header: list[str], lines: list[list[object]]) -> list[str]:
    """A Markdown table."""
    return [f"| {' | '.join(map(str, line))} |" for line in (header, ["---"] * len(header), *lines)]


def number(value: float | None, digits: int = 3) -> str:
    """Three significant digits, without exponents where they can be done without."""
    if value is None:
        return ""
    return f"{value:.{digits}g}" if abs(value) < 10**digits else f"{value:.0f}"


def within(found: dict[str, float], unit: str = "") -> str:
    """Median with its quartiles."""
    return f"{number(found['median'])}{unit} ({number(found['low'])} to {number(found['high'])})"


def step_vs_trl(data: dict[str, Any]) -> list[str]:
    """Seconds per step of both sides."""
    lines: list[list[object]] = [
        [
            item["updates"],
            within(item["seconds"]["ours"], " s"),
            within(item["seconds"]["trl"], " s"),
            f"**{within(item['faster'], 'x')}**",
            f"{item['trl_micro_batch']} of {', '.join(item['trl_tried'])}",
        ]
        for item in data["compared"]
    ]
    return rows(["updates per rollout", "ours", "TRL", "ours is faster by", "TRL's rows at a time"], lines)


def token_statistics(data: dict[str, Any]) -> list[str]:
    """Times and memory by number of tokens, and gradient errors."""
    lines: list[list[object]] = []
    for item in data["times"]:
        place = [item["rows"], item["dtype"], item["way"]]
        if "failed" in item:
            lines.append([*place, f"did not run: {item['failed'][:90]}", "", "", "", ""])
            continue
        speed = within(item["faster_than_full"], "x") if "faster_than_full" in item else ""
        share = f"1/{1 / item['memory_of_full']:.1f}" if "memory_of_full" in item else ""
        memory = [f"{item['tensors_mib']:.0f}", share, f"{item['resident_mib']:.0f}"]
        lines.append([*place, within(item["seconds"], " s"), speed, *memory])
    header = ["tokens", "dtype", "way", "forward and backward", "faster than full", "extra tensors, MiB", "of full"]
    errors: list[list[object]] = [
        [item["dtype"], item["way"], *(f"{item[key]:.2g}" for key in ERRORS)]
        for item in data["errors"]
        if "failed" not in item
    ]
    return [
        *rows([*header, "extra resident, MiB"], lines),
        "",
        "Relative error against float64 (2-norm, 256 tokens):",
        "",
        *rows(["dtype", "way", *(key.replace("_", " ") for key in ERRORS)], errors),
    ]


ERRORS = ("logprobs", "entropy", "grad_hidden", "grad_weight")


def realistic(data: dict[str, Any]) -> list[str]:
    """Training phase of both sides."""
    lines: list[list[object]] = [
        [side, within(data["seconds"][side], " s"), number(data["tokens_per_s"][side]), number(data["peak_gib"][side])]
        for side in ("ours", "trl")
    ]
    asked = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in data["request"].items())
    return [
        *rows(["side", "one optimiser step", "tokens/s", "peak GiB"], lines),
        "",
        f"Ours is faster by **{within(data['faster'], 'x')}** ({data['tokens']} tokens; {asked}).",
    ]


def phases(data: dict[str, Any]) -> list[str]:
    """Seconds by phase beside the floor."""
    out: list[str] = []
    for found in data["tables"]:
        total, lines = found["seconds"]["time/step_s"], []
        for key, value in sorted(found["seconds"].items(), key=lambda item: -item[1]):
            name = key.removeprefix("time/").removesuffix("_s")
            least = found["floor"].get(name)
            cells = ["", "", ""]
            if least:
                reached = max(least["operations_reached"], least["bytes_reached"])
                cells = [f"{least['operations'] / 1e9:.1f}", f"{least['bytes'] / 2**20:.0f}", f"{reached:.0%}"]
            lines.append([name, f"{value:.4f}", f"{value / total:.0%}", *cells])
        out += [
            f"{found['updates']} update(s) per rollout; prompts of {found['prompt_tokens']:.1f} and responses of "
            f"{found['response_tokens']:.1f} tokens:",
            "",
            *rows(["phase", "s per step", "share", "GFLOP at least", "MiB at least", "of the ceiling"], lines),
            "",
            f"Diversity, calibration and accounting together: {found['observing_share']:.1%} of a step.",
            "",
        ]
    tops = data["tables"][0]["ceilings"]
    return [
        *out,
        f"Ceilings in the same minute: {tops['operations_per_s'] / 1e9:.0f} GFLOP/s in a large product, "
        f"{tops['operations_per_s_model_shape'] / 1e9:.0f} in one of the model's shape, "
        f"{tops['bytes_per_s'] / 2**30:.1f} GiB/s in a large copy.",
    ]


def startup(data: dict[str, Any]) -> list[str]:
    """Seconds to the first step by part."""
    kinds = [kind for kind in ("cold", "warm") if kind in data]
    parts = sorted(
        {part for kind in kinds for part in data[kind]["parts"]}, key=lambda p: -data["warm"]["parts"].get(p, 0)
    )
    lines: list[list[object]] = [
        ["**process start to first step**", *(f"**{data[k]['to_first_step']:.1f}**" for k in kinds)]
    ]
    lines += [[part, *(f"{data[kind]['parts'].get(part, 0.0):.2f}" for kind in kinds)] for part in parts]
    lines += [["**one more run in the same process**", *(f"**{data[k]['additional']['median']:.2f}**" for k in kinds)]]
    more = sorted({part for kind in kinds for part in data[kind]["additional_parts"]})
    lines += [
        [f"{part} (more run)", *(f"{data[k]['additional_parts'].get(part, 0.0):.2f}" for k in kinds)] for part in more
    ]
    return rows(["part, seconds", *kinds], lines)


def efficiency(data: dict[str, Any]) -> list[str]:
    """What a sweep did with its time."""
    gaps = data["gaps_s"]
    lines: list[list[object]] = [
        ["cells x steps", f"{data['cells']} x {data['steps_per_run']}"],
        ["wall time", f"{data['wall_s']:.0f} s"],
        ["in training steps", f"{data['busy_s']['time/step_s']:.0f} s"],
        ["**efficiency**", f"**{data['efficiency']:.0%}**"],
        ["planned to first step", f"{data['planned_to_first_step_s']:.1f} s"],
        ["between two cells, shortest and longest", f"{min(gaps):.1f} s, {max(gaps):.1f} s"],
    ]
    return rows(["", ""], lines)


def growth(data: dict[str, Any]) -> list[str]:
    """The points of the plot."""
    lines: list[list[object]] = []
    for name, points in data["axes"].items():
        shown = points if name != "mlflow" else [points[0], points[len(points) // 2], points[-1]]
        lines.append([name, "; ".join(f"{point['x']}: {number(point['step_s'])} s" for point in shown)])
    return ["![growth](growth.png)", "", *rows(["axis", "points"], lines)]


METHODS = ("policy/entropy", "rollout/reward", "eval/heldout/avg_at_16", "eval/heldout/pass_at_16")


def methods(data: dict[str, Any]) -> list[str]:
    """Where every method ends beside GRPO, most entropy first, and the time of a step of it."""
    lines: list[list[object]] = []
    for row in sorted(data["table"], key=lambda row: -row["policy/entropy"]):
        shown = [f"{row['policy/entropy']:.3f}"]
        for key in METHODS:
            shown += [] if key == METHODS[0] else [f"{row[key]:.3f}"]
            difference = row.get("difference", {}).get(key)
            shown += [f"{difference[0]:+.3f} ± {difference[1]:.3f}" if difference else ""]
        cost = data["step_ratio"].get(row["method"])
        lines.append([f"`{row['method']}`", row["seeds"], *shown, "" if cost is None else f"{cost:.2f}"])
    named = ["entropy, nats", "reward", "held-out avg@16", "held-out pass@16"]
    header = [part for name in named for part in (name, "- GRPO")]
    return rows(["method", "seeds", *header, "time of a step / GRPO"], lines)


def servos(data: dict[str, Any]) -> list[str]:
    """Entropy that every controller reached for every target, and the score there."""
    lines: list[list[object]] = []
    for level, found in data["table"].items():
        target, _, controller = level.partition(", method servo/")
        spreads = ("" if found[key][1] is None else f" ± {found[key][1]:.3f}" for key in SHOWN)
        shown = [f"{found[key][0]:.3f}{spread}" for key, spread in zip(SHOWN, spreads, strict=True)]
        lines.append([target, f"`{controller}`", found["seeds"], *shown])
    named = ["entropy, nats", "deviation, nats", "reward", "held-out avg@16", "held-out pass@16"]
    return rows(["target, nats", "controller", "seeds", *named], lines)


def verifiers(data: dict[str, Any]) -> list[str]:
    """Answers a second by verifier, and the two opinions on Countdown's responses."""
    lines: list[list[object]] = [
        [name, found["answers"], number(found["per_s"]), f"{found['correct']:.1%}", f"{found['not_comparable']:.1%}"]
        for name, found in data["throughput"].items()
    ]
    opinions: list[list[object]] = [[what, count] for what, count in data["countdown"].items()]
    header = ["answers, judged by", "answers", "a second", "correct", "not comparable or failed"]
    return [*rows(header, lines), "", *rows(["Countdown's responses", "number"], opinions)]


SECTIONS: dict[str, Callable[[dict[str, Any]], list[str]]] = {
    function.__name__: function
    for function in (
        *(step_vs_trl, realistic, token_statistics, phases, startup, efficiency, growth, methods, servos, verifiers),
    )
}


def section(name: str, document: dict[str, Any] | None) -> str:
    """What stands between the markers of one result."""
    if document is None:
        return f"Not measured yet: `python -m benchmarks.{name}`."
    machine = document["machine"]
    versions = ", ".join(f"{package} {version}" for package, version in sorted(document["versions"].items()))
    where = f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB"
    where += f", {machine['gpu']}" if "gpu" in machine else ""
    return "\n".join(
        [
            *SECTIONS[name](document["data"]),
            "",
            f"`{document['command']}` at `{document['commit']}`, {document['date']}; {where}; "
            f"{document['threads']} threads; {versions}.",
        ]
    )


def filled(text: str, sections: dict[str, str]) -> str:
    """``text`` with every marked place replaced; raises ``ValueError`` for a section without markers."""
    for name, content in sections.items():
        pattern = re.compile(rf"(<!-- begin {name} -->\n).*?(<!-- end {name} -->)", re.DOTALL)
        text, count = pattern.subn(lambda match, content=content: f"{match[1]}{content}\n{match[2]}", text)
        if count != 1:
            raise ValueError(f"README.md has {count} places for {name}: it needs one begin and one end marker")
    return text


def main() -> None:
    """Rewrite the tables."""
    sections = {}
    for name in SECTIONS:
        path = RESULTS / f"{name}.json"
        sections[name] = section(name, json.loads(path.read_text()) if path.exists() else None)
    README.write_text(filled(README.read_text(), sections))


if __name__ == "__main__":
    main()
