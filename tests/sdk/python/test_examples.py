"""The files below examples/, run as they are: a receiver that gets real deliveries,
and the short programs."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

from conftest import DEADLINE, MODEL, OFFPEAK_URL, Turn, chat, new_key, own_api

EXAMPLES = Path(__file__).parents[3] / "examples"


class Program:
    """An example that runs, and what it says."""

    def __init__(self, path: str, **environment: str):
        self.process = subprocess.Popen(
            [sys.executable, EXAMPLES / path],
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()

    def until(self, start: str) -> str:
        """The next line that begins so; the lines before it are not awaited any more.
        Where none comes the program is ended, and with it the wait."""
        patience = threading.Timer(60, self.process.kill)
        patience.start()
        try:
            for line in self.process.stdout:
                if line.startswith(start):
                    return line
        finally:
            patience.cancel()
        raise AssertionError(f"it ended without {start!r}")


def deliver(url: str, secret: str, event: str, body: bytes, at: int, signed: bytes) -> int:
    """A delivery by hand; the signature is over `signed`."""
    content = f"{event}.{at}.".encode() + signed
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signature = base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()
    request = urllib.request.Request(
        url,
        data=body,
        headers={
            "webhook-id": event,
            "webhook-timestamp": str(at),
            "webhook-signature": f"v1,{signature}",
        },
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status
    except urllib.error.HTTPError as error:
        return error.code


def test_a_receiver_takes_what_is_signed_once_and_nothing_else(client, question, tmp_path):
    secret = own_api(client, "webhook-secret")["secret"]
    with Turn() as turn:
        own = {
            "OFFPEAK_WEBHOOK_SECRET": secret,
            "OPENAI_API_KEY": client.api_key,
            "PORT": str(turn.port),
            "INBOX": str(tmp_path / "inbox.db"),
        }
        with Program("webhooks/receiver.py", **own) as receiver:
            receiver.until("listens on")
            op = client.chat.completions.with_raw_response.create(
                **chat(question), extra_headers={**DEADLINE, "Offpeak-Webhook": turn.url}
            ).parse().id
            kept = receiver.until("kept: evt_")
            worked = receiver.until("offpeak.request.succeeded: ")
            assert worked.startswith(f"offpeak.request.succeeded: {op} 200 ")
            assert question in worked

            own_api(client, f"requests/{op}/redeliver", "POST")
            again = receiver.until("known already: ")
            assert again.split(": ")[1] == kept.split(": ")[1]

            event, body, now = "evt_forged", b'{"type":"x","data":{}}', int(time.time())
            other = "whsec_" + base64.b64encode(b"x" * 32).decode()
            for key, at, signed in [
                (secret, now, body + b" "),
                (secret, now - 3600, body),
                (other, now, body),
            ]:
                assert deliver(turn.url, key, event, body, at, signed) == 400
                receiver.until("refused: ")
            # The forger's own means would do with the secret: the refusals were earned.
            assert deliver(turn.url, secret, event, body, now, body) == 204
            receiver.until("kept: evt_forged")


def test_the_short_program(question):
    ran = subprocess.run(
        [sys.executable, EXAMPLES / "python.py", question],
        env={
            **os.environ,
            "OPENAI_BASE_URL": f"{OFFPEAK_URL}/v1",
            "OPENAI_API_KEY": new_key(),
            "MODEL": MODEL,
        },
        capture_output=True,
        text=True,
        timeout=80,
    )
    assert ran.returncode == 0, ran.stderr
    assert question in ran.stdout
    assert "batch" in ran.stdout


def test_curl(question):
    ran = subprocess.run(
        ["bash", EXAMPLES / "curl.sh", question],
        env={**os.environ, "OFFPEAK": OFFPEAK_URL, "OPENAI_API_KEY": new_key()},
        capture_output=True,
        text=True,
        timeout=80,
    )
    assert ran.returncode == 0, ran.stderr
    assert question in ran.stdout
