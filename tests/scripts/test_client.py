"""The client against a server that answers as ComfyUI does."""

import json

import pytest

from scripts.client import (
    Client,
    HttpFailure,
    PromptFailed,
    PromptInterrupted,
    PromptRefused,
    PromptTimeout,
    ServerUnreachable,
)

PROMPT = {"1": {"class_type": "SaveImage", "inputs": {}}}
NODE_ERRORS = {
    "1": {
        "class_type": "SaveImage",
        "errors": [{"type": "required_input_missing", "message": "Required input is missing", "details": "images"}],
    }
}


def finished(*messages, outputs=None):
    """A history answer for prompt "p"."""
    return {"p": {"outputs": outputs or {}, "status": {"messages": list(messages)}}}


@pytest.fixture
def client(comfy):
    comfy.answers["/queue"] = comfy.answers["/interrupt"] = (200, b"")
    return Client(comfy.url)


def test_submit_returns_the_id_and_says_who_asks(client, comfy):
    comfy.answers["/prompt"] = (200, {"prompt_id": "p", "node_errors": {}})
    assert client.submit(PROMPT, workflow={"nodes": []}) == "p"
    (path, sent) = comfy.received[0]
    assert path == "/prompt"
    assert sent["prompt"] == PROMPT
    assert sent["client_id"] == client.client_id
    assert sent["extra_data"]["extra_pnginfo"]["workflow"] == {"nodes": []}


def test_a_refusal_names_node_and_reason(client, comfy):
    comfy.answers["/prompt"] = (400, {"error": {"message": "Failed validation"}, "node_errors": NODE_ERRORS})
    with pytest.raises(PromptRefused) as caught:
        client.submit(PROMPT)
    assert caught.value.node_errors == NODE_ERRORS
    assert str(caught.value).splitlines() == [
        "The prompt was refused.",
        "  Failed validation",
        "  node 1 (SaveImage): Required input is missing: images",
    ]


def test_a_refusal_without_node_errors_gives_the_details(client, comfy):
    error = {"message": "Node 'Nope' not found.", "details": "Node ID '#1'"}
    comfy.answers["/prompt"] = (400, {"error": error, "node_errors": {}})
    with pytest.raises(PromptRefused, match="Node 'Nope' not found.: Node ID '#1'"):
        client.submit(PROMPT)


def test_a_prompt_accepted_in_part_is_cancelled_and_refused(client, comfy):
    comfy.answers["/prompt"] = (200, {"prompt_id": "p", "node_errors": NODE_ERRORS})
    with pytest.raises(PromptRefused, match="A part of it is not valid"):
        client.submit(PROMPT)
    assert comfy.received[1:] == [("/queue", {"delete": ["p"]}), ("/interrupt", {"prompt_id": "p"})]


def test_wait_returns_the_history_entry(client, comfy):
    outputs = {"1": {"images": [{"filename": "a.png"}]}}
    comfy.answers["/history/p"] = (200, finished(["execution_success", {}], outputs=outputs))
    assert client.wait("p")["outputs"] == outputs


def test_a_failed_node_is_named_with_its_exception(client, comfy):
    details = {
        "node_id": "7",
        "node_type": "QSchedCalibrate",
        "exception_type": "ValueError",
        "exception_message": "no prompts\n",
        "traceback": ["  File a.py\n"],
    }
    comfy.answers["/history/p"] = (200, finished(["execution_error", details]))
    with pytest.raises(PromptFailed) as caught:
        client.wait("p")
    failure = caught.value
    assert (failure.node_id, failure.node_type, failure.exception_message) == ("7", "QSchedCalibrate", "no prompts")
    assert str(failure) == "Node 7 (QSchedCalibrate) failed: ValueError: no prompts\n  File a.py"


def test_an_interrupted_prompt_says_where(client, comfy):
    details = {"node_id": "7", "node_type": "QSchedCalibrate"}
    comfy.answers["/history/p"] = (200, finished(["execution_interrupted", details]))
    with pytest.raises(PromptInterrupted, match=r"Interrupted in node 7 \(QSchedCalibrate\)"):
        client.wait("p")


def test_waiting_ends_at_the_time_given(client, comfy):
    comfy.answers["/history/p"] = (200, {})
    with pytest.raises(PromptTimeout, match="0.01 s"):
        client.wait("p", timeout=0.01)


def test_interrupt_can_be_meant_for_one_prompt(client, comfy):
    client.interrupt()
    client.interrupt("p")
    assert comfy.received == [("/interrupt", {}), ("/interrupt", {"prompt_id": "p"})]


def test_view_quotes_names(client, comfy):
    comfy.answers["/view?filename=a+%26+b.png&subfolder=x&type=temp"] = (200, b"\x89PNG")
    assert client.view("a & b.png", "x", "temp") == b"\x89PNG"


def test_other_failures_carry_status_and_body(client, comfy):
    comfy.answers["/object_info"] = (500, b"it broke")
    with pytest.raises(HttpFailure, match="GET /object_info failed with HTTP status 500: it broke") as caught:
        client.object_info()
    assert caught.value.status == 500


def test_an_error_page_instead_of_a_refusal_stays_an_http_failure(client, comfy):
    comfy.answers["/prompt"] = (500, b"<html>")
    with pytest.raises(HttpFailure, match="POST /prompt"):
        client.submit(PROMPT)


def test_a_server_that_is_gone_is_named(comfy):
    comfy.close()
    with pytest.raises(ServerUnreachable, match=comfy.url):
        Client(comfy.url).system_stats()


def test_proxies_of_the_environment_are_not_used(comfy, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    comfy.answers["/system_stats"] = (200, json.dumps({"system": {}}).encode())
    assert Client(comfy.url).system_stats() == {"system": {}}
