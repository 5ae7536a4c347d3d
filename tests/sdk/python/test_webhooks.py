"""Results delivered to a receiver of ours and verified by the SDK."""

from __future__ import annotations

import json

import openai
import pytest

from conftest import DEADLINE, Receiver, chat, directed, own_api, tries


def submit(client, receiver, text, **more):
    raw = client.chat.completions.with_raw_response.create(
        **chat(text, **more), extra_headers={**DEADLINE, "Offpeak-Webhook": receiver.url}
    )
    assert raw.status_code == 202
    return raw.parse().id


def lowered(headers: dict) -> dict:
    return {name.lower(): value for name, value in headers.items()}


def test_success_is_delivered_and_verified(client, question):
    secret = own_api(client, "webhook-secret")["secret"]
    with Receiver() as receiver:
        op = submit(client, receiver, question)
        headers, body = receiver.next()

    event = client.webhooks.unwrap(body, headers, secret=secret)
    assert event.type == "offpeak.request.succeeded"
    assert event.id == lowered(headers)["webhook-id"]
    assert event.id.startswith("evt_")

    event = json.loads(body)
    assert event["object"] == "event"
    assert event["data"]["id"] == op
    assert event["data"]["status_code"] == 200
    assert event["data"]["endpoint"] == "/v1/chat/completions"
    response = event["data"]["response"]
    assert question in response["choices"][0]["message"]["content"]
    assert json.loads(client.chat.completions.with_raw_response.retrieve(op).content) == response
    assert tries(question) == 1

    with pytest.raises(openai.InvalidWebhookSignatureError):
        client.webhooks.unwrap(body + b" ", headers, secret=secret)
    with pytest.raises(openai.InvalidWebhookSignatureError):
        client.webhooks.unwrap(body, headers, secret="whsec_" + "A" * 32)


def test_failure_is_delivered(client, question):
    with Receiver() as receiver:
        op = submit(client, receiver, question, **directed("status=400"))
        headers, body = receiver.next()
    event = client.webhooks.unwrap(
        body, headers, secret=own_api(client, "webhook-secret")["secret"]
    )
    assert event.type == "offpeak.request.failed"
    data = json.loads(body)["data"]
    assert (data["id"], data["status_code"]) == (op, 400)
    assert data["response"]["error"]["message"]


def test_an_attempt_that_fails_is_repeated_under_the_same_id(client, question):
    secret = own_api(client, "webhook-secret")["secret"]
    with Receiver(fail_first=True) as receiver:
        submit(client, receiver, question)
        first, second = receiver.next(), receiver.next()
    assert first[1] == second[1]
    for headers, body in (first, second):
        client.webhooks.unwrap(body, headers, secret=secret)
    assert lowered(first[0])["webhook-id"] == lowered(second[0])["webhook-id"]


def test_a_rotated_secret_is_verified_beside_the_one_before(client, question):
    client.chat.completions.with_raw_response.create(
        **chat(question), extra_headers={**DEADLINE, "Prefer": "respond-async"}
    )
    old = own_api(client, "webhook-secret")["secret"]
    new = own_api(client, "webhook-secret/rotate", "POST")["secret"]
    assert new != old
    with Receiver() as receiver:
        told = own_api(client, "webhooks/test", "POST", {"target": receiver.url})
        assert told["delivered"], told
        headers, body = receiver.next()
        for secret in (new, old):
            event = client.webhooks.unwrap(body, headers, secret=secret)
            assert event.type == "offpeak.webhook.test"

        last = own_api(client, "webhook-secret/rotate", "POST", {"expire_previous": True})["secret"]
        own_api(client, "webhooks/test", "POST", {"target": receiver.url})
        headers, body = receiver.next()
    client.webhooks.unwrap(body, headers, secret=last)
    for secret in (new, old):
        with pytest.raises(openai.InvalidWebhookSignatureError):
            client.webhooks.unwrap(body, headers, secret=secret)
