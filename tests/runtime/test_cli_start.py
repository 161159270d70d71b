"""What a command imports, and what is listed of those that were not imported."""

from __future__ import annotations

import subprocess
import sys

import pytest

from dubstream.runtime.cli.app import Commands
from dubstream.runtime.cli.lazy import imported

IMPORTED = """
import sys
from dubstream.runtime.cli.app import run
assert run(["--help"]) == 0
heavy = {"numpy", "cv2", "av", "dubstream.runtime.job", "dubstream.benchmarks"}
print(*sorted(heavy & set(sys.modules)), file=sys.stderr)
"""


@pytest.mark.parametrize("name", Commands.deferred)
def test_a_listed_line_is_the_first_of_the_commands_own_help(name: str) -> None:
    deferred = Commands.deferred[name]
    own = imported(name, deferred).help
    assert own is not None
    assert " ".join(own.split("\n\n")[0].split()) == deferred.line


def test_a_list_of_the_commands_needs_none_of_them() -> None:
    answer = subprocess.run([sys.executable, "-c", IMPORTED], capture_output=True, text=True, check=True)
    assert answer.stderr.split() == []
