"""Break lines of the core one at a time, and name those that no test notices.

`make mutants` breaks 20 lines at random in a copy of the tree; `make mutants MUTANTS="--count 60
--seed 7"` others. A failing test counts only if it passes without the break.
"""

import argparse
import ast
import copy
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

PROJECT = Path(__file__).parents[2]

_SERVICE = ("tests/integration/service", "tests/integration/api", "tests/faults")
# Tests that matter for a line, the quick ones first.
TESTS = {
    "mdp_core/domain": ("tests/unit", *_SERVICE),
    "mdp_core/fill": ("tests/unit/fill", "tests/unit/exchanges", *_SERVICE),
    "mdp_core/service": ("tests/unit/service", *_SERVICE, "tests/integration/backfill"),
    "mdp_core/storage": (
        "tests/unit/storage",
        "tests/integration/storage",
        "tests/integration/syncer",
        *_SERVICE,
        "tests/integration/backfill",
    ),
    "mdp_core/exchanges": ("tests/unit/exchanges", "tests/unit/sandbox", *_SERVICE),
    "mdp_core/ratelimit": ("tests/unit/ratelimit", "tests/faults", *_SERVICE),
    "mdp_core/series": (*_SERVICE, "tests/integration/backfill", "tests/integration/syncer"),
    "api/auth.py": ("tests/unit/api", "tests/integration/api"),
    "api/responses/cache_headers.py": ("tests/unit/api", "tests/integration/api"),
}

_OTHER: dict[type[ast.AST], ast.cmpop | ast.operator | ast.boolop] = {
    ast.Lt: ast.LtE(),
    ast.LtE: ast.Lt(),
    ast.Gt: ast.GtE(),
    ast.GtE: ast.Gt(),
    ast.Eq: ast.NotEq(),
    ast.NotEq: ast.Eq(),
    ast.Is: ast.IsNot(),
    ast.IsNot: ast.Is(),
    ast.In: ast.NotIn(),
    ast.NotIn: ast.In(),
    ast.Add: ast.Sub(),
    ast.Sub: ast.Add(),
    ast.Mult: ast.FloorDiv(),
    ast.BitOr: ast.BitAnd(),
    ast.And: ast.Or(),
    ast.Or: ast.And(),
}
_OTHER_NAME = {"min": "max", "max": "min", "any": "all", "all": "any"}
_PATIENCE_SECONDS = 1800
_SHOWN = 70


@dataclass(frozen=True, slots=True)
class Mutant:
    """One line of a file, broken."""

    file: str
    line: int
    before: str
    after: str
    text: str
    """The whole file with the break."""

    def __str__(self) -> str:
        """Tell where and what, in a line."""
        return f"{self.file}:{self.line}: {_short(self.before)}  ->  {_short(self.after)}"


def _short(code: str) -> str:
    line = " ".join(code.split())
    return line if len(line) <= _SHOWN else line[: _SHOWN - 3] + "..."


def mutants_of(file: str, source: str) -> Iterator[Mutant]:
    """Yield every break of a file that can be made."""
    starts = [0]
    for line in source.encode().splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    for node in _code(ast.parse(source)):
        for broken in _variants(node):
            begin = starts[node.lineno - 1] + node.col_offset
            end = starts[(node.end_lineno or 0) - 1] + (node.end_col_offset or 0)
            data = source.encode()
            before, after = data[begin:end].decode(), _text(broken)
            text = (data[:begin] + after.encode() + data[end:]).decode()
            yield Mutant(file, node.lineno, before, after, text)


def _text(node: ast.AST) -> str:
    code = ast.unparse(ast.fix_missing_locations(node))
    return f"({code})" if isinstance(node, ast.expr) else code


def _code(node: ast.AST) -> Iterator[ast.expr | ast.stmt]:
    """Yield what is executed: no annotation, log line, text or constant of a module."""
    for name, value in ast.iter_fields(node):
        children = cast("list[object]", value if isinstance(value, list) else [value])
        if name in {"annotation", "returns", "decorator_list", "type_params", "bases"}:
            continue
        for child in children:
            if not isinstance(child, ast.AST) or _is_idle(node, child):
                continue
            if isinstance(child, ast.expr | ast.stmt):
                yield child
            yield from _code(child)


def _is_idle(parent: ast.AST, node: ast.AST) -> bool:
    if isinstance(parent, ast.Module | ast.ClassDef):
        return not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    match node:
        case ast.JoinedStr() | ast.Import() | ast.ImportFrom():
            return True
        case ast.Expr(value=ast.Constant()):
            return True
        case ast.Expr(value=ast.Call(func=ast.Attribute(value=ast.Name(id="_log")))):
            return True
        case ast.Expr(value=ast.Await(value=ast.Call(func=ast.Attribute(attr="sleep")))):
            return True
        case _:
            return False


def _variants(node: ast.AST) -> Iterator[ast.AST]:
    match node:
        case ast.expr():
            yield from _broken_expressions(node)
        case ast.Expr(value=ast.Call() | ast.Await()) | ast.AugAssign() | ast.Raise():
            yield ast.Pass()
        case ast.Continue():
            yield ast.Break()
        case _:
            pass


def _broken_expressions(node: ast.expr) -> Iterator[ast.expr]:
    match node:
        case ast.Compare(ops=[op]) if type(op) in _OTHER:
            yield _with(node, ops=[_OTHER[type(op)]])
        case ast.BoolOp(op=op, values=values):
            yield _with(node, op=_OTHER[type(op)])
            yield _with(node, values=values[1:]) if values[2:] else values[1]
        case ast.BinOp(op=op) if type(op) in _OTHER:
            yield _with(node, op=_OTHER[type(op)])
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield operand
        case ast.IfExp(body=body, orelse=orelse):
            yield _with(node, body=orelse, orelse=body)
        case ast.Constant(value=bool() | int() as value):
            yield ast.Constant(not value if isinstance(value, bool) else value + 1)
        case ast.Call(func=ast.Name(id=name)):
            yield from _other_calls(node, name)
        case _:
            pass


