"""Instructions that a program can check: the 25 kinds of IF-Eval (arXiv 2311.07911, table 1).

A kind is a function of the response and its arguments; the names of kinds and arguments are those of the published
rows. Departures: sentences are counted by their ends (``.``, ``!``, ``?``) and words in capitals by letters, without a
trained splitter; a keyword is a text, not a pattern; the two kinds that ask for English in capitals or small letters
look at the letters alone; the language of a response is told by the package langdetect, which no other kind needs.
"""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Arguments = Mapping[str, Any]
LANGUAGE = "language:response_language"
_SENTENCE_END = re.compile(r"[.!?]+(?=[\s\"')\]]|$)")
_CHOICES = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
_REVISIONS = ((0, 0), (1, 0), (0, 1), (1, 1))
"""Lines left out at the beginning and at the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Instructions:
    """The share of a row's instructions that a response follows: 1 if all, the *strict* accuracy of the paper.

    ``data`` has ``instructions`` (names) and ``arguments`` (a mapping each). With ``loose`` an instruction is followed
    if it is so without the first line, the last one, both, or the asterisks of the response: the *loose* accuracy.
    """

    weight: float = 1.0
    loose: bool = False

    def score(self, response: str, data: Mapping[str, Any]) -> float:
        """See the class."""
        texts = revised(response) if self.loose else [response]
        kept = [
            any(text.strip() and KINDS[name](text, arguments) for text in texts)
            for name, arguments in zip(data["instructions"], data["arguments"], strict=True)
        ]
        return sum(kept) / len(kept)


def revised(response: str) -> list[str]:
    """The response, without its first line, its last one and both, each as it is and without asterisks."""
    lines = response.split("\n")
    parts = ["\n".join(lines[first : len(lines) - last]) for first, last in _REVISIONS]
    return [text for part in parts for text in (part, part.replace("*", ""))]


def why_unknown(name: str) -> str | None:
    """Why a response cannot be judged by this instruction, if so."""
    if name not in KINDS:
        return f"names the instruction {name!r}, which is none of IF-Eval's"
    if name == LANGUAGE and importlib.util.find_spec("langdetect") is None:
        return "asks for a language, which needs the package langdetect"
    return None


def _compared(count: int, relation: str | None, bound: int) -> bool:
    """``less than`` or ``at least``."""
    return count < bound if relation == "less than" else count >= bound


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text)


def _sentences(text: str, its: Arguments) -> bool:
    stripped = text.strip()
    ends = len(_SENTENCE_END.findall(stripped))
    unfinished = bool(stripped) and not re.search(r"[.!?][\"')\]]*$", stripped)
    return _compared(ends + unfinished, its["relation"], its["num_sentences"])


def _paragraphs(text: str, its: Arguments) -> bool:
    """Separated by ``***``; an empty one may stand at either end only."""
    parts = [part.strip() for part in re.split(r"\s?\*\*\*\s?", text)]
    return all(parts[1:-1]) and bool(sum(map(bool, parts)) == its["num_paragraphs"])


def _first_word(text: str, its: Arguments) -> bool:
    """Paragraphs separated by an empty line; the first word of the n-th."""
    paragraphs, position = text.split("\n\n"), its["nth_paragraph"]
    count = sum(bool(paragraph.strip()) for paragraph in paragraphs)
    if count != its["num_paragraphs"] or not 1 <= position <= count:
        return False
    words = paragraphs[position - 1].split()
    first = re.split(r"[.,?!'\"]", words[0].lstrip("'\""))[0] if words else ""
    return bool(first.lower() == str(its["first_word"]).lower())


def _postscript(text: str, its: Arguments) -> bool:
    """The marker, with or without a space after its dots."""
    marker = its["postscript_marker"].strip()
    spelled = r"\.\s?".join(re.findall(r"[A-Za-z]", marker)) + (r"\." if marker.endswith(".") else "")
    return re.search(spelled, text, re.IGNORECASE) is not None


def _bullets(text: str, its: Arguments) -> bool:
    return len(re.findall(r"^\s*(?:\*[^*\n]|-).*$", text, re.MULTILINE)) == int(its["num_bullets"])


def _highlights(text: str, its: Arguments) -> bool:
    """``*between asterisks*``, single or double, with something between them."""
    single = re.findall(r"\*([^\n*]*)\*", text)
    double = re.findall(r"\*\*([^\n*]*)\*\*", text)
    return bool(sum(bool(part.strip()) for part in single + double) >= its["num_highlights"])


def _parts(text: str, its: Arguments) -> bool:
    heading = rf"\s?{re.escape(its['section_spliter'].strip())}\s?\d+\s?"
    return bool(len(re.findall(heading, text)) >= its["num_sections"])


def _json(text: str, its: Arguments) -> bool:
    """All of it, or between fences."""
    inside = re.sub(r"^```(?:json)?", "", text.strip(), flags=re.IGNORECASE).removesuffix("```")
    try:
        json.loads(inside)
    except (ValueError, RecursionError):
        return False
    return True


def _title(text: str, its: Arguments) -> bool:
    return any(title.strip("<>").strip() for title in re.findall(r"<<[^\n]+>>", text))


def _two(text: str, its: Arguments) -> bool:
    """Two different answers, with six asterisks between them."""
    parts = [part.strip() for part in text.split("******")]
    answers = [part for part in parts if part]
    return all(parts[1:-1]) and len(answers) == 2 and answers[0] != answers[1]


def _language(text: str, its: Arguments) -> bool:
    from langdetect import DetectorFactory, LangDetectException, detect

    DetectorFactory.seed = 0  # it draws random numbers otherwise
    try:
        return bool(detect(text) == its["language"])
    except LangDetectException:  # no letters: nothing speaks against it
        return True


def _found(words: Sequence[str], text: str, whole: bool) -> list[bool]:
    edge = r"\b" if whole else ""
    return [re.search(rf"{edge}{re.escape(word)}{edge}", text, re.IGNORECASE) is not None for word in words]


def _occurrences(text: str, its: Arguments) -> bool:
    count = len(re.findall(re.escape(its["keyword"]), text, re.IGNORECASE))
    return _compared(count, its["relation"], its["frequency"])


def _capital_words(text: str, its: Arguments) -> bool:
    count = sum(word.isupper() for word in _words(text))
    return _compared(count, its["capital_relation"], its["capital_frequency"])


def _letters(text: str, its: Arguments) -> bool:
    return _compared(text.lower().count(its["letter"].lower()), its["let_relation"], its["let_frequency"])


KINDS: Mapping[str, Callable[[str, Arguments], bool]] = {
    "keywords:existence": lambda text, its: all(_found(its["keywords"], text, False)),
    "keywords:frequency": _occurrences,
    "keywords:forbidden_words": lambda text, its: not any(_found(its["forbidden_words"], text, True)),
    "keywords:letter_frequency": _letters,
    LANGUAGE: _language,
    "length_constraints:number_sentences": _sentences,
    "length_constraints:number_paragraphs": _paragraphs,
    "length_constraints:number_words": lambda text, its: _compared(
        len(_words(text)), its["relation"], its["num_words"]
    ),
    "length_constraints:nth_paragraph_first_word": _first_word,
    "detectable_content:number_placeholders": lambda text, its: (
        len(re.findall(r"\[.*?\]", text)) >= its["num_placeholders"]
    ),
    "detectable_content:postscript": _postscript,
    "detectable_format:number_bullet_lists": _bullets,
    "detectable_format:constrained_response": lambda text, its: any(choice in text for choice in _CHOICES),
    "detectable_format:number_highlighted_sections": _highlights,
    "detectable_format:multiple_sections": _parts,
    "detectable_format:json_format": _json,
    "detectable_format:title": _title,
    "combination:two_responses": _two,
    "combination:repeat_prompt": lambda text, its: (
        text.strip().lower().startswith(its["prompt_to_repeat"].strip().lower())
    ),
    "startend:end_checker": lambda text, its: (
        text.strip().strip('"').lower().endswith(its["end_phrase"].strip().lower())
    ),
    "startend:quotation": lambda text, its: len(text.strip()) > 1 and text.strip()[0] == text.strip()[-1] == '"',
    "change_case:capital_word_frequency": _capital_words,
    "change_case:english_capital": lambda text, its: text.isupper(),
    "change_case:english_lowercase": lambda text, its: text.islower(),
    "punctuation:no_comma": lambda text, its: "," not in text,
}
"""Name -> whether a response follows it."""
