"""`python -m tests [trial arguments]`: run trial, and close with `N passed, M failed` counted from its report.

Exits with trial's status; with CI set in the environment, a skip is a failure too, for there every part is present.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys

_SUMMARY = re.compile(r"^(?:PASSED|FAILED)(?: \((.*)\))?$")
_FAILED = ("failures", "errors", "unexpectedSuccesses")


def main(arguments: list[str]) -> int:
    command = [sys.executable, "-m", "twisted.trial", "-j2", *(arguments or ["tests"])]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert run.stdout is not None
    counts: dict[str, int] | None = None
    for line in run.stdout:
        found = _SUMMARY.match(line.rstrip("\n"))
        if found is None:
            print(line, end="", flush=True)
            continue
        # trial's closing line is told in our own words, below.
        counts = {}
        for part in (found.group(1) or "").split(", "):
            name, _, number = part.partition("=")
            if number:
                counts[name] = int(number)
    status = run.wait()
    if counts is None:
        print("trial gave no report")
        print("0 passed, 1 failed")
        return status or 1
    passed = counts.get("successes", 0) + counts.get("expectedFailures", 0)
    failed = sum(counts.get(name, 0) for name in _FAILED)
    skipped = counts.get("skips", 0)
    if skipped:
        print(f"{skipped} skipped: each says above which part it lacks")
        if os.environ.get("CI"):
            print("a skip isn't accepted here")
            failed += skipped
    if not passed and not failed:
        print("no test was run")
        failed = 1
    print(f"{passed} passed, {failed} failed")
    return status or (1 if failed else 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
