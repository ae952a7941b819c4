"""The DAG file: nodes, edges, retries, scripts and sub-workflows, read as a stream.

A DAG of a million nodes is most of a gigabyte, so only counts and the sub-workflow nodes are kept
from the first pass; the particulars of single nodes are fetched for the few jobs that need them.
Grammar: HTCondor manual, "DAG input file commands".
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from doctor.run.files import Files
from doctor.run.grep import automaton, lines_naming

_SMALL = 20_000  # nodes up to which every node's particulars are kept from the first pass
_LARGE = 4 << 20  # bytes below which a DAG cannot have that many
#: Node commands other than an ordinary JOB, in a block of a large DAG.
_SPECIAL = rb"\n(?:(?:FINAL|PROVISIONER|SERVICE|SUBDAG) [^\n]*|JOB [^\n]*/(?:pegasus-plan_|subd)[^\n]*)"
_SUB_PREFIXES = ("pegasus-plan_", "subdax_", "subdag_")


@dataclass(slots=True)
class Node:
    """Particulars of one DAG node. ``retries`` is the RETRY count; scripts are command lines."""

    name: str
    submit_file: str = ""
    directory: str = ""
    retries: int = 0
    pre: str = ""
    post: str = ""
    sub_dag: str = ""  # file of a SUBDAG EXTERNAL node
    parents: list[str] = field(default_factory=list)
    children: list[str] = field(default_factory=list)


class Dag:
    """One DAG file, scanned once on construction (absent or damaged files give what they hold)."""

    def __init__(self, path: Path, files: Files) -> None:
        self.path = path
        self._files = files
        self.count = 0
        self.sub_workflows: dict[str, Node] = {}
        self._known: dict[str, Node] = {}
        self._complete = False
        self._scan()

    def _lines(self) -> Iterator[bytes]:
        handle = self._files.open(self.path)
        if handle is None:
            return
        with os.fdopen(handle, "rb", buffering=1 << 20) as stream:
            try:
                while line := stream.readline(1 << 16):
                    yield line
            except OSError as problem:
                self._files.ledger.note(self._files.name(self.path), os.strerror(problem.errno or 0))

    def _scan(self) -> None:
        if not self._scan_blocks():
            self._scan_lines()

    def _scan_blocks(self) -> bool:
        """Count the nodes of a large DAG in blocks and find its sub-workflows; False when it is not large."""
        try:
            if os.stat(self.path).st_size < _LARGE:
                return False
        except OSError:
            return False
        count, subs, special = 0, dict[str, Node](), automaton(_SPECIAL)
        for part in self._files.blocks(self.path):
            block = b"\n" + part
            count += block.count(b"\nJOB ")
            for found in special.finditer(block):
                line = found.group()[1:]
                count += not line.startswith(b"JOB ")
                _apply(line, subs)
        if count <= _SMALL:
            return False
        self.count = count
        self.sub_workflows = self.nodes(name for name, node in subs.items() if _is_sub(node))
        return True

    def _scan_lines(self) -> None:
        small: dict[str, Node] = {}
        subs: dict[str, Node] = {}
        keep = True
        for line in self._lines():
            if line.startswith((b"JOB ", b"FINAL ", b"PROVISIONER ", b"SERVICE ")):
                self.count += 1
                if keep and self.count > _SMALL:
                    keep, subs, small = False, {name: node for name, node in small.items() if _is_sub(node)}, {}
                if keep:
                    _apply(line, small)
                elif b"/pegasus-plan_" in line or b"/subd" in line:
                    _apply(line, subs)
            elif line.startswith(b"SUBDAG "):
                self.count += 1
                _apply(line, small if keep else subs)
            elif keep:
                _apply(line, small)
        self._complete = keep
        self._known = small
        if keep:
            subs = {name: node for name, node in small.items() if _is_sub(node)}
        self.sub_workflows = {name: node for name, node in subs.items() if _is_sub(node)}
        if not keep and self.sub_workflows:
            self.sub_workflows = self.nodes(self.sub_workflows)

    def nodes(self, names: Iterable[str]) -> dict[str, Node]:
        """Particulars of the named nodes; unknown names are left out. May read the file once more."""
        wanted = set(names)
        missing = wanted - self._known.keys()
        if missing and not self._complete:
            fresh: dict[str, Node] = {name: Node(name) for name in missing}
            keys = {name.encode() for name in missing}
            for _, line in lines_naming(self._files, self.path, keys):
                if line.startswith((b"PARENT", b"VARS", b"PRIORITY", b"CATEGORY")):
                    if line.startswith(b"PARENT") and not keys.isdisjoint(line.split()):
                        _apply(line, fresh, only_known=True)
                    continue
                parts = line.split(None, 8 if line.startswith(b"SCRIPT D") else 3)  # DEFER and DEBUG stand before the name
                if len(parts) > 2 and not keys.isdisjoint(parts[1:]):
                    _apply(line, fresh, only_known=True)
            self._known.update({name: node for name, node in fresh.items() if node.submit_file or node.sub_dag})
        return {name: self._known[name] for name in wanted if name in self._known}

    def node(self, name: str) -> Node:
        """Particulars of one node; an empty :class:`Node` when the DAG does not have it."""
        return self.nodes([name]).get(name) or Node(name)

    def all_names(self) -> list[str]:
        """Names of all nodes when the DAG is small enough to be held, else an empty list."""
        return list(self._known) if self._complete else []


def _is_sub(node: Node) -> bool:
    base = os.path.basename(node.submit_file)
    return bool(node.sub_dag) or base.startswith(_SUB_PREFIXES) or " --deferred" in node.pre


def _apply(raw: bytes, nodes: dict[str, Node], only_known: bool = False) -> None:
    """Fold one DAG command into the nodes; lines that are no command are ignored."""
    words = raw.decode("utf-8", "replace").split()
    if not words:
        return
    command = words[0].upper()

    def node(name: str) -> Node | None:
        if only_known:
            return nodes.get(name)
        return nodes.setdefault(name, Node(name))

    if command in ("JOB", "FINAL", "PROVISIONER", "SERVICE") and len(words) >= 3:
        if found := node(words[1]):
            found.submit_file = words[2]
            found.directory = _directory(words)
    elif command == "SUBDAG" and len(words) >= 4:
        if found := node(words[2]):
            found.sub_dag = words[3]
            found.directory = _directory(words)
    elif command == "RETRY" and len(words) >= 3:
        if found := node(words[1]):
            found.retries = int(words[2]) if words[2].isdigit() else 0
    elif command == "SCRIPT" and len(words) >= 4:
        at = next((index for index, word in enumerate(words) if word.upper() in ("PRE", "POST", "HOLD")), 0)  # after DEFER, DEBUG
        if at and len(words) > at + 2 and (found := node(words[at + 1])):
            text = " ".join(words[at + 2 :])
            if words[at].upper() == "PRE":
                found.pre = text
            elif words[at].upper() == "POST":
                found.post = text
    elif command == "PARENT" and "CHILD" in words:
        at = words.index("CHILD")
        parents, children = words[1:at], words[at + 1 :]
        for name in parents:
            if found := node(name):
                found.children.extend(children)
        for name in children:
            if found := node(name):
                found.parents.extend(parents)


def _directory(words: list[str]) -> str:
    upper = [word.upper() for word in words]
    return words[upper.index("DIR", 3) + 1] if "DIR" in upper[3:-1] else ""
