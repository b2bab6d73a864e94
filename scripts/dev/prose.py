"""Check the prose of docstrings and pages.

`python -m scripts.dev.prose [PATH ...]`.

The rules stand in CONTRIBUTING.md. Prints each breach as `path:line: rule`, and exits with 1.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

_LONGEST_FIRST_LINE = 80
_CLAUSE = re.compile(r"(?:What|Who|Whom|Whose|Where|How|Whether)\b")
_PERSON = re.compile(
    r"(?<![^\"]\")(?<!postgres or )"  # the account `nobody` is none
    r"\b(?:whoever|whomever|some(?:body|one)|no(?:body|-one)|every(?:body|one)|any(?:body|one))\b",
    re.IGNORECASE,
)
_TEXTS = {".md", ".py", ".toml", ".yml", ".sh", ".js", ".css", ".html"}


def main() -> None:
    """Check the files that git tracks, or those under the paths given."""
    listed = subprocess.run(  # noqa: S603 - git on paths of the caller
        ["git", "ls-files", *sys.argv[1:]],  # noqa: S607 - wherever it is installed
        capture_output=True,
        text=True,
        check=True,
    )
    paths = [Path(name) for name in listed.stdout.split() if Path(name).suffix in _TEXTS]
    breaches = [breach for path in paths if path.exists() for breach in _breaches(path)]
    for breach in breaches:
        print(breach)  # noqa: T201 - its result
    sys.exit(bool(breaches))


def _breaches(path: Path) -> Iterator[str]:
    text = path.read_text()
    if path != Path(__file__).relative_to(Path.cwd()):
        for number, line in enumerate(text.splitlines(), 1):
            if found := _PERSON.search(line):
                yield f"{path}:{number}: indefinite person: {found[0]}"
    if path.suffix == ".py":
        yield from _docstring_breaches(path, ast.parse(text))


def _docstring_breaches(path: Path, module: ast.Module) -> Iterator[str]:
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(module):
        if isinstance(node, documented) and (docstring := ast.get_docstring(node)):
            first, where = docstring.splitlines()[0], f"{path}:{getattr(node, 'lineno', 1)}"
            if _CLAUSE.match(first):
                yield f"{where}: docstring begins with a clause: {first}"
            if len(first) > _LONGEST_FIRST_LINE:
                yield f"{where}: first line of {len(first)} characters: {first}"


if __name__ == "__main__":
    main()
