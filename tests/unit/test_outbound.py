"""What the HTTP client may connect to, and what it does with names, TLS and redirects."""

import asyncio
import contextlib
import socket
import ssl
import threading
import time

import pytest
import uvloop

from offhook.lookup import MOST
from offhook.outbound import (
    OPERATOR,
    STRANGER,
    OutboundClient,
    OutboundError,
    OutboundPolicy,
    check_url,
    judge_address,
)
from testbed.waiting import until

LOOPBACK = OutboundPolicy(loopback=True)
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nset-cookie: a=b\r\n\r\nok"


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "::1",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",  # cloud metadata
        "100.64.0.1",  # shared address space
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "fe80::1",
        "fd00::1",
        "::",
        "ff02::1",
        "::ffff:10.0.0.1",
        "::ffff:127.0.0.1",
        "2002:7f00:1::1",  # 6to4 of 127.0.0.1
        "64:ff9b::a9fe:a9fe",  # NAT64 of 169.254.169.254
        "64:ff9b:1::a9fe:a9fe",  # the same, by a network's own prefix (RFC 8215)
        "64:ff9b:1::5db8:d822",  # which is nobody's but that network's
        "::127.0.0.1",  # IPv4-compatible
        "::ffff:0:10.0.0.1",  # IPv4-translated
        "::1%1",
        "fe80::1%eth0",
        "fec0::1",  # site-local, as it was
        "3fff::1",  # documentation
        "4000::1",  # given to nobody
    ],
)
def test_a_stranger_may_not_point_at(address):
    assert judge_address(address, STRANGER) is not None


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:2800:220:1::1", "64:ff9b::5db8:d822"])
def test_a_stranger_may_point_at(address):
    assert judge_address(address, STRANGER) is None


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "fd00::1", "93.184.216.34", "169.254.1.1"])
def test_the_operator_may_point_at(address):
    assert judge_address(address, OPERATOR) is None


@pytest.mark.parametrize("address", ["0.0.0.0", "224.0.0.1", "ff02::1"])
def test_nobody_may_point_at(address):
    assert judge_address(address, OPERATOR) is not None


def test_loopback_and_private_are_two_things():
    assert judge_address("127.0.0.1", LOOPBACK) is None
    assert judge_address("10.0.0.1", LOOPBACK) is not None
    assert judge_address("127.0.0.1", OutboundPolicy(private=True)) is not None


@pytest.mark.parametrize(
    "address", ["169.254.169.254", "fe80::1", "64:ff9b::a9fe:a9fe", "::ffff:169.254.169.254"]
)
def test_a_private_network_is_not_where_a_cloud_keeps_its_keys(address):
    assert judge_address(address, OutboundPolicy(private=True)) is not None
    assert judge_address("10.0.0.1", OutboundPolicy(private=True)) is None


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("https://127.0.0.1/", "refused"),
        ("https://2130706433/", "refused"),
        ("https://0x7f000001/", "refused"),
        ("https://127.1/", "refused"),
        ("https://0/", "refused"),
        ("https://[::ffff:7f00:1]/", "refused"),
        ("https://[fe80::1%25eth0]/", "refused"),
        ("https://example.com@127.0.0.1/", "url"),
        ("https://127.0.0.1#@example.com/", "refused"),
        ("https://127。0。0。1/", "refused"),
        ("https://localhost/", "refused"),
        ("https://LOCALHOST./", "refused"),
        ("https://app.localhost/", "refused"),
        ("http://app.example/", "refused"),
        ("https://user:pass@app.example/", "url"),
        ("https://0177.0.0.1/", "url"),
        ("https://%31%32%37.0.0.1/", "url"),
        ("https://app.example:0/", "url"),
        ("https://app.example:65536/", "url"),
        ("https://app example/", "url"),
        ("https://app..example/", "url"),
        (f"https://{'a' * 64}.example/", "url"),
        ("https://app.example/\r\nx: y", "url"),
        ("ftp://app.example/", "url"),
    ],
)
def test_what_can_be_read_off_a_strangers_url_is_refused_before_it_is_used(url, kind):
    with pytest.raises(OutboundError) as caught:
        check_url(url, STRANGER)
    assert caught.value.kind == kind


@pytest.mark.parametrize(
    "url",
    [
        "https://app.example/",
        "https://app.example.:8443/a?b=c",
        "https://my_app.example/",
        "https://bücher.example/",
        "https://93.184.216.34/",
        "https://[2606:2800:220:1::1]/",
    ],
)
def test_a_strangers_url_that_may_be_good(url):
    check_url(url, STRANGER)


@contextlib.asynccontextmanager
async def serving(tls=None, answer=OK):
    requests, writers = [], []

    async def serve(reader, writer):
        writers.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                requests.append(head + await reader.readexactly(length))
                writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1], requests
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
        await asyncio.sleep(0)


@pytest.fixture
async def client():
    client = OutboundClient()
    yield client
    await client.close()


