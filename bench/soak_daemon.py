"""The daemon of the soak: its rules, which are rewritten and read again, its log, which is rotated, and what it looks
like from outside and from inside."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import sysconfig
import urllib.request
from pathlib import Path
from typing import Any

from bench.parts import HERE, PROXY_CORE, Parts, until

# Its deadlines, in seconds: short, so that much of them is seen, and so that it is soon at rest.
DEADLINE = 4
# What it tells of itself that has to be nothing when nobody is there, and what that is called here.
METRICS = {
    "held_bytes": "held",
    "under_way": "under way",
    "pauses_under_way": "pauses",
    "lookups_under_way": "lookups",
    "origin_connections_idle": "idle",
}
# Lines on the log that tell of a defect.
COMPLAINTS = ("Traceback", "Unhandled", "not reloaded")
RULES = """
limits: {{connections: 4000}}
timeouts: {{connect: {deadline}, head: {deadline}, idle: {deadline}, keepalive: {deadline}, handshake: {deadline}}}
tls: {{passthrough: ["127.0.0.1:{plain}", "127.0.0.1:{passed}"]}}
scripts: [{scripts}]
rules:
  - {{name: answered, match: {{host: answered.example}}, respond: {{text: answered by a rule}}}}
  - {{name: blocked, match: {{host: blocked.example}}, block: 403}}
  - {{name: moved, match: {{url: "http://moved.example/*"}}, redirect_to: "http://127.0.0.1:{plain}/"}}
  - name: replaced
    match: {{path: "/text/replaced"}}
    response:
      replace:
        - {{find: internal.example, with: public.example}}
        - {{regex: "sk-[0-9]{{20,40}}", with: "sk-***"}}
  - {{name: held, match: {{path: "/*/held"}}, request: {{stream: false}}, response: {{stream: false}}}}
  - {{name: captured, match: {{path: "/*/captured"}}, response: {{capture: true}}}}
  - {{name: paced, match: {{path: "/small/paced"}}, response: {{pace: {{rate: 64k, delay: 0.05}}}}}}
  - {{name: faulty, match: {{path: "/down/faulty"}}, response: {{fault: {{after: 10k, action: reset, every: 2}}}}}}
  - name: chat
    match: {{path: "/socket/chat"}}
    websocket: {{messages: [{{from: client, regex: "sk-[0-9a-z]{{20,40}}", with: "sk-***"}}]}}
  - {{name: frames, match: {{path: "/socket/frames"}}, websocket: {{stream: true}}}}
