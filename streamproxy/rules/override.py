"""Keys that are set on the command line, as `KEY=VALUE`: put into the data of the file as if they stood there.

What they may say is found out with all the rest, by `explain.read_configuration`.
"""

from __future__ import annotations

from typing import Any

from streamproxy.rules.explain import dotted, known_keys, shown, unknown_key
from streamproxy.rules.yaml import Document, Path, Place, Problem, YamlError, compose


def override(document: Document, text: str, index: int) -> Problem | None:
    """Put one `KEY=VALUE` of the command line into the data; what is wrong with it, if anything."""
    key, equals, written = text.partition("=")
    label = f"--set {text if len(text) <= 120 else text[:117] + '...'}"
    label = " ".join(repr(label)[1:-1].split()) if not label.isprintable() else label
    place = Place(label, 0, index)
    if not equals or not key:
        return Problem(place, "expected KEY=VALUE")
    try:
        value = compose(written, label)
    except YamlError as error:
        return Problem(place, error.problems[0].text)
    return _put(document, key.strip().split("."), value, place)


def _put(document: Document, keys: list[str], value: Document, place: Place) -> Problem | None:
    """Put a value at the end of a way of keys, making the mappings on the way that aren't there."""
    data: Any = document.data
    path: Path = ()
    for position, key in enumerate(keys):
        last = position == len(keys) - 1
        if isinstance(data, list):
            if not key.isdecimal() or not key.isascii() or len(key) > 6 or int(key) > len(data):
                return Problem(place, f"there is no {dotted(path)}[{key}]; it has {len(data)} entries")
            step: str | int = int(key)
            if step == len(data):
                data.append(None)
        else:
            step = key
            level = tuple(part for part in path if isinstance(part, str))
            known = known_keys(level)
            if known is not None and key not in known:
                where = f"{dotted(path)}: " if path else ""
                return Problem(place, where + unknown_key((*path, key)))
        path = (*path, step)
        if last:
            _forget(document, path)
            data[step] = value.data
            document.key_places[path] = place._replace(path=path)
            for inner in value.places:
                document.places[path + inner] = place._replace(path=path)
            for inner in value.key_places:
                document.key_places[path + inner] = place._replace(path=path)
            return None
        below = data[step] if isinstance(step, int) else data.get(step)
        if below is None:
            below = [] if keys[position + 1].isdecimal() else {}
            data[step] = below
            document.places[path] = place
        elif not isinstance(below, dict | list):
            return Problem(place, f"{dotted(path)} is {shown(below)}, so nothing can be set inside it")
        data = below
    return None


def _forget(document: Document, path: Path) -> None:
    for places in (document.places, document.key_places):
        for inner in [each for each in places if each[: len(path)] == path]:
            del places[inner]
