"""masque.tunnel.tcp: the module's table, and every input in any order."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from masque.tunnel import TcpAction, TcpTunnel

HIGH, LOW = 100, 40
ABORT = (TcpAction.RESET_SOCKET, TcpAction.RESET_STREAM)
FAIL = (TcpAction.RESET_STREAM, TcpAction.RESET_SOCKET)

Call = Callable[[TcpTunnel], None]


def actions(tunnel: TcpTunnel) -> tuple[TcpAction, ...]:
    """Take all actions."""
    found = []
    while (action := tunnel.next_action()) is not None:
        found.append(action)
    return tuple(found)


def written(tunnel: TcpTunnel, at_most: int = 1 << 30) -> bytes:
    """Let the socket take up to so many bytes of each piece, until nothing waits."""
    result = b""
    while (piece := tunnel.data_to_send()) is not None:
        taken = bytes(piece[:at_most])
        result += taken
        tunnel.data_sent(len(taken))
    return result


def fin(tunnel: TcpTunnel) -> None:
    tunnel.receive_data(b"", True)


def some(tunnel: TcpTunnel) -> None:
    tunnel.receive_data(b"some")


def much(tunnel: TcpTunnel) -> None:
    tunnel.receive_data(bytes(HIGH + 1))


def write_all(tunnel: TcpTunnel) -> None:
    written(tunnel)


eof: Call = TcpTunnel.receive_eof
abort: Call = TcpTunnel.receive_stream_abort
error: Call = TcpTunnel.receive_error
write_error: Call = TcpTunnel.receive_write_error


@pytest.mark.parametrize(
    ("calls", "expected", "is_over"),
    [
        pytest.param((), (), False, id="fresh"),
        pytest.param((fin,), (TcpAction.END_SOCKET,), False, id="fin"),
        pytest.param((some, fin), (), False, id="fin waits for the bytes before it"),
        pytest.param((some, fin, write_all), (TcpAction.END_SOCKET,), False, id="fin after the bytes"),
        pytest.param((eof,), (TcpAction.END_STREAM,), False, id="eof"),
        pytest.param((fin, eof), (TcpAction.END_SOCKET, TcpAction.END_STREAM), True, id="fin, eof"),
        pytest.param((eof, fin), (TcpAction.END_STREAM, TcpAction.END_SOCKET), True, id="eof, fin"),
        pytest.param((some, fin, eof), (TcpAction.END_STREAM,), False, id="both ended, bytes wait"),
        pytest.param((fin, fin, eof, eof), (TcpAction.END_SOCKET, TcpAction.END_STREAM), True, id="ends once"),
        pytest.param((fin, some, write_all), (TcpAction.END_SOCKET,), False, id="bytes after the fin"),
        pytest.param((abort,), ABORT, True, id="abort"),
        pytest.param((error,), FAIL, True, id="error"),
        pytest.param((some, abort), ABORT, True, id="abort with bytes waiting"),
        pytest.param((some, fin, abort), ABORT, True, id="abort hides the fin"),
        pytest.param((eof, error), (*FAIL,), True, id="the abort overtakes what was not taken"),
        pytest.param((abort, error, eof, fin, much), ABORT, True, id="nothing after an abort"),
        pytest.param((error, abort), FAIL, True, id="the first abort counts"),
        pytest.param((fin, eof, abort, error), (TcpAction.END_SOCKET, TcpAction.END_STREAM), True, id="over is over"),
        pytest.param((much,), (TcpAction.HOLD_STREAM,), False, id="hold"),
        pytest.param((much, much), (TcpAction.HOLD_STREAM,), False, id="hold once"),
        pytest.param((much, write_all), (TcpAction.HOLD_STREAM, TcpAction.RELEASE_STREAM), False, id="release"),
        pytest.param((much, error), (TcpAction.RELEASE_STREAM, *FAIL), True, id="an abort releases"),
        pytest.param(
            (much, fin, write_all),
            (TcpAction.HOLD_STREAM, TcpAction.RELEASE_STREAM, TcpAction.END_SOCKET),
            False,
            id="release, then end",
        ),
    ],
)
def test_table(calls: tuple[Call, ...], expected: tuple[TcpAction, ...], is_over: bool) -> None:
    tunnel = TcpTunnel(HIGH, LOW)
    for call in calls:
        call(tunnel)
    assert actions(tunnel) == expected
    assert tunnel.is_over is is_over
    assert tunnel.is_aborted is (abort in calls[:2] or error in calls[:2] or calls[2:] == (abort,))


@pytest.mark.parametrize(
    ("calls", "expected"),
    [
        pytest.param((), (), id="fresh"),
        pytest.param((some,), (), id="bytes wait"),
        pytest.param((some, fin), (), id="the fin waits"),
        pytest.param((fin,), (TcpAction.END_SOCKET,), id="the upload has ended"),
        pytest.param((much,), (TcpAction.HOLD_STREAM, TcpAction.RELEASE_STREAM), id="held"),
        pytest.param((much, write_all), (TcpAction.HOLD_STREAM, TcpAction.RELEASE_STREAM), id="released before"),
    ],
)
def test_a_socket_that_takes_no_more_is_read_on(calls: tuple[Call, ...], expected: tuple[TcpAction, ...]) -> None:
    tunnel = TcpTunnel(HIGH, LOW)
    for call in calls:
        call(tunnel)
    for call in (write_error, much, fin, write_error):  # what comes later goes nowhere
        call(tunnel)
        assert tunnel.is_upload_lost
        assert tunnel.is_download_open
        assert not tunnel.is_over
        assert tunnel.buffered == 0
        assert tunnel.data_to_send() is None
    assert actions(tunnel) == expected
    error(tunnel)
    assert actions(tunnel) == FAIL
    assert tunnel.is_over
    assert tunnel.is_aborted
    assert not tunnel.is_download_open


@pytest.mark.parametrize(
    ("calls", "expected", "is_aborted"),
    [
        pytest.param((eof,), FAIL, True, id="after the download"),
        pytest.param((eof, much), (TcpAction.RELEASE_STREAM, *FAIL), True, id="after the download, held"),
        pytest.param((abort,), ABORT, True, id="after an abort"),
        pytest.param((error,), FAIL, True, id="after an error"),
        pytest.param((fin, eof), (TcpAction.END_SOCKET, TcpAction.END_STREAM), False, id="after both ends"),
    ],
)
def test_a_write_error_with_nothing_left_to_read(
    calls: tuple[Call, ...], expected: tuple[TcpAction, ...], is_aborted: bool
) -> None:
    tunnel = TcpTunnel(HIGH, LOW)
    for call in (*calls, write_error):
        call(tunnel)
    assert actions(tunnel) == expected
    assert tunnel.is_over
    assert tunnel.is_aborted is is_aborted
    assert not tunnel.is_upload_lost


def test_a_stream_reset_after_the_upload_was_lost() -> None:
    tunnel = TcpTunnel(HIGH, LOW)
    for call in (some, write_error, abort, error):
        call(tunnel)
    assert actions(tunnel) == ABORT
    assert tunnel.is_over


def test_the_marks_are_exact() -> None:
    tunnel = TcpTunnel(HIGH, LOW)
    tunnel.receive_data(bytes(HIGH))
    assert actions(tunnel) == ()
    tunnel.receive_data(b"x")
    assert actions(tunnel) == (TcpAction.HOLD_STREAM,)
    tunnel.data_sent(HIGH - LOW)
    assert tunnel.buffered == LOW + 1
    assert actions(tunnel) == ()
    tunnel.data_sent(1)
    assert actions(tunnel) == (TcpAction.RELEASE_STREAM,)


def test_a_crowded_connection_holds_before_the_mark() -> None:
    tunnel = TcpTunnel(HIGH, LOW)
    tunnel.receive_data(b"x", is_crowded=True)
    assert actions(tunnel) == (TcpAction.HOLD_STREAM,)
    assert written(tunnel) == b"x"
    assert actions(tunnel) == (TcpAction.RELEASE_STREAM,)


def test_a_crowded_connection_holds_nothing_that_waits_for_nothing() -> None:
    tunnel = TcpTunnel(HIGH, LOW)
    tunnel.receive_data(b"", is_crowded=True)
    assert actions(tunnel) == ()


@pytest.mark.parametrize("at_most", [1, 3, 7, 1000])
def test_partial_writes_keep_bytes_and_order(at_most: int) -> None:
    tunnel = TcpTunnel(HIGH, LOW)
    for piece in (b"abc", b"", b"defgh", b"i"):
        tunnel.receive_data(piece)
    tunnel.receive_data(b"jk", True)
    assert written(tunnel, at_most) == b"abcdefghijk"
    assert actions(tunnel) == (TcpAction.END_SOCKET,)


def test_an_abort_does_not_swallow_a_release() -> None:
    tunnel = TcpTunnel(HIGH, LOW)
    much(tunnel)
    assert actions(tunnel) == (TcpAction.HOLD_STREAM,)
    write_all(tunnel)
    abort(tunnel)
    assert actions(tunnel) == (TcpAction.RELEASE_STREAM, *ABORT)


def test_a_half_closed_download_leaves_the_upload() -> None:
    tunnel = TcpTunnel(HIGH, LOW)
    tunnel.receive_eof()
    assert not tunnel.is_download_open
    tunnel.receive_data(b"late", True)
    assert written(tunnel) == b"late"
    assert actions(tunnel) == (TcpAction.END_STREAM, TcpAction.END_SOCKET)
    assert tunnel.is_over


class AnyOrder(RuleBasedStateMachine):
    """Every input at every time, with a model of what may come out."""

    def __init__(self) -> None:
        super().__init__()
        self.tunnel = TcpTunnel(HIGH, LOW)
        self.received = b""
        self.sent = b""
        self.is_fin_given = False
        self.is_eof_given = False
        self.is_abort_given = False
        self.is_upload_lost = False
        self.must_end_socket = False
        self.history: list[TcpAction] = []

    @property
    def was_over(self) -> bool:
        return self.is_abort_given or (
            self.is_fin_given and self.is_eof_given and len(self.received) == len(self.sent)
        )

    @rule(data=st.binary(max_size=150), is_last=st.booleans(), is_crowded=st.booleans())
    def receive_data(self, data: bytes, is_last: bool, is_crowded: bool) -> None:
        if not self.is_abort_given and not self.is_fin_given:
            self.received += data
            self.is_fin_given = is_last
        self.tunnel.receive_data(data, is_last, is_crowded=is_crowded)
        self.note_end()

    def note_end(self) -> None:
        """With the FIN given and all bytes written, the socket is told of the end."""
        is_written = self.is_fin_given and len(self.received) == len(self.sent)
        if is_written and not self.is_abort_given and not self.is_upload_lost:
            self.must_end_socket = True

    @rule()
    def receive_eof(self) -> None:
        self.is_eof_given = True
        self.tunnel.receive_eof()

    @rule(is_error=st.booleans())
    def end_badly(self, is_error: bool) -> None:
        self.is_abort_given = self.is_abort_given or not self.was_over
        (self.tunnel.receive_error if is_error else self.tunnel.receive_stream_abort)()

    @rule()
    def fail_to_write(self) -> None:
        if self.is_eof_given:
            self.is_abort_given = self.is_abort_given or not self.was_over
        elif not self.is_abort_given:
            self.is_upload_lost = self.is_fin_given = True
            self.received = self.sent
        self.tunnel.receive_write_error()

    @rule(size=st.integers(0, 200))
    def write(self, size: int) -> None:
        piece = self.tunnel.data_to_send()
        if piece is not None:
            assert not self.is_abort_given
            taken = bytes(piece[:size])
            self.sent += taken
            self.tunnel.data_sent(len(taken))
            self.note_end()

    @rule()
    def take_actions(self) -> None:
        self.history += actions(self.tunnel)

    @invariant()
    def bytes_are_the_same(self) -> None:
        assert self.received.startswith(self.sent)
        if not self.is_abort_given:
            assert self.tunnel.buffered == len(self.received) - len(self.sent)
        else:
            assert self.tunnel.buffered == 0
            assert self.tunnel.data_to_send() is None

    @invariant()
    def flags_agree(self) -> None:
        assert self.tunnel.is_over is self.was_over
        assert self.tunnel.is_aborted is self.is_abort_given
        assert self.tunnel.is_upload_lost is self.is_upload_lost
        assert self.tunnel.is_download_open is (not self.is_abort_given and not self.is_eof_given)

    @invariant()
    def the_history_is_possible(self) -> None:
        history = self.history
        flow = [a for a in history if a in (TcpAction.HOLD_STREAM, TcpAction.RELEASE_STREAM)]
        resets = [a for a in history if a in ABORT]
        for action in (TcpAction.END_SOCKET, TcpAction.END_STREAM):
            assert history.count(action) <= 1
        if resets:
            assert sorted(a.value for a in history[-2:]) == sorted(a.value for a in ABORT)
            assert len(resets) == 2
        # An abort drops a hold that was not taken yet, and still releases: the only release that may stand alone.
        if resets and flow.count(TcpAction.RELEASE_STREAM) > flow.count(TcpAction.HOLD_STREAM):
            assert history[-3] is TcpAction.RELEASE_STREAM
            flow.pop()
        expected = [TcpAction.HOLD_STREAM, TcpAction.RELEASE_STREAM] * len(flow)
        assert flow == expected[: len(flow)]

    def teardown(self) -> None:
        """Whatever happened, nothing stays held and what is owed is told."""
        if not self.is_abort_given:
            while (piece := self.tunnel.data_to_send()) is not None:
                self.sent += bytes(piece)
                self.tunnel.data_sent(len(piece))
            self.note_end()
            assert self.sent == self.received
        self.take_actions()
        self.the_history_is_possible()
        flow = [a for a in self.history if a in (TcpAction.HOLD_STREAM, TcpAction.RELEASE_STREAM)]
        assert not flow or flow[-1] is TcpAction.RELEASE_STREAM
        if not self.is_abort_given:
            assert (TcpAction.END_SOCKET in self.history) is self.must_end_socket
            assert (TcpAction.END_STREAM in self.history) is self.is_eof_given


TestAnyOrder = AnyOrder.TestCase
