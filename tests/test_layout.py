"""The rooms of the package: who may import whom, and the form of a file.

The rooms stand on one another: wire; rules and filters on it; scripts; stream; tls; proxy on all of them; service and
command are the front doors. Beside them stand three plain modules: flow, the record, which knows the words of the
rules; settings, which the rules are read into; and journal, which writes flows. Nothing that is below imports what is
above, not even for its types.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "streamproxy"
MOST_LINES = 450

# The rooms and modules of ours that each may import, beside itself.
MAY_IMPORT = {
    "counts": set(),
    "wire": set(),
    "rules": {"wire"},
    "memory": set(),
    "filters": {"wire", "memory"},
    "scripts": {"wire", "rules", "filters"},
    "stream": {"memory", "wire", "rules", "filters", "counts"},
    "tls": {"stream", "counts"},
    "flow": {"wire", "rules", "filters"},
    "settings": {"wire", "rules", "filters", "scripts"},
    "journal": {"flow", "filters"},
    "logs": {"settings", "journal"},
    "proxy": {
        "memory",
        "wire",
        "rules",
        "filters",
        "scripts",
        "stream",
        "tls",
        "flow",
        "settings",
        "journal",
        "counts",
    },
    "inspect": {"wire", "rules", "filters", "scripts", "stream", "tls", "flow", "settings", "journal", "counts"},
    "daemon": {"rules", "scripts", "tls", "settings", "journal", "logs", "proxy", "counts", "inspect"},
    "commands": {"wire", "rules", "settings", "journal", "tls", "proxy", "service"},
    "command": {"commands", "settings", "tls"},
    "service": {
        "wire",
        "rules",
        "filters",
        "scripts",
        "stream",
        "tls",
        "flow",
        "settings",
        "journal",
        "logs",
        "proxy",
        "counts",
        "daemon",
        "inspect",
    },
}
# What of Twisted and zope each may import; a name stands for all that is below it.
OF_TWISTED = {
    "counts": (),
    "wire": (),
    "rules": (),
    "filters": (),
    "scripts": ("twisted.internet", "twisted.logger", "twisted.python.failure", "zope.interface"),
    "flow": (),
    "settings": (),
    "command": (),
    "commands": (),
    "tls": ("twisted.internet", "twisted.python.failure", "zope.interface"),
    "stream": ("twisted.internet.interfaces", "zope.interface"),
    "journal": ("twisted.internet.interfaces",),
    "logs": ("twisted.logger", "twisted.python.logfile", "zope.interface"),
    "proxy": (
        "twisted.internet",
        "twisted.logger",
        "twisted.python.failure",
        "zope.interface",
    ),
    "inspect": (
        "twisted.internet",
        "twisted.logger",
        "twisted.python.failure",
        "twisted.web",
        "zope.interface",
    ),
    "daemon": ("twisted.application", "twisted.internet", "twisted.logger", "twisted.python.failure", "zope.interface"),
    "service": ("twisted", "zope.interface"),
}
# What none but these may import of others.
OTHERS = {"pydantic": "rules", "pydantic_core": "rules", "yaml": "rules"}
# Whatever would do I/O or read a clock has no place where bytes are read and rules are held against heads.
NOT_IN_PURE_ROOMS = ("asyncio", "select", "selectors", "ssl", "subprocess", "threading", "time")


def room_of(path: Path) -> str:
    """The room that a file is in, or the name of a module that stands by itself."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[0]