def _other_calls(call: ast.Call, name: str) -> Iterator[ast.expr]:
    if name == "sorted":
        yield ast.Call(ast.Name("list"), call.args, [])
    elif name in _OTHER_NAME:
        yield _with(call, func=ast.Name(_OTHER_NAME[name]))


def _with(node: ast.expr, **changes: object) -> ast.expr:
    changed = copy.copy(node)
    for name, value in changes.items():
        setattr(changed, name, value)
    return changed


def sources(only: Sequence[str]) -> list[str]:
    """Return the files that are broken, below the paths named or below all."""
    found = [
        str(path.relative_to(PROJECT))
        for area in TESTS
        for path in ([PROJECT / area] if area.endswith(".py") else (PROJECT / area).rglob("*.py"))
    ]
    return sorted(result for result in found if not only or result.startswith(tuple(only)))


def drawn(files: Iterable[str], count: int, seed: int) -> list[Mutant]:
    """Draw lines at random, and one break of each."""
    random_ = random.Random(seed)  # noqa: S311 - not a secret
    lines = dict[tuple[str, int], list[Mutant]]()
    for file in files:
        for mutant in mutants_of(file, (PROJECT / file).read_text()):
            lines.setdefault((mutant.file, mutant.line), []).append(mutant)
    chosen = random_.sample(sorted(lines), min(count, len(lines)))
    return [random_.choice(lines[line]) for line in chosen]


class Copy:
    """A copy of the tree in which lines are broken and tests run."""

    def __init__(self, folder: Path, options: Sequence[str]) -> None:
        self._root = folder / PROJECT.name
        self._options = options
        listed = subprocess.run(
            ["/usr/bin/env", "git", "ls-files", "-co", "--exclude-standard"],
            cwd=PROJECT, capture_output=True, text=True, check=True,
        )  # fmt: skip
        for name in listed.stdout.splitlines():
            if (PROJECT / name).exists():
                (self._root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(PROJECT / name, self._root / name)
        for there in (PROJECT.parent / "shared", PROJECT / ".venv"):
            here = (folder if there.name == "shared" else self._root) / there.name
            here.symlink_to(there, target_is_directory=True)

    def noticed_by(self, mutant: Mutant) -> str | None:
        """Return the test that fails with the break and passes without it."""
        file, tests, spared = self._root / mutant.file, self._tests_of(mutant.file), list[str]()
        whole = file.read_text()
        while True:
            file.write_text(mutant.text)
            try:
                failed = self._first_failure(tests, spared)
            finally:
                file.write_text(whole)
            if failed is None or not self._first_failure([failed], []):
                return failed
            spared.append(failed)

    def _tests_of(self, file: str) -> list[str]:
        """Return the files that may notice: units first, then those that name its parts."""
        text = (self._root / file).read_text()
        names = [Path(file).stem, *re.findall(r"(?m)^(?:class|(?:async )?def) ([A-Za-z]\w+)", text)]
        named = re.compile("|".join(rf"\b{name}\b" for name in names))
        areas = next(tests for area, tests in TESTS.items() if file.startswith(area))
        found = [path for area in areas for path in sorted((self._root / area).rglob("test_*.py"))]
        found.sort(key=lambda path: ("unit" not in path.parts, not named.search(path.read_text())))
        return [str(path.relative_to(self._root)) for path in found]

    def _first_failure(self, tests: Sequence[str], spared: Sequence[str]) -> str | None:
        options = ["-q", "-x", "-p", "no:cacheprovider", *self._options]
        options += [f"--deselect={mutant}" for mutant in spared]
        # Cached bytecode of the whole file may be as old as the broken one.
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
        try:
            done = subprocess.run(  # noqa: S603 - our own tests
                [sys.executable, "-m", "pytest", *tests, *options],
                cwd=self._root,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
                timeout=_PATIENCE_SECONDS,
            )
        except subprocess.TimeoutExpired:
            return tests[0]
        if done.returncode == 0:
            return None
        named = re.search(r"(?m)^(?:FAILED|ERROR) (\S+?(?:\[.*?\])?)(?: - .*)?$", done.stdout)
        return named[1] if named else tests[0]


def main() -> int:
    """Break lines; print what noticed each, and the survivors."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20, help="lines to break")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", action="append", default=[], help="a path below the project")
    parser.add_argument("--list", action="store_true", help="print the lines, and break none")
    parser.add_argument("options", nargs="*", help="of pytest, e.g. -- -n 2")
    given = parser.parse_args()
    mutants = drawn(sources(given.only), given.count, given.seed)
    if given.list:
        print("\n".join(map(str, mutants)))  # noqa: T201 - the answer
        return 0
    survivors = list[Mutant]()
    with tempfile.TemporaryDirectory(prefix="mdp-mutants-") as name:
        tree = Copy(Path(name), given.options)
        for mutant in mutants:
            by = tree.noticed_by(mutant)
            if by is None:
                survivors.append(mutant)
            print("noticed " if by else "SURVIVED", mutant, f"by {by}" if by else "", flush=True)  # noqa: T201
    print(f"{len(mutants) - len(survivors)} of {len(mutants)} lines noticed")  # noqa: T201
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
