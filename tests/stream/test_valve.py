"""The pause switch of a source."""

from twisted.trial.unittest import SynchronousTestCase

from streamproxy.stream.valve import Valve


class Source:
    def __init__(self):
        self.calls = []

    def pauseProducing(self):
        self.calls.append("pause")

    def resumeProducing(self):
        self.calls.append("resume")


class ValveTests(SynchronousTestCase):
    def setUp(self):
        self.source = Source()
        self.valve = Valve(self.source)

    def test_the_first_reason_pauses_and_the_last_one_out_resumes(self):
        self.valve.close("a")
        self.valve.close("b")
        self.assertEqual(self.source.calls, ["pause"])
        self.valve.open("a")
        self.assertEqual(self.source.calls, ["pause"])
        self.assertTrue(self.valve.closed)
        self.valve.open("b")
        self.assertEqual(self.source.calls, ["pause", "resume"])
        self.assertFalse(self.valve.closed)

    def test_a_reason_given_twice_is_taken_back_once(self):
        self.valve.close("a")
        self.valve.close("a")
        self.valve.open("a")
        self.assertEqual(self.source.calls, ["pause", "resume"])

    def test_a_reason_that_was_not_given_opens_nothing(self):
        self.valve.open("a")
        self.valve.close("b")
        self.valve.open("a")
        self.assertEqual(self.source.calls, ["pause"])

    def test_a_source_that_has_ended_is_left_alone(self):
        self.valve.close("a")
        self.valve.end()
        self.valve.open("a")
        self.valve.close("b")
        self.assertEqual(self.source.calls, ["pause"])

    def test_its_repr_tells_why_it_is_shut(self):
        self.assertEqual(repr(self.valve), "<Valve open>")
        self.valve.close("sink full")
        self.valve.close("next request")
        self.assertEqual(repr(self.valve), "<Valve closed: next request, sink full>")
        self.valve.end()
        self.assertEqual(repr(self.valve), "<Valve ended>")