async def post(client, url, policy=OPERATOR, **options):
    return await client.post(url, content=b"body", headers=[("X-Case", "kept")], policy=policy, **options)


def answers(monkeypatch, *rounds):
    """Make DNS answer with these lists of addresses, one after the other; return the names that were asked."""
    asked, left = [], list(rounds)

    def getaddrinfo(host, port, **kwargs):
        asked.append(host)
        addresses = left.pop(0)
        if not addresses:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked


@pytest.fixture
def silence(monkeypatch):
    """Names of `.silent` get no answer while the test lasts."""
    over, asked, real = threading.Event(), [], socket.getaddrinfo

    def getaddrinfo(host, port, **kwargs):
        asked.append(host)
        if not host.endswith(".silent"):
            return real(host, port, **kwargs)
        over.wait(60)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    yield asked
    over.set()


async def test_the_request_is_sent_as_given(client):
    async with serving() as (port, requests):
        response = await post(client, f"http://127.0.0.1:{port}/a/b?c=%20d")
    assert (response.status, response.body, response.truncated) == (200, b"ok", False)
    head, _, body = requests[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /a/b?c=%20d HTTP/1.1\r\n")
    assert b"X-Case: kept" in head
    assert body == b"body"


async def test_a_server_that_never_speaks_tls_is_let_go_when_the_time_is_up(client):
    left = asyncio.Event()

    async def serve(reader, writer):
        while await reader.read(1000):
            pass
        left.set()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(OutboundError, match="no answer within"):
            await post(client, f"https://127.0.0.1:{port}/", timeout=0.1)
        async with asyncio.timeout(15):
            await left.wait()


@pytest.mark.parametrize("host", ["a" * 64 + ".example", "a..example"])
async def test_what_cannot_be_a_name_is_not_tried_again(client, host):
    with pytest.raises(OutboundError) as caught:
        await post(client, f"https://{host}/")
    assert (caught.value.kind, caught.value.permanent) == ("url", True)


async def test_a_proxy_of_the_environment_is_not_used(client, monkeypatch):
    async with serving() as (proxy, asked), serving() as (port, requests):
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy}")
        await post(client, f"http://127.0.0.1:{port}/")
    assert (len(asked), len(requests)) == (0, 1)


async def test_a_redirect_is_the_answer(client):
    async with serving() as (inside, reached):
        answer = f"HTTP/1.1 307 X\r\nlocation: http://127.0.0.1:{inside}/\r\ncontent-length: 0\r\n\r\n"
        async with serving(answer=answer.encode()) as (port, _):
            response = await post(client, f"http://127.0.0.1:{port}/")
    assert (response.status, reached) == (307, [])


async def test_no_cookie_is_kept(client):
    async with serving() as (port, requests):
        for _ in range(2):
            await post(client, f"http://127.0.0.1:{port}/")
    assert b"cookie" not in requests[1].lower()


async def test_the_checked_address_is_the_one_connected_to(client, monkeypatch):
    async with serving() as (port, requests):
        asked = answers(monkeypatch, ["127.0.0.1"], ["10.255.255.1"])
        response = await post(client, f"http://app.example:{port}/")
        assert response.status == 200
    assert asked == ["app.example"]
    assert f"host: app.example:{port}".encode() in requests[0]


async def test_a_name_that_leads_to_a_private_address_is_refused(client, monkeypatch):
    asked = answers(monkeypatch, ["93.184.216.34", "10.0.0.1"])
    with pytest.raises(OutboundError) as caught:
        await post(client, "https://rebind.example/", STRANGER)
    assert (caught.value.kind, caught.value.permanent) == ("refused", True)
    assert "10.0.0.1" in str(caught.value)
    assert asked == ["rebind.example"]


async def test_a_connection_made_for_the_operator_is_not_lent_to_a_stranger(client):
    async with serving() as (port, requests):
        await post(client, f"http://127.0.0.1:{port}/")
        with pytest.raises(OutboundError) as caught:
            await post(client, f"https://127.0.0.1:{port}/", STRANGER)
    assert caught.value.kind == "refused"
    assert len(requests) == 1


async def test_plain_http_needs_leave_unless_it_stays_on_this_machine(client):
    with pytest.raises(OutboundError, match="not https") as caught:
        await post(client, "http://app.example/", STRANGER)
    assert caught.value.kind == "refused"
    async with serving() as (port, _):
        assert (await post(client, f"http://127.0.0.1:{port}/", LOOPBACK)).status == 200


async def test_a_name_that_does_not_resolve(client, monkeypatch):
    answers(monkeypatch, [])
    with pytest.raises(OutboundError, match=r"cannot resolve nowhere\.example") as caught:
        await post(client, "https://nowhere.example/")
    assert (caught.value.kind, caught.value.permanent) == ("dns", False)


async def test_the_next_address_is_tried_when_one_refuses(client, monkeypatch):
    async with serving() as (port, _):
        answers(monkeypatch, ["127.0.0.2", "127.0.0.1"])
        assert (await post(client, f"http://app.example:{port}/")).status == 200


