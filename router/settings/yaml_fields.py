"""Typed reading of a mapping's keys, with every mistake noted and none fatal.

    section = Section(node, problems)
    port = section.integer("port", 8084, least=0, most=65535)
    section.close()                       # what nobody asked for is an unknown key

A value that is wrong is noted and replaced by its default (or by an empty value), so that reading goes on.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence

from router.settings.yaml_nodes import Node, Problems, join_path, shown

Check = Callable[[str], str | None]
"""Says what is wrong with a text ("must be ..."), or None when nothing is."""


def allowed_words(value: str, allowed: Iterable[str]) -> str:
    """`allowed: cheap, expensive (did you mean "expensive"?)`; a long list is cut."""
    words = [word for word in allowed if word.isprintable() and len(word) <= 128]
    near = difflib.get_close_matches(value, words, n=1)
    listed = ", ".join(words[:30]) + (f", and {len(words) - 30} more" if len(words) > 30 else "")
    return f"allowed: {listed or 'nothing'}" + (f' (did you mean "{near[0]}"?)' if near else "")


def kind(node: Node) -> str:
    """Name what `node` is, for "must be text, not a list"."""
    if node.value is None:
        return "nothing"
    return {str: "text", tuple: "a list", dict: "a mapping"}[type(node.value)]


class Section:
    """One mapping of the file. Null means absent everywhere."""

    def __init__(self, node: Node, problems: Problems) -> None:
        self.node = node
        self.problems = problems
        self._asked: dict[str, None] = {}
        self._nodes: dict[str, Node] = {}
        if isinstance(node.value, dict):
            self._nodes = node.value
        elif node.value is not None:
            problems.add(node, f"must be a mapping (key: value), not {kind(node)}")

    def get(self, key: str) -> Node | None:
        """Return the key's node, None when absent."""
        self._asked[key] = None
        node = self._nodes.get(key)
        return None if node is None or node.value is None else node

    def require(self, key: str) -> Node | None:
        """Return the key's node; note a problem when absent."""
        node = self.get(key)
        at = self._nodes.get(key, self.node)
        if node is None and not at.broken and (isinstance(self.node.value, dict) or self.node.value is None):
            missing = Node(None, at.source, at.line, join_path(self.node.path, key))
            self.problems.add(missing, "missing; docs/configuration.md says what belongs here")
        return node

    def section(self, key: str) -> Section:
        """Return the mapping under `key`; an absent one reads as empty."""
        node = self.get(key)
        empty = Node({}, self.node.source, self.node.line, join_path(self.node.path, key))
        return Section(node or empty, self.problems)

    def sections(self) -> Iterator[tuple[str, Section]]:
        """Every entry as a mapping, for sections whose keys are the user's own names."""
        for name, node in self._nodes.items():
            self._asked[name] = None
            yield name, Section(node, self.problems)

    def entries(self, key: str) -> list[Node]:
        """Return the items of the required list under `key`."""
        node = self.require(key)
        if node is None:
            return []
        if not isinstance(node.value, tuple):
            self.problems.add(node, f"must be a list, not {kind(node)}")
            return []
        return list(node.value)

    def words(self, key: str, *, check: Check | None = None) -> tuple[str, ...]:
        """Return the texts of an optional list, each given once; empty when absent."""
        words: dict[str, None] = {}
        for node in self.entries(key) if self.get(key) is not None else ():
            word = read_text(node, self.problems, check=check)
            if word in words:
                self.problems.add(node, f"{shown(word)} is given twice; keep one")
            words[word] = None
        return tuple(words)

    def names(self) -> Iterator[tuple[str, Node]]:
        """Every key with its node, for mappings whose keys are names."""
        for name, node in self._nodes.items():
            self._asked[name] = None
            yield name, node

    def text(self, key: str, default: str | None = None, *, check: Check | None = None) -> str:
        """Return text; required when there is no default."""
        node = self.require(key) if default is None else self.get(key)
        return (default or "") if node is None else read_text(node, self.problems, default or "", check=check)

    def choice(self, key: str, allowed: Sequence[str], default: str | None = None) -> str:
        """Return one of `allowed`; required when there is no default."""
        node = self.require(key) if default is None else self.get(key)
        fallback = default or ""
        value = fallback if node is None else read_text(node, self.problems, fallback)
        if node is not None and value != fallback and value not in allowed:
            self.problems.add(node, f"{shown(node.written)} is not known; {allowed_words(value, allowed)}")
            return fallback
        return value

    def flag(self, key: str, default: bool) -> bool:
        """Return true or false."""
        node = self.get(key)
        if node is None:
            return default
        value = {"true": True, "false": False}.get(str(node.value).lower()) if kind(node) == "text" else None
        if value is None:
            self.problems.add(node, f"{_seen(node)} must be true or false")
            return default
        return value

    def integer(self, key: str, default: int | None = None, *, least: int, most: int) -> int:
        """Return a whole number in `least..most`; required when there is no default."""
        node = self.require(key) if default is None else self.get(key)
        fallback = least if default is None else default
        if node is None:
            return fallback
        value = int(text) if re.fullmatch(r"[-+]?[0-9]{1,18}", text := _digits(node)) else None
        if value is None or not least <= value <= most:
            self.problems.add(node, f"{_seen(node)} must be a whole number from {least} to {most}")
            return fallback
        return value

    def number(
        self,
        key: str,
        default: float | None = None,
        *,
        least: float = -math.inf,
        above: float | None = None,
        most: float = math.inf,
    ) -> float:
        """Return a finite number in `least..most` and over `above`; required when there is no default."""
        node = self.require(key) if default is None else self.get(key)
        fallback = (default or 0.0) if default is not None else max(least, 0.0)
        if node is None:
            return fallback
        return read_number(node, self.problems, fallback, least=least, above=above, most=most)

    def close(self) -> None:
        """Note every key that was not asked for. Keys that start with `x-` are the user's (for anchors)."""
        for key, node in self._nodes.items():
            if key not in self._asked and not key.startswith("x-"):
                at = Node(None, node.source, node.line, join_path(self.node.path, key))
                self.problems.add(at, f"unknown key; {allowed_words(key, self._asked)}")


