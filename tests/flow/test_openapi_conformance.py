"""
schemathesis asks a node for all that /openapi.json has, rightly and wrongly: no fault of ours, no unexpected answer.

Its seed is fixed, so a run that fails can be had again. A request that failed stands in the output as a curl command.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from testbed import DeveloperApp, Node, Phone, PhoneCall
from testbed.script import SCRIPT

pytestmark = pytest.mark.asyncio(loop_scope="module")

ADMIN_KEY = "admin-key-of-the-test"
CALL_ID = r"^/v1/realtime/calls/\{call_id\}"
Statuses = dict[str, Counter[int]]

RULES = """
[checks]
# What a schema of JSON cannot say is refused too: a list's `after`, a host that is not public, a number like 392.0.
positive_data_acceptance.enabled = false

[[operations]]
include-operation-id = "accept_call"
# The body of a second accept is not read (row R06).
checks.negative_data_rejection.enabled = false

[[operations]]
include-operation-id = ["accept_call", "reject_call", "refer_call", "hangup_call", "dtmf_call"]
# An id is opaque: a GET asks for the call that is named so, and there is none.
checks.unsupported_method.enabled = false

[[operations]]
include-operation-id = ["create_call", "create_client_secret"]
checks.not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", 501]

[[operations]]
include-operation-id = ["refer_call", "dtmf_call"]
# The peer's fault, or its silence.
checks.not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", 502, 504]

[[operations]]
include-operation-id = ["test_webhook_endpoint", "test_webhook_endpoint_azure"]
checks.not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", 502]
"""

KEYS = """
[[operations]]
include-path-regex = "^/(openai/)?v1"
headers = {{ Authorization = "Bearer {key}" }}

[[operations]]
include-path-regex = "^/admin"
headers = {{ Authorization = "Bearer {admin}" }}
"""

LIVE = """
[[operations]]
include-path-regex = '{path}'
parameters = {{ "path.call_id" = "{call_id}" }}
"""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with Node(
        tmp_path_factory.mktemp("node"),
        script=SCRIPT,
        seats=2,
        calls="[webhooks]\nallow_loopback = true",
        server=f'admin_key = "{ADMIN_KEY}"',
    ) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def live(node: Node) -> AsyncIterator[tuple[DeveloperApp, PhoneCall, str]]:
    """A call that is answered; its phone refuses to be transferred."""
    async with DeveloperApp(node) as app, Phone(node) as phone:
        call = await phone.dial(app.seat.project)
        call.on_refer = (403, ())
        call_id = (await app.incoming()).call_id
        await app.accept(call_id)
        await call.answered()
        yield app, call, call_id


async def ask(node: Node, folder: Path, rules: str, *options: str) -> Statuses:
    """Run schemathesis, which must find nothing, and return the statuses of each operation's answers."""
    config, report = folder / "schemathesis.toml", folder / "report.ndjson"
    config.write_text(rules)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()",
        "--config-file", str(config), "run", node.base_url.removesuffix("/v1") + "/openapi.json",
        "--seed", "20", "--continue-on-failure", "--no-color", "--no-shrink", "--warnings", "off",
        "--generation-database", "none", "--request-timeout", "30",
        "--report", "ndjson", "--report-ndjson-path", str(report), *options,
        cwd=folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    out, _ = await process.communicate()
    assert process.returncode == 0, out.decode()
    return answers(report)


def answers(report: Path) -> Statuses:
    found: Statuses = defaultdict(Counter)
    for line in report.read_text().splitlines():
        recorder = json.loads(line).get("ScenarioFinished", {}).get("recorder", {})
        for key, one in recorder.get("interactions", {}).items():
            assert one["response"] is not None, f"no answer to {key}: {one['request']}"
            found[recorder["label"]][one["response"]["status_code"]] += 1
    return found


async def test_all_operations_with_right_and_wrong_data(
    node: Node, live: tuple[DeveloperApp, PhoneCall, str], tmp_path: Path
) -> None:
    """Rows C07 to C09, C13: whatever is asked, the answer is one that the document has."""
    keys = KEYS.format(key=live[0].seat.api_key, admin=ADMIN_KEY)
    found = await ask(node, tmp_path, RULES + keys, "--max-examples", "6")
    assert len(found) > 55
    assert not [label for label, statuses in found.items() if 500 in statuses]
    well = {label for label, statuses in found.items() if 200 in statuses}
    assert {"GET /v1/realtime/calls", "POST /v1/webhook_endpoints", "POST /admin/api/projects"} <= well
    assert not node.faults()


async def test_the_verbs_of_a_live_call(
    node: Node, live: tuple[DeveloperApp, PhoneCall, str], tmp_path: Path
) -> None:
    """Rows R04, R11 to R17, C13: no body harms the call, and nothing but hangup ends it."""
    app, call, call_id = live
    rules = RULES + KEYS.format(key=app.seat.api_key, admin=ADMIN_KEY)
    found = await ask(
        node, tmp_path, rules + LIVE.format(path=CALL_ID, call_id=call_id), "--max-examples", "8",
        "--include-path-regex", CALL_ID, "--exclude-operation-id", "hangup_call",
        "--phases", "coverage,fuzzing",
    )  # fmt: skip
    verb = "POST /v1/realtime/calls/{call_id}/"
    assert found[verb + "accept"][200]
    assert found[verb + "reject"][400]
    assert found[verb + "reject"][409]
    assert found[verb + "refer"][400]
    assert found[verb + "dtmf"][200]
    assert found[verb + "dtmf"][400]
    assert found[verb + "recording"][200]
    assert found["GET /v1/realtime/calls/{call_id}/pcap"][200]
    assert call.alive
    assert not node.faults()


async def test_without_a_key_nothing_is_told(node: Node, tmp_path: Path) -> None:
    """Row C01: what needs a key says so, whatever else is wrong with the request."""
    found = await ask(node, tmp_path, RULES, "--max-examples", "2", "--phases", "fuzzing")
    open_to_all = {"GET /healthz", "GET /readyz", "GET /metrics"}
    assert len(found) > 55
    for label, statuses in found.items():
        if label not in open_to_all | {"GET /v1/realtime"}:
            assert statuses.keys() <= {401, 404, 405, 422, 400}, label
            assert statuses[401], label
