"""Takes Offpeak's webhooks: verifies, keeps, answers, and only then works.

    pip install openai
    OFFPEAK_WEBHOOK_SECRET=whsec_... python receiver.py

PORT (9000) is where it listens, on loopback: put TLS in front. INBOX (inbox.db) is
the file that keeps events until they are worked on. OPENAI_API_KEY, the key that the
calls were made with, fetches answers that are too large for a webhook.
"""

import json
import os
import sqlite3
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from openai import InvalidWebhookSignatureError, OpenAI

SECRET = os.environ["OFFPEAK_WEBHOOK_SECRET"]
KEY = os.environ.get("OPENAI_API_KEY", "none")
PORT = int(os.environ.get("PORT", "9000"))
INBOX = os.environ.get("INBOX", "inbox.db")
# Above `webhook.max_inline_bytes`, escapes and all.
MAX_BODY = 4 * 1024 * 1024

webhooks = OpenAI(api_key=KEY).webhooks
arrived = threading.Event()


def inbox() -> sqlite3.Connection:
    db = sqlite3.connect(INBOX, timeout=10)
    db.execute("CREATE TABLE IF NOT EXISTS events (id TEXT PRIMARY KEY, body BLOB, done INTEGER)")
    return db


class Receiver(BaseHTTPRequestHandler):
    timeout = 10

    def do_POST(self):
        length = int(self.headers.get("Content-Length") or 0)
        if not 0 < length <= MAX_BODY:
            return self.answer(413)
        # The signature is over these bytes: not over what a JSON parser makes of them.
        body = self.rfile.read(length)
        try:
            webhooks.verify_signature(body, dict(self.headers.items()), secret=SECRET)
        except (InvalidWebhookSignatureError, ValueError) as error:
            print(f"refused: {error}", flush=True)
            return self.answer(400)
        # The same event can come again, always under the same id: it is kept once.
        event = self.headers["webhook-id"]
        with inbox() as db:
            new = db.execute("INSERT OR IGNORE INTO events VALUES (?, ?, 0)", (event, body)).rowcount
        print(f"{'kept' if new else 'known already'}: {event}", flush=True)
        # It is on disk: Offpeak need not send it again, whatever happens to us.
        self.answer(204)
        arrived.set()

    def answer(self, status: int):
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def work():
    """What may take its time. An event is done when the work is: should we be killed
    in between, it is worked on again."""
    db = inbox()
    while True:
        for event, body in db.execute("SELECT id, body FROM events WHERE NOT done").fetchall():
            use(json.loads(body))
            with db:
                db.execute("UPDATE events SET done = 1 WHERE id = ?", (event,))
        arrived.wait()
        arrived.clear()


def use(event: dict):
    """Your part."""
    kind, data = event["type"], event["data"]
    if not kind.startswith("offpeak.request."):
        return  # a test event, or a type that came after this was written
    answer = data["response"] if "response" in data else fetch(data["result_url"])
    print(f"{kind}: {data['id']} {data['status_code']} {json.dumps(answer)}", flush=True)


def fetch(url: str):
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {KEY}"})
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)


if __name__ == "__main__":
    threading.Thread(target=work, daemon=True).start()
    with ThreadingHTTPServer(("127.0.0.1", PORT), Receiver) as server:
        print(f"listens on http://127.0.0.1:{PORT}/", flush=True)
        server.serve_forever()
