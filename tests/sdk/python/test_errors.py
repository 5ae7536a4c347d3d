"""Failures surface as the SDK's own exceptions and are never bought twice.
All clients keep the SDK's default of two retries."""

from __future__ import annotations

import openai
import pytest

from conftest import (
    DEADLINE,
    DRIP_AFTER,
    MODEL,
    ask_anew,
    batch_lines,
    chat,
    connect,
    directed,
    own_api,
    purchases,
    slow,
    tries,
)

BY_STATUS = {
    400: openai.BadRequestError,
    401: openai.AuthenticationError,
    403: openai.PermissionDeniedError,
    404: openai.NotFoundError,
    422: openai.UnprocessableEntityError,
}


def assert_shape(error: openai.APIStatusError) -> None:
    """OpenAI's error object with all four keys, and word not to retry."""
    assert {"message", "type", "param", "code"} <= set(error.body)
    assert error.body["message"]
    assert error.response.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("status", BY_STATUS)
def test_what_the_provider_refuses(client, question, status):
    with pytest.raises(BY_STATUS[status]) as caught:
        client.chat.completions.create(
            **chat(question, **directed(f"status={status}")), extra_headers=DEADLINE
        )
    assert caught.value.status_code == status
    assert_shape(caught.value)
    assert (tries(question), batch_lines(question)) == (1, 1)


def test_failure_after_dripping(client, question):
    """The 200 is out already, so the connection is cut; the SDK sends again and
    gets the true status of the first call."""
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(
            **chat(question, **slow(DRIP_AFTER + 2, "status=400")), extra_headers=DEADLINE
        )
    assert_shape(caught.value)
    assert (tries(question), batch_lines(question)) == (1, 1)


def test_a_stream_that_the_provider_refuses(client, question):
    """Early enough, the failure keeps its status."""
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(
            **chat(question, **directed("status=400")), stream=True, extra_headers=DEADLINE
        )
    assert_shape(caught.value)
    assert (tries(question), batch_lines(question)) == (1, 1)


def test_a_stream_that_fails_after_heartbeats(client, question):
    """The status is out already: the failure is an event."""
    stream = client.chat.completions.create(
        **chat(question, **slow(DRIP_AFTER + 2, "status=400")),
        stream=True,
        extra_headers=DEADLINE,
    )
    with pytest.raises(openai.APIError) as caught:
        list(stream)
    assert caught.value.message
    assert (tries(question), batch_lines(question)) == (1, 1)


@pytest.mark.parametrize(
    ("status", "kind"),
    [(429, openai.RateLimitError), (500, openai.InternalServerError)],
)
def test_what_the_sdk_would_retry(client, question, status, kind):
    """A failure that stays until the deadline comes once, although the SDK retries
    such a status: the proxy has tried as often as it was worth."""
    with pytest.raises(kind) as caught:
        client.chat.completions.create(
            **chat(question, **directed(f"status={status}")),
            extra_headers={"Offpeak-Deadline": "6s"},
        )
    assert_shape(caught.value)
    assert purchases(client) == 1


def test_a_failure_that_was_delivered_is_not_joined(client, question):
    call = chat(question, **directed("status=400"))
    for expected in (1, 2):
        with pytest.raises(openai.BadRequestError):
            client.chat.completions.create(**call, extra_headers=DEADLINE)
        assert tries(question) == expected


@pytest.mark.parametrize(
    "deadline",
    ["", "0s", "soon", "6", "-1h", "15M", "1month", "1year", "8days", "2001-01-01T00:00:00Z"],
)
def test_bad_deadlines(client, question, deadline):
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(
            **chat(question), extra_headers={"Offpeak-Deadline": deadline}
        )
    assert_shape(caught.value)
    assert tries(question) == 0


def test_header_and_alias_that_disagree(client, question):
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(
            **chat(question), extra_headers={**DEADLINE, "X-Deadline": "5h"}
        )
    assert tries(question) == 0


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"Prefer": "respond-async"}, {"stream": True}),
        ({"Offpeak-Webhook": "no-such-endpoint"}, {}),
        ({"Offpeak-Webhook": "http://example.com/hook"}, {}),
        ({"Offpeak-Webhook": "https://169.254.169.254/latest"}, {}),
        ({"Offpeak-Webhook": "https://localhost/hook"}, {}),
        ({"Offpeak-On-Late": "shrug"}, {}),
        ({}, {"service_tier": "priority"}),
        ({}, {"messages": []}),
        ({}, {"model": ""}),
    ],
    ids=str,
)
def test_bad_requests(client, question, headers, body):
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(
            **{**chat(question), **body}, extra_headers={**DEADLINE, **headers}
        )
    assert_shape(caught.value)
    assert tries(question) == 0


def test_unknown_model(client, question):
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(
            **{**chat(question), "model": "gpt-none"}, extra_headers=DEADLINE
        )
    assert caught.value.code == "model_not_found"
    assert batch_lines(question) == 0


def test_idempotency_key_with_another_body(client, question):
    headers = {**DEADLINE, "Prefer": "respond-async", "Idempotency-Key": question.replace(" ", "-")}
    client.chat.completions.create(**chat(question), extra_headers=headers)
    other = ask_anew()
    with pytest.raises(openai.UnprocessableEntityError) as caught:
        client.chat.completions.create(**chat(other), extra_headers=headers)
    assert_shape(caught.value)
    assert tries(other) == 0


def test_cancelled_is_gone(client, question):
    stub = client.chat.completions.create(
        **chat(question, **slow(600)), extra_headers={**DEADLINE, "Prefer": "respond-async"}
    )
    assert own_api(client, f"requests/{stub.id}/cancel", "POST")["status"] == "cancelled"
    with pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.retrieve(stub.id)
    assert caught.value.status_code == 410
    assert caught.value.code == "request_cancelled"
    assert_shape(caught.value)
    assert tries(question) == 0


def test_delete_erases(client, question):
    stub = client.chat.completions.create(
        **chat(question), extra_headers={**DEADLINE, "Prefer": "respond-async"}
    )
    client.chat.completions.retrieve(stub.id, extra_headers={"Prefer": "wait=60"})
    deleted = client.chat.completions.delete(stub.id)
    assert (deleted.id, deleted.deleted) == (stub.id, True)
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.retrieve(stub.id)


def test_another_tenants_request_is_not_found(client, question):
    stub = client.chat.completions.create(
        **chat(question), extra_headers={**DEADLINE, "Prefer": "respond-async"}
    )
    with connect() as stranger:
        for call in (stranger.chat.completions.retrieve, stranger.chat.completions.delete):
            with pytest.raises(openai.NotFoundError):
                call(stub.id)
    answer = client.chat.completions.retrieve(stub.id, extra_headers={"Prefer": "wait=60"})
    assert question in answer.choices[0].message.content


def test_an_id_that_never_was(client):
    for call in (client.chat.completions.retrieve, client.responses.retrieve):
        with pytest.raises(openai.NotFoundError):
            call("op_00000000000000000000000000")


def test_background_and_unknown_previous_response(client, question):
    with pytest.raises(openai.BadRequestError):
        client.responses.create(
            model=MODEL,
            input=question,
            previous_response_id="op_00000000000000000000000000",
            extra_headers=DEADLINE,
        )
    assert tries(question) == 0