def read_text(node: Node, problems: Problems, fallback: str = "", *, check: Check | None = None) -> str:
    """Return the node's text if it is one printable line that passes `check`; else note why."""
    value = node.value
    if not isinstance(value, str):
        problems.add(node, f"must be text, not {kind(node)}")
        return fallback
    if not value:
        problems.add(node, "must not be empty")
        return fallback
    complaint = check(value) if check and value.isprintable() else None
    if not value.isprintable():
        complaint = "must be printable text on one line"
    if complaint is not None:
        problems.add(node, f"{shown(node.written)} {complaint}")
        return fallback
    return value


def read_number(
    node: Node,
    problems: Problems,
    fallback: float,
    *,
    least: float = -math.inf,
    above: float | None = None,
    most: float = math.inf,
) -> float:
    """Return the node's finite number within the bounds; else note it, give `fallback`."""
    text = _digits(node)
    value = float(text) if _FLOAT.fullmatch(text) else math.nan
    if math.isfinite(value) and least <= value <= most and (above is None or value > above):
        return value
    bounds = [f"over {above:g}"] if above is not None else []
    bounds += [f"at least {least:g}"] if math.isfinite(least) else []
    bounds += [f"at most {most:g}"] if math.isfinite(most) else []
    problems.add(node, f"{_seen(node)} must be a number" + (" " + " and ".join(bounds) if bounds else ""))
    return fallback


_FLOAT = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?", re.ASCII)


def _digits(node: Node) -> str:
    """The node's text as int() and float() take it: YAML's `4_194_304` is a number too."""
    text = node.value if isinstance(node.value, str) else ""
    return re.sub(r"(?<=[0-9])_(?=[0-9])", "", text)


def _seen(node: Node) -> str:
    return shown(node.written) if isinstance(node.value, str) else f"{kind(node)} is here, but it"
