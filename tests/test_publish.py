"""Both ends of the wire, over real sockets: order, loss, back-pressure, restart, status."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Iterator

import numpy as np
import psutil
import pytest
import zmq

from rtdenoise.errors import WireError
from rtdenoise.frame import Frame, FrameStamp, Pixels
from rtdenoise.publish import MAX_QUEUED_BYTES, Publisher, StatusPublisher, high_water_mark
from rtdenoise.status import Counters, EndMessage, StartMessage, StatusMessage, from_json, host_id
from rtdenoise.subscribe import StatusSubscriber, Subscriber
from rtdenoise.wire import Drops, StreamFacts

ANY_PORT = "tcp://127.0.0.1:*"
SHAPE = (256, 512)
N_BYTES = 256 * 512 * 2
FACTS = StreamFacts("raw", "test")


def numbered(k: int, series: str = "a", pixels: Pixels | None = None) -> Frame:
    """Frame k of a series; every pixel is k."""
    return Frame(np.full(SHAPE, k, np.uint16) if pixels is None else pixels, FrameStamp(series, k, k, k))


def publisher(**options: object) -> Publisher:
    return Publisher(ANY_PORT, FACTS, **{"frame_bytes": N_BYTES, **options})  # type: ignore[arg-type]


@pytest.fixture
def lossless() -> Iterator[tuple[Publisher, Subscriber]]:
    with publisher(lossless=True) as pub, Subscriber(pub.endpoint) as sub:
        assert pub.wait_for_subscribers(1, timeout_s=10)
        yield pub, sub


def publish_for_ever(pub: Publisher) -> None:
    for k in itertools.count():
        pub.publish(numbered(k), Drops())


def read_all(sub: Subscriber, n: int, into: list[int]) -> None:
    for _ in range(n):
        message = sub.read(timeout_s=10)
        assert message is not None
        pixels = message.frame.pixels
        assert pixels.min() == pixels.max() == message.frame.stamp.frame
        into.append(message.frame.stamp.frame)


def test_every_frame_arrives_once_in_order_though_the_caller_reuses_its_array() -> None:
    seen: list[int] = []
    with publisher(lossless=True) as pub, Subscriber(pub.endpoint) as sub:
        assert pub.wait_for_subscribers(1, timeout_s=10)
        reader = threading.Thread(target=read_all, args=(sub, 300, seen))
        reader.start()
        pixels = np.empty(SHAPE, np.uint16)
        for k in range(300):
            pixels.fill(k)
            pub.publish(numbered(k, pixels=pixels), Drops())
        reader.join()
        assert seen == list(range(300))
        assert (sub.received, sub.missed, sub.skipped, sub.bad) == (300, 0, 0, 0)


def test_frames_made_in_the_publishers_own_buffer_arrive_too(lossless: tuple[Publisher, Subscriber]) -> None:
    pub, sub = lossless
    seen: list[int] = []
    reader = threading.Thread(target=read_all, args=(sub, 200, seen))
    reader.start()
    for k in range(200):
        pixels = pub.lease(SHAPE, "uint16")
        pixels.fill(k)
        pub.publish(numbered(k, pixels=pixels), Drops())
    reader.join()
    assert seen == list(range(200))


def test_other_layouts_in_memory_arrive_as_the_same_picture(lossless: tuple[Publisher, Subscriber]) -> None:
    pub, sub = lossless
    picture = np.arange(24, dtype=np.uint16).reshape(4, 6)
    for pixels in (picture, picture[::2, ::-1], np.asfortranarray(picture), picture.astype(">u2")):
        pub.publish(numbered(0, pixels=pixels), Drops())
        message = sub.read(timeout_s=10)
        assert message is not None
        np.testing.assert_array_equal(message.frame.pixels, pixels)


def test_a_stuck_subscriber_neither_slows_us_nor_costs_another_one_a_frame() -> None:
    n = 400
    with publisher(fps_hint=16) as pub, Subscriber(pub.endpoint) as stuck, Subscriber(pub.endpoint) as healthy:
        assert pub.wait_for_subscribers(2, timeout_s=10)
        pixels = np.empty(SHAPE, np.uint16)
        for k in range(n):
            pixels.fill(k)
            pub.publish(numbered(k, pixels=pixels), Drops())
            read_all(healthy, 1, [])
        assert (healthy.received, healthy.missed) == (n, 0)
        arrived: list[int] = []
        while (message := stuck.read(timeout_s=0.2)) is not None:
            assert message.frame.pixels.min() == message.frame.pixels.max() == message.frame.stamp.frame
            arrived.append(message.frame.stamp.frame)
        pub.publish(numbered(n), Drops())
        read_all(stuck, 1, arrived)
        assert arrived == sorted(arrived)
        assert 0 < stuck.missed == n + 1 - stuck.received


def test_a_lossless_publisher_waits_for_a_slow_subscriber_until_asked_to_stop() -> None:
    stop = threading.Event()
    with publisher(lossless=True, fps_hint=16, stopping=stop.is_set) as pub, Subscriber(pub.endpoint) as sub:
        assert pub.wait_for_subscribers(1, timeout_s=10)
        sent: list[int] = []

        def send() -> None:
            while pub.publish(numbered(len(sent)), Drops()):
                sent.append(len(sent))

        sender = threading.Thread(target=send)
        sender.start()
        blocked_at = -1
        while blocked_at != len(sent):
            blocked_at = len(sent)
            sender.join(0.3)
        stop.set()
        began = time.monotonic()
        sender.join()
        assert time.monotonic() - began < 0.5
        seen: list[int] = []
        read_all(sub, len(sent), seen)
        assert seen == sent
        assert (sub.read(timeout_s=0.1), sub.missed) == (None, 0)


def test_a_lossless_publisher_delivers_what_it_took_before_it_closes() -> None:
    seen: list[int] = []
    pub = publisher(lossless=True)
    with Subscriber(pub.endpoint) as sub:
        assert pub.wait_for_subscribers(1, timeout_s=10)
        for k in range(12):
            pub.publish(numbered(k), Drops())
        closing = threading.Thread(target=pub.close)
        closing.start()
        read_all(sub, 12, seen)
        closing.join()
    assert seen == list(range(12))


def test_a_lossless_run_ends_loudly_when_its_subscriber_leaves(lossless: tuple[Publisher, Subscriber]) -> None:
    pub, sub = lossless
    pub.publish(numbered(0), Drops())
    sub.close()
    with pytest.raises(WireError, match="a subscriber left"):
        publish_for_ever(pub)


def test_waiting_for_subscribers_that_do_not_come_ends() -> None:
    with publisher() as pub:
        assert not pub.wait_for_subscribers(1, timeout_s=0.05)


def test_newest_passes_over_what_is_older_and_counts_it(lossless: tuple[Publisher, Subscriber]) -> None:
    pub, sub = lossless
    for k in range(5):
        pub.publish(numbered(k), Drops())
    seen = -1
    while seen < 4:
        message = sub.newest(timeout_s=10)
        assert message is not None
        assert message.frame.stamp.frame > seen
        seen = message.frame.stamp.frame
        n_shown = sub.received - sub.skipped
    assert (sub.received, sub.missed, n_shown >= 1) == (5, 0, True)
    assert sub.newest(timeout_s=0) is None


def test_a_new_series_starts_the_count_again_and_the_old_one_never_returns(
    lossless: tuple[Publisher, Subscriber],
) -> None:
    pub, sub = lossless
    for frame in (numbered(7, "a"), numbered(9, "a"), numbered(1, "b"), numbered(10, "a"), numbered(2, "b")):
        pub.publish(frame, Drops())
    stamps = [message.frame.stamp for message in (sub.read(10), sub.read(10), sub.read(10), sub.read(10)) if message]
    assert [(stamp.series, stamp.frame) for stamp in stamps] == [("a", 7), ("a", 9), ("b", 1), ("b", 2)]
    assert (sub.missed, sub.stray) == (2, 1)


def test_messages_that_are_not_frames_are_counted_and_passed_over() -> None:
    with zmq.Context() as context, context.socket(zmq.XPUB) as socket:
        socket.bind(ANY_PORT)
        with Subscriber(socket.getsockopt_string(zmq.LAST_ENDPOINT)) as sub:
            socket.recv()
            good = json.dumps({"htype": "array-1.0", "shape": [1, 2], "type": "uint8", "frame": 3}).encode()
            foreign = b'{"htype":"other-1.0"}'
            for parts in ([b"x"], [good, b"123"], [foreign, b""], [good] * 5, [good, b"12"]):
                socket.send_multipart(parts)
            message = sub.read(timeout_s=10)
        assert message is not None
        assert message.frame.stamp.frame == 3
        assert (sub.received, sub.bad, sub.foreign) == (1, 3, 1)
        socket.close(linger=0)


def test_a_subscriber_can_ask_for_one_stream_of_a_shared_endpoint() -> None:
    with publisher() as pub, Subscriber(pub.endpoint, stream="denoised") as other, Subscriber(pub.endpoint) as every:
        assert pub.wait_for_subscribers(2, timeout_s=10)
        pub.publish(numbered(0), Drops())
        assert every.read(timeout_s=10) is not None
        assert other.read(timeout_s=0.05) is None


def test_ten_lines_of_plain_python_read_the_stream() -> None:
    with publisher() as pub, zmq.Context() as context, context.socket(zmq.SUB) as socket:
        socket.subscribe(b"")
        socket.connect(pub.endpoint)
        assert pub.wait_for_subscribers(1, timeout_s=10)
        pub.publish(numbered(5), Drops())
        header, pixels = socket.recv_multipart()
        facts = json.loads(header)
        image = np.frombuffer(pixels, facts["type"]).reshape(facts["shape"])
        assert (facts["frame"], int(image[100, 200])) == (5, 5)


def test_a_busy_port_is_named_with_what_to_do() -> None:
    with publisher() as pub, pytest.raises(WireError, match=f"{pub.endpoint}: the port is in use, .* another port"):
        Publisher(pub.endpoint, FACTS, frame_bytes=N_BYTES)


@pytest.mark.parametrize("endpoint", ["tcp://*:5999", "tcp://0.0.0.0:5999", "tcp://192.0.2.1:5999", "tcp://[::]:5999"])
def test_other_machines_are_not_served(endpoint: str) -> None:
    with pytest.raises(WireError, match="SSH tunnel"):
        Publisher(endpoint, FACTS, frame_bytes=N_BYTES)


def test_the_default_socket_listens_on_this_machine_only() -> None:
    with publisher() as pub:
        port = int(pub.endpoint.rpartition(":")[2])
        bound = [
            c.laddr.ip for c in psutil.Process().net_connections("tcp") if c.laddr.port == port and c.status == "LISTEN"
        ]
    assert bound == ["127.0.0.1"]


@pytest.mark.parametrize(
    "make", [lambda e: Publisher(e, FACTS, frame_bytes=1), Subscriber, StatusSubscriber, StatusPublisher]
)
def test_a_malformed_endpoint_is_refused(make: object) -> None:
    with pytest.raises(WireError, match="an endpoint looks like"):
        make("127.0.0.1:80")  # type: ignore[operator]


def test_a_port_can_be_bound_again_at_once_and_nothing_is_left_behind() -> None:
    with publisher() as first:
        endpoint = first.endpoint
    process = psutil.Process()
    before: tuple[int, int] | None = None
    for cycle in range(20):
        with Publisher(endpoint, FACTS, frame_bytes=N_BYTES) as pub, Subscriber(endpoint) as sub:
            assert pub.wait_for_subscribers(1, timeout_s=10)
            pub.publish(numbered(0, series=str(cycle)), Drops())
            assert sub.read(timeout_s=10) is not None
        n_handles = process.num_handles() if hasattr(process, "num_handles") else process.num_fds()
        before = before or (n_handles, process.num_threads())
    assert (n_handles, process.num_threads()) <= before


def test_a_subscriber_follows_a_publisher_that_starts_again() -> None:
    with publisher() as first, Subscriber(first.endpoint) as sub:
        endpoint = first.endpoint
        assert first.wait_for_subscribers(1, timeout_s=10)
        first.publish(numbered(0, "a"), Drops())
        assert sub.read(timeout_s=10) is not None
        first.close()
        with Publisher(endpoint, FACTS, frame_bytes=N_BYTES) as second:
            assert any(second.wait_for_subscribers(1, timeout_s=0.05) or sub.read(timeout_s=0) for _ in range(200))
            second.publish(numbered(0, "b"), Drops())
            message = sub.read(timeout_s=10)
    assert message is not None
    assert (message.frame.stamp.series, sub.missed) == ("b", 0)


@pytest.mark.parametrize(
    ("frame_bytes", "fps", "expected"),
    [(2**19, 100, 50), (2**19, 3, 8), (2**20, 1000, MAX_QUEUED_BYTES // 2**20), (2**28, 30, 8)],
)
def test_the_queue_of_a_subscriber_is_half_a_second_within_bounds(frame_bytes: int, fps: float, expected: int) -> None:
    assert high_water_mark(frame_bytes, fps) == expected


def test_status_messages_arrive_as_they_were_sent() -> None:
    with StatusPublisher(ANY_PORT) as pub, StatusSubscriber(pub.endpoint) as sub:
        pub.start({"series": "a", "source": "demo", "shape": [4, 5], "objective": {"na": 1.05}})
        counters = {"acquired": 10, "delivered": 7, "dropped": {"input: drop_oldest": 2}, "in_flight": 1}
        messages = []
        while len(messages) < 3:
            pub.status({**counters, "mode": "denoising", "age": {"p50_ms": 12.5}})
            message = sub.read(timeout_s=0.1)
            if message is not None and type(message) not in map(type, messages):
                messages.append(message)
            if len(messages) == 2:
                pub.end(count=7, reason="ok", dropped={"input: drop_oldest": 2}, acquired=9)
        start, status, end = sorted(messages, key=lambda m: ["start", "status", "end"].index(m.htype.split("-")[1]))
    assert isinstance(start, StartMessage)
    assert isinstance(status, StatusMessage)
    assert isinstance(end, EndMessage)
    assert (start.shape, start.model_extra) == ((4, 5), {"objective": {"na": 1.05}})
    assert (status.series, status.age.p50_ms, status.n_dropped, status.balanced) == ("a", 12.5, 2, True)
    assert (end.count, end.reason, end.balanced) == (7, "ok", True)


def test_age_is_known_on_the_same_host_only() -> None:
    here = StartMessage(series="a", epoch_ns=time.perf_counter_ns() - 5_000_000)
    age = here.age_ms(t_in=2_000_000)
    assert here.host == host_id()
    assert age is not None
    assert 3 <= age < 1000
    assert here.model_copy(update={"host": "elsewhere"}).age_ms(0) is None


def test_an_unbalanced_account_is_noticed() -> None:
    assert not Counters(htype="x", acquired=10, delivered=8, dropped={"source: overflow": 1}).balanced


@pytest.mark.parametrize(
    "part",
    [
        b"",
        b"{}",
        b"[1]",
        b"\xff",
        b"[" * 50_000,
        b'{"htype":"array-1.0"}',
        b'{"htype":["x"]}',
        b'{"htype":"rtdenoise-end-1.0"}',
    ],
)
def test_what_is_not_a_status_message_is_refused(part: bytes) -> None:
    with pytest.raises(WireError, match="status message"):
        from_json(part)


def test_a_status_message_starts_with_its_htype_and_ignores_later_keys() -> None:
    sent = StatusMessage(series="a").to_json()
    assert sent.startswith(b'{"htype":"rtdenoise-status-1.0"')
    assert isinstance(from_json(sent[:-1] + b',"later":1}'), StatusMessage)


def test_a_wrong_status_field_is_refused_where_it_is_sent() -> None:
    with StatusPublisher(ANY_PORT) as pub, pytest.raises(WireError, match="series"):
        pub.start({"source": "demo"})


def test_whoever_comes_late_is_told_at_once_what_is_being_run() -> None:
    with StatusPublisher(ANY_PORT) as pub:
        pub.start({"series": "a", "source": "demo"})
        with StatusSubscriber(pub.endpoint) as late:
            greetings = []
            for _ in range(200):
                pub.greet()
                if (message := late.read(timeout_s=0.02)) is not None:
                    greetings.append(message)
                if len(greetings) == 1:
                    break
            assert [type(message) for message in greetings] == [StartMessage]
            pub.greet()
            assert late.read(timeout_s=0.15) is None
