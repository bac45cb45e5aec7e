"""A configuration read from a text, or its errors in their order."""

from __future__ import annotations

from streamproxy.rules.explain import read_configuration
from streamproxy.rules.schema import Configuration
from streamproxy.rules.yaml import compose


def read(text: str) -> Configuration:
    configuration, problems = read_configuration(compose(text, "f.yaml"))
    if configuration is None:
        raise AssertionError(problems)
    return configuration


def errors(text: str) -> list[str]:
    _, problems = read_configuration(compose(text, "f"))
    problems.sort(key=lambda problem: problem.place[1:3])
    return [f"{problem.place.line}:{problem.place.column}: {problem.text}" for problem in problems]