def imports(path: Path) -> Iterator[str]:
    """The dotted names that a file imports, wherever it does so: modules, and what is taken from them."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} imports relatively"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def below(name: str, modules: tuple[str, ...]) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in modules)


class LayoutTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.files = sorted(PACKAGE.rglob("*.py"))
        self.assertGreater(len(self.files), 20)

    def check(self, wrong: list[str]) -> None:
        self.assertEqual(wrong, [], "\n" + "\n".join(wrong))


class ImportTests(LayoutTestCase):
    def test_each_room_is_known(self):
        rooms = {room_of(path) for path in self.files}
        self.assertEqual(rooms - {"__init__"}, set(MAY_IMPORT))

    def test_nothing_imports_what_stands_above_it(self):
        wrong = []
        for path in self.files:
            room = room_of(path)
            for name in imports(path):
                if name.startswith("streamproxy.") and name != "streamproxy.__version__":
                    other = name.split(".")[1]
                    if other != room and other not in MAY_IMPORT.get(room, set()):
                        wrong.append(f"{path.relative_to(ROOT)} imports {name}")
        self.check(wrong)

    def test_twisted_and_zope_stay_where_they_belong(self):
        wrong = []
        for path in self.files:
            allowed = OF_TWISTED.get(room_of(path), ())
            wrong += [
                f"{path.relative_to(ROOT)} imports {name}"
                for name in imports(path)
                if below(name, ("twisted", "zope")) and not below(name, allowed)
            ]
        self.check(wrong)

    def test_the_reactor_is_imported_in_one_place(self):
        found = [
            str(path.relative_to(ROOT))
            for path in self.files
            for name in imports(path)
            if name == "twisted.internet.reactor"
        ]
        self.assertEqual(found, ["streamproxy/service.py"])

    def test_what_reads_the_configuration_stays_with_the_rules(self):
        wrong = []
        for path in self.files:
            for name in imports(path):
                room = OTHERS.get(name.split(".")[0])
                if room is not None and room_of(path) != room:
                    wrong.append(f"{path.relative_to(ROOT)} imports {name}")
        self.check(wrong)

    def test_the_pure_rooms_have_no_clock_and_no_io_of_their_own(self):
        self.check(
            [
                f"{path.relative_to(ROOT)} imports {name}"
                for path in self.files
                if room_of(path) in ("wire", "rules", "filters", "flow")
                for name in imports(path)
                if below(name, NOT_IN_PURE_ROOMS)
            ]
        )

    def test_nothing_of_the_tests_is_imported(self):
        self.check([str(path) for path in self.files for name in imports(path) if below(name, ("tests",))])


class FileTests(LayoutTestCase):
    def test_twistd_finds_its_plugin_only_where_no_init_stands_in_the_way(self):
        self.assertTrue((ROOT / "twisted/plugins/streamproxy_plugin.py").exists())
        self.assertFalse((ROOT / "twisted/__init__.py").exists())
        self.assertFalse((ROOT / "twisted/plugins/__init__.py").exists())

    def test_the_plugin_imports_nothing_of_ours(self):
        # twistd imports it for every command that it is asked about.
        names = list(imports(ROOT / "twisted/plugins/streamproxy_plugin.py"))
        self.assertEqual([name for name in names if below(name, ("streamproxy",))], [])

    def test_each_room_is_a_package(self):
        self.check([str(path.parent) for path in self.files if not (path.parent / "__init__.py").exists()])

    def test_each_module_says_what_it_is_for(self):
        self.check(
            [
                str(path.relative_to(ROOT))
                for path in [*self.files, ROOT / "twisted/plugins/streamproxy_plugin.py"]
                if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
            ]
        )

    def test_no_file_is_longer_than_can_be_read_at_a_sitting(self):
        lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in self.files}
        self.assertEqual({path: lines for path, lines in lengths.items() if lines > MOST_LINES}, {})

    def test_names_say_what_a_thing_does(self):
        empty = {"handler", "manager", "processor", "engine", "context", "util", "utils", "common", "base", "helper"}
        wrong = []
        for path in self.files:
            if empty.intersection(path.stem.split("_")):
                wrong.append(str(path.relative_to(ROOT)))
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ClassDef) and node.name.lower().endswith(tuple(empty)):
                    wrong.append(f"{path.relative_to(ROOT)}: {node.name}")
        self.check(wrong)
