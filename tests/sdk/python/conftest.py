"""What the tests need of the world: the servers' addresses, clients, the
provider's log, and a webhook receiver."""

from __future__ import annotations

import fcntl
import json
import os
import queue
import threading
import time
import urllib.request
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from openai import OpenAI

OFFPEAK_URL = os.environ["OFFPEAK_URL"].rstrip("/")
SIM_URL = os.environ["SIM_URL"].rstrip("/")
SIM_SPEED = float(os.environ.get("SIM_SPEED", "60"))
DRIP_AFTER = float(os.environ.get("DRIP_AFTER", "2"))
MODEL = "gpt-4o-mini"
DEADLINE = {"Offpeak-Deadline": "6h"}


def connect(**options) -> OpenAI:
    """A client as an app makes it, but for the address and the key. A key of its
    own makes it a tenant of its own: its calls share no batch with the calls of
    other tests, whose slow lines it would wait for."""
    return OpenAI(**{"base_url": f"{OFFPEAK_URL}/v1", "api_key": new_key(), **options})


def new_key() -> str:
    return f"sk-{uuid.uuid4().hex}"


@pytest.fixture
def client():
    with connect() as client:
        yield client


@pytest.fixture
def question() -> str:
    """A question that nobody has asked before; the provider's log finds it."""
    return ask_anew()


def ask_anew() -> str:
    return f"What is {uuid.uuid4().hex}?"


def chat(text: str, **more) -> dict:
    """Arguments of an ordinary chat call."""
    return {"model": MODEL, "messages": [{"role": "user", "content": text}], **more}


def directed(directive: str) -> dict:
    """Steers the simulator."""
    return {"metadata": {"sim": directive}}


def slow(seconds: float, more: str = "") -> dict:
    """The provider takes this much longer, in real seconds."""
    return directed(f"slow={round(seconds * SIM_SPEED * 1000)}ms {more}".strip())


def provider_log() -> dict:
    with urllib.request.urlopen(f"{SIM_URL}/sim/log", timeout=10) as response:
        return json.load(response)


def seen(text: str) -> list[dict]:
    """What the provider noted about a question: nothing if it never came."""
    return [entry for entry in provider_log()["requests"] if text in entry["prompt"]]


def tries(text: str) -> int:
    """How often the provider worked on a question, in every lane, failures included."""
    return sum(sum(entry["runs"].values()) + entry["failures"] for entry in seen(text))


def batch_lines(text: str) -> int:
    """How many batch lines asked a question."""
    return sum(len(entry["batches"]) for entry in seen(text))


def own_api(client: OpenAI, path: str, method: str = "GET", body: dict | None = None) -> dict:
    """Calls Offpeak's own namespace with a client's key."""
    request = urllib.request.Request(
        f"{OFFPEAK_URL}/offpeak/v1/{path}",
        headers={"Authorization": f"Bearer {client.api_key}"},
        method=method,
        data=None if body is None else json.dumps(body).encode(),
    )
    with urllib.request.urlopen(request, timeout=10) as response:
        return json.load(response)


def purchases(client: OpenAI) -> int:
    """How many requests the proxy took in with a client's key."""
    page = own_api(client, "requests?limit=100")
    assert not page["has_more"]
    return len(page["data"])


def wait_for_purchase(client: OpenAI) -> None:
    """Until a call that another thread makes is on the proxy's disk."""
    give_up = time.monotonic() + 30
    while purchases(client) == 0:
        assert time.monotonic() < give_up, "the call never arrived"


class Turn:
    """WEBHOOK_PORT, which the test processes have in turn."""

    def __init__(self):
        self.port = int(os.environ["WEBHOOK_PORT"])
        self.url = f"http://127.0.0.1:{self.port}/hook"

    def __enter__(self):
        self.lock = open(__file__)
        fcntl.flock(self.lock, fcntl.LOCK_EX)
        return self

    def __exit__(self, *_):
        self.lock.close()


class Receiver:
    """Takes webhooks. The first delivery is refused with 503 when `fail_first` is set,
    so that a second attempt must come."""

    def __init__(self, fail_first: bool = False):
        self.deliveries: queue.Queue[tuple[dict, bytes]] = queue.Queue()
        receiver = self
        failures = [503] if fail_first else []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.deliveries.put((dict(self.headers.items()), body))
                self.send_response(failures.pop() if failures else 204)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.turn = Turn()
        self.url = self.turn.url
        self.handler = Handler

    def __enter__(self):
        self.turn.__enter__()
        self.server = ThreadingHTTPServer(("127.0.0.1", self.turn.port), self.handler)
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()
        self.turn.__exit__()

    def next(self, timeout: float = 60) -> tuple[dict, bytes]:
        return self.deliveries.get(timeout=timeout)
