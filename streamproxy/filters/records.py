"""What filters have in common that hand a body's records to a user's function one by one, and send on its answers.

Two things are kept apart. Cutting takes bytes and gives parts: bytes that pass, and records to ask about. Asking goes
through the parts in order. Both are done as pieces are taken, so that a read full of tiny records is never there as so
many objects. What a record is, and how one is written, stands in `events` and `lines`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from streamproxy.filters.chain import PIECE, FilterError, Pause, Piece

# The kinds of parts that a body is cut into.
PASS: Final = 0  # nobody is asked about these bytes
ASK: Final = 1  # a record
LATE_LF: Final = 2  # an LF that came behind the CR that ended the record before it
Part = tuple[int, bytes]

BOM: Final = b"\xef\xbb\xbf"


class RecordFilter:
    """A filter that asks about each record of a body; `events` and `lines` say what that is.

    `ask` gets a record and its answer says what goes on in its place: None for the record itself, False for nothing,
    otherwise another record in one of the forms that `_other` knows, or a list, a tuple or an iterator of these
    (taken lazily), in which the record itself may stand too. A `Pause` stands for what it comes to, which may be
    None, for nothing, among others. Any other answer raises FilterError. What `ask` or the iterator raises is raised
    to who takes the pieces, behind everything that was decided before.

    `most` is the size of the largest record, in bytes; a larger one raises FilterError. `name` is the kind of function.
    """

    __slots__ = ("_after", "_ask", "_begun", "_held", "_late_lf_passes", "_most", "_name", "_start")

    def __init__(self, ask: Callable[[Any], object], most: int, name: str) -> None:
        self._ask = ask
        self._most = most
        self._name = name
        # The part of a record that has come.
        self._held = bytearray()
        self._begun = False
        # The body's first bytes, while they may be the beginning of a byte order mark.
        self._start = b""
        # What must stand between what was written last and whatever follows it in the same answer.
        self._after = b""
        # Whether what was written last is a record that ends as it came, so that an LF behind its CR passes.
        self._late_lf_passes = False

    @property
    def kept_back(self) -> int:
        """How many bytes of a record are held that isn't whole."""
        return len(self._held)

    def feed(self, data: bytes) -> Iterable[Piece]:
        """Take the next bytes; give what goes on, asking about records as pieces are taken."""
        if self._begun:
            return joined(self._asked(self._cut(data)))
        data = self._start + data
        if len(data) < len(BOM) and BOM.startswith(data):
            self._start = data
            return ()
        self._begun = True
        self._start = b""
        if not data.startswith(BOM):
            return joined(self._asked(self._cut(data)))
        return joined(self._behind_bom(data[len(BOM) :]))

    def finish(self) -> Iterable[Piece]:
        """The end: a record that isn't ended is asked about as well."""
        return joined(self._last(self._start))

    def abort(self, why: str) -> None:
        """Let go of what is held; whoever is asked needn't answer."""
        self._held = bytearray()
        cancel = getattr(self._ask, "cancel", None)
        if cancel is not None:
            cancel()

    def _cut(self, data: bytes) -> Iterator[Part]:
        """Cut the next bytes, keeping what isn't whole. FilterError if that is too large."""
        raise NotImplementedError

    def _rest(self) -> Iterator[Part]:
        """What was kept, when nothing follows."""
        raise NotImplementedError

    def _record(self, raw: bytes) -> object:
        """The record to ask about."""
        raise NotImplementedError

    def _own(self, record: object) -> bytes:
        """The record that was asked about, as it is now; sets `_after` and `_late_lf_passes`."""
        raise NotImplementedError

    def _other(self, item: object, record: object) -> bytes | None:
        """Anything else that was answered for `record`, as bytes; None if it can't be."""
        raise NotImplementedError

    def _behind_bom(self, data: bytes) -> Iterator[Piece]:
        yield BOM
        yield from self._asked(self._cut(data))

    def _last(self, start: bytes) -> Iterator[Piece]:
        if start:
            yield from self._asked(self._cut(start))
        yield from self._asked(self._rest())

    def _asked(self, parts: Iterator[Part]) -> Iterator[Piece]:
        """What goes on for these parts."""
        for kind, data in parts:
            if kind == PASS:
                yield data
            elif kind == LATE_LF:
                if self._late_lf_passes:
                    yield data
            else:
                self._after = b""
                self._late_lf_passes = False
                record = self._record(data)
                answer = self._ask(record)
                while isinstance(answer, Pause):
                    yield answer
                    answer = answer.result()
                if answer is None:
                    yield self._own(record)
                elif answer is False:
                    pass
                elif isinstance(answer, (list, tuple, Iterator)):
                    for item in answer:
                        paused = False
                        while isinstance(item, Pause):
                            paused = True
                            yield item
                            item = item.result()
                        if item is not None or not paused:
                            yield self._put(item, record, "gave")
                else:
                    yield self._put(answer, record, "returned")

    def _put(self, item: object, record: object, how: str) -> bytes:
        """What to write for one thing that was answered, behind whatever was written before for the same record."""
        after = self._after
        if item is record:
            return after + self._own(record)
        made = self._other(item, record)
        if made is None:
            raise FilterError(f"{self._name} function {how} {type(item).__name__}")
        if not made:
            return b""
        self._after = b""
        self._late_lf_passes = False
        return after + made


def joined(pieces: Iterator[Piece]) -> Iterator[Piece]:
    """The same pieces, small ones joined to about PIECE bytes; none waits for a Pause or is lost to an exception."""
    parts: list[bytes] = []
    size = 0
    error: Exception | None = None
    pause: Pause | None = None
    more = True
    while more:
        try:
            piece = next(pieces)
        except StopIteration:
            more = False
        except Exception as raised:
            error = raised
            more = False
        else:
            if isinstance(piece, Pause):
                pause = piece
            else:
                parts.append(piece)
                size += len(piece)
                if size < PIECE:
                    continue
        if size:
            yield parts[0] if len(parts) == 1 else b"".join(parts)
            parts = []
            size = 0
        if pause is not None:
            yield pause
            pause = None
    if error is not None:
        raise error