async def test_a_server_that_speaks_no_tls_is_said_to(client):
    async def serve(reader, writer):
        writer.write(b"SSH-2.0-nonsense\r\n")
        await writer.drain()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    with pytest.raises(OutboundError, match=r"TLS with 127\.0\.0\.1 failed: \w+") as caught:
        await post(client, f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
    server.close()
    assert caught.value.kind == "tls"


async def test_tls_is_verified(tmp_path):
    from offhook.certificates import development_certificate, server_context

    files = development_certificate(tmp_path, ("localhost", "127.0.0.1"))
    trusting = ssl.create_default_context(cafile=str(files.ca))
    async with serving(tls=server_context(files)) as (port, _):
        stranger, friend = OutboundClient(), OutboundClient(tls=trusting)
        with pytest.raises(OutboundError) as caught:
            await post(stranger, f"https://127.0.0.1:{port}/")
        assert caught.value.kind == "tls"
        assert (await post(friend, f"https://127.0.0.1:{port}/")).status == 200
        await stranger.close()
        await friend.close()


async def test_a_long_answer_is_cut(client):
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n" + b"x" * 100_000
    async with serving(answer=answer) as (port, _):
        response = await post(client, f"http://127.0.0.1:{port}/", max_body=1000)
    assert (len(response.body), response.truncated) == (1000, True)


async def test_a_head_without_end_is_an_error(client):
    async with serving(answer=b"HTTP/1.1 200 OK\r\nx: " + b"y" * 300_000) as (port, _):
        with pytest.raises(OutboundError) as caught:
            await post(client, f"http://127.0.0.1:{port}/")
    assert caught.value.kind == "protocol"


async def test_silence_ends_with_the_timeout(client):
    async with serving(answer=b"") as (port, _):
        with pytest.raises(OutboundError, match=r"no answer within 0\.05 s") as caught:
            await post(client, f"http://127.0.0.1:{port}/", timeout=0.05)
    assert caught.value.kind == "timeout"


async def test_a_name_server_that_never_answers_is_not_held_against_the_server(client, silence):
    with pytest.raises(OutboundError, match=r"no connection within 0\.05 s") as caught:
        await post(client, "http://app.silent/", timeout=0.05)
    assert caught.value.kind == "connect"


async def test_names_without_an_answer_hold_up_no_others(client, silence):
    """One project's dead names must not keep another's webhooks: the loop has four threads for all of them."""
    dead = [asyncio.create_task(post(client, f"http://app{number}.silent/")) for number in range(40)]
    await until(lambda: len(silence) == 40)
    async with serving() as (port, _):
        assert (await post(client, f"http://localhost:{port}/", timeout=20)).status == 200
    for task in dead:
        task.cancel()
    await asyncio.gather(*dead, return_exceptions=True)


async def test_a_name_is_looked_up_once_for_all_who_want_it_now(client, silence):
    dead = [asyncio.create_task(post(client, "http://app.silent/")) for _ in range(40)]
    await until(lambda: silence)
    for _ in range(5):
        await asyncio.sleep(0.01)
    assert silence == ["app.silent"]
    for task in dead:
        task.cancel()
    await asyncio.gather(*dead, return_exceptions=True)


async def test_names_without_an_answer_are_bounded(client, silence):
    dead = [asyncio.create_task(post(client, f"http://app{number}.silent/")) for number in range(MOST)]
    await until(lambda: len(silence) == MOST)
    with pytest.raises(OutboundError, match="names are being looked up") as caught:
        await post(client, "http://one-more.silent/")
    assert (caught.value.kind, caught.value.permanent) == ("dns", False)
    for task in dead:
        task.cancel()
    await asyncio.gather(*dead, return_exceptions=True)


def test_a_loop_can_be_closed_while_a_name_gets_no_answer(silence):
    async def ask():
        client = OutboundClient()
        with pytest.raises(OutboundError):
            await post(client, "http://app.silent/", timeout=0.05)
        await client.close()

    began = time.monotonic()
    uvloop.run(ask())
    assert time.monotonic() - began < 30  # or it waits for the end of the silence


async def test_a_closed_client_sends_nothing(client):
    await client.close()
    with pytest.raises(OutboundError, match="closed"):
        await post(client, "http://127.0.0.1:9/")


async def test_what_must_not_be_done_twice_is_not_sent_on_a_kept_connection(client):
    """A server may take a request and close the kept connection before it answers: then it came to it once."""
    taken = []

    async def serve(reader, writer):
        try:
            for number in range(2):
                head = await reader.readuntil(b"\r\n\r\n")
                taken.append(head)
                await reader.readexactly(4)
                if number or b"connection: close" in head.lower():
                    break
                writer.write(OK)
        except asyncio.IncompleteReadError:
            pass  # the kept connection is closed when the test is over
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        await post(client, url)
        with pytest.raises(OutboundError):
            await post(client, url, once=True)
        await client.close()
    assert len(taken) == 2
    assert b"connection: close" in taken[1].lower()
