"""However bytes are cut on their way, the same is read from them."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from streamproxy.wire.http1 import RequestReader, ResponseReader
from streamproxy.wire.message import End, Event, RequestHead, ResponseHead
from tests.wire.made import damaged, good_request, good_response
from tests.wire.reading import bytewise, property_of, read, read_until_error, requests, responses, splits


def pieces_of(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    return [data[at:end] for at, end in itertools.pairwise(places)]


CUTS = st.lists(st.integers(0, 1000), max_size=6)


def read_and_end(reader: ResponseReader, *pieces: bytes) -> list[Event]:
    events = read(reader, *pieces)
    return events + reader.eof()


def given_and_status(reader: RequestReader | ResponseReader, pieces: list[bytes]) -> tuple[list[Event], int | None]:
    events, error = read_until_error(reader, *pieces)
    return events, None if error is None else error.status


class GoodMessagesTests(SynchronousTestCase):
    @property_of(100)
    @given(good_request())
    def test_a_request_is_read_alike_at_every_split(self, data: bytes) -> None:
        whole = read(requests(), data)
        self.assertEqual((type(whole[0]), type(whole[-1])), (RequestHead, End))
        for first, second in splits(data):
            self.assertEqual(read(requests(), first, second), whole)
        self.assertEqual(read(requests(), *bytewise(data)), whole)

    @property_of(100)
    @given(good_response())
    def test_a_response_is_read_alike_at_every_split(self, data: bytes) -> None:
        whole = read_and_end(responses(), data)
        self.assertEqual((type(whole[0]), type(whole[-1])), (ResponseHead, End))
        for first, second in splits(data):
            self.assertEqual(read_and_end(responses(), first, second), whole)
        self.assertEqual(read_and_end(responses(), *bytewise(data)), whole)

    @property_of(200)
    @given(st.lists(good_request(), min_size=2, max_size=4), CUTS)
    def test_requests_behind_one_another_are_read_as_each_alone(self, messages: list[bytes], cuts: list[int]) -> None:
        apart = [event for message in messages for event in read(requests(), message)]
        reader = requests()
        self.assertEqual(read(reader, *pieces_of(b"".join(messages), cuts)), apart)
        self.assertEqual((reader.waiting, reader.consumed), (0, len(b"".join(messages))))


class AnyBytesTests(SynchronousTestCase):
    """What is read from bytes that may be bad: cut finer, no less is given, and the error is the same."""

    def check(self, make: type[RequestReader] | type[ResponseReader], data: bytes, cuts: list[int]) -> None:
        limits = requests()._limits
        whole, status = given_and_status(make(limits), [data])
        apart, status_apart = given_and_status(make(limits), pieces_of(data, cuts))
        finest, status_finest = given_and_status(make(limits), bytewise(data))
        self.assertEqual(status_apart, status)
        self.assertEqual(status_finest, status)
        if status is None:
            self.assertEqual(apart, whole)
            self.assertEqual(finest, whole)
        for less, more in ((whole, apart), (apart, finest)):
            if not less:
                continue
            *before, last = less
            self.assertEqual(more[: len(before)], before)
            also = more[len(before)]
            if type(last) is bytes:
                # More of the same data may have come.
                assert type(also) is bytes
                self.assertTrue(also.startswith(last))
            else:
                self.assertEqual(also, last)

    @property_of(1000)
    @given(damaged(good_request()), CUTS)
    def test_requests(self, data: bytes, cuts: list[int]) -> None:
        self.check(RequestReader, data, cuts)

    @property_of(1000)
    @given(damaged(good_response()), CUTS)
    def test_responses(self, data: bytes, cuts: list[int]) -> None:
        self.check(ResponseReader, data, cuts)

    @property_of(300)
    @given(st.binary(max_size=60), CUTS)
    def test_noise(self, data: bytes, cuts: list[int]) -> None:
        self.check(RequestReader, data, cuts)
        self.check(ResponseReader, data, cuts)
        self.check(RequestReader, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + data, cuts)