"""
EVENTS = "  - {{name: asked, match: {{path: /events/asked}}, response: {{events: '{script}:on_event'}}}}\n"


class Daemon:
    """The daemon that is soaked, with its rules, which are rewritten, and its log, which is rotated.

    `plain` and `passed` are ports of the origin: what goes there by CONNECT isn't intercepted.
    """

    def __init__(self, parts: Parts, plain: int, passed: int) -> None:
        folder = parts.new_folder("soaked")
        self._config, self._log = folder / "rules.yaml", folder / "log"
        self._plain, self._passed = plain, passed
        self.reloads = 0
        # Exchanges that were on the log, and what else was there that isn't good.
        self.lines = 0
        self.complaints: list[str] = []
        self.rotations = 0
        self._write_rules(scripted=True)
        wanted = (
            "listen=tcp:0:interface=127.0.0.1",
            "admin=tcp:0:interface=127.0.0.1",
            f"state_dir={folder}/state",
            f"log.file={self._log}",
        )
        wanted += (f"tls.trusted_ca=[{parts.certificates.authority}]",)
        sets = [word for each in wanted for word in ("--set", each)]
        command = [sys.executable, Path(sysconfig.get_path("scripts"), "twistd"), "-n", "--pidfile=", "streamproxy"]
        self.part = parts.start("streamproxy", *command, "-c", self._config, *sets, cores=[PROXY_CORE])
        # Its own folder is its HOME, where `soak_inside.py` writes.
        self.folder = self.part.log.parent
        self.part.port = self._port(r"\] listening on")
        self._metrics = f"http://127.0.0.1:{self._port('admin: listening on')}/metrics"
        self.part.authority = folder / "state" / "ca.pem"

    def _port(self, words: str) -> int:
        """The port of a listener, by the words before its address on the log, once it's there."""
        found: re.Match[str] | None = None

        def is_there() -> bool:
            nonlocal found
            self.part.check_running()
            found = re.search(rf"{words} 127\.0\.0\.1:([0-9]+)", self.log.read_text(errors="replace"))
            return found is not None

        until(is_there, "the line of a listener")
        assert found is not None
        return int(found[1])

    @property
    def log(self) -> Path:
        return self._log if self._log.exists() else self.part.log

    def _write_rules(self, scripted: bool) -> None:
        """The rules with scripts, or without: what such exchanges go through are two different machines."""
        script, inside = HERE / "soak_script.py", HERE / "soak_inside.py"
        scripts = f"{inside}, {script}" if scripted else f"{inside}"
        rules = RULES.format(deadline=DEADLINE, plain=self._plain, passed=self._passed, scripts=scripts)
        self._config.write_text(rules + (EVENTS.format(script=script) if scripted else ""))

    def reload(self) -> None:
        """Have it read other rules than it has."""
        self.reloads += 1
        self._write_rules(scripted=self.reloads % 2 == 0)
        self.part.check_running()
        os.kill(self.part.pid, signal.SIGHUP)

    def rotate(self) -> None:
        """Put the log aside, have it begin another, and count what is in the old one."""
        if not self._log.exists():
            return
        old = self._log.with_name("log.1")
        self._log.rename(old)
        os.kill(self.part.pid, signal.SIGUSR1)
        until(self._log.exists, "another log")
        # What it still had to write is written: it opens the new one behind that.
        self.rotations += 1
        self._read(old)
        old.unlink()

    def _read(self, log: Path) -> None:
        with log.open(errors="replace") as file:
            for line in file:
                if '"outcome": ' in line:
                    self.lines += 1
                elif any(word in line for word in COMPLAINTS) and len(self.complaints) < 100:
                    self.complaints.append(line.strip())

    def stop(self) -> None:
        self.part.stop()
        self._read(self.log)

    def rest(self, resting: bool) -> None:
        """Tell what looks at it from inside whether this is rest."""
        path = self.folder / "rest"
        path.touch() if resting else path.unlink(missing_ok=True)

    def inside(self) -> dict[str, Any]:
        """What it last said of itself."""
        path = self.folder / "inside"
        if not path.exists():
            return {}
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 8192))
            # The last line may not be whole yet.
            lines = file.read().split(b"\n")[:-1]
        return json.loads(lines[-1]) if lines else {}

    def outside(self) -> dict[str, float]:
        """What the kernel says of it; memory in MiB."""
        self.part.check_running()
        text = Path(f"/proc/{self.part.pid}/smaps_rollup").read_text()
        sizes = {name: int(size) / 1024 for name, size in re.findall(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE)}
        return {
            "resident": sizes["Rss"],
            "proportional": sizes["Pss"],
            "unique": sizes["Private_Clean"] + sizes["Private_Dirty"],
            "files": self.part.open_files(),
            "threads": len(os.listdir(f"/proc/{self.part.pid}/task")),
            "core": self.part.processor_seconds(),
        }

    def metrics(self) -> dict[str, float]:
        """Those of its metrics that `METRICS` names, each summed over its labels."""
        with urllib.request.urlopen(self._metrics, timeout=30) as answer:
            text = answer.read().decode()
        found = dict.fromkeys(METRICS.values(), 0.0)
        for name, value in re.findall(r"^streamproxy_(\w+)(?:\{.*\})? (\S+)$", text, re.MULTILINE):
            if name in METRICS:
                found[METRICS[name]] += float(value)
        return found
