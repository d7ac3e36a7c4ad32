"""The contract as other languages see it: what every .proto file says, and what may not change any more."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions

from elman.v1 import generation_pb2, model_pb2, sampling_pb2, session_pb2
from elman_server.grpc.status import TABLE, TOO_MANY

ROOT = Path(__file__).parent.parent
PROTO = ROOT / "proto"
PAGE = ROOT / "docs/other-languages.md"
BUF = Path(sys.executable).with_name("buf")
FILES = [module.DESCRIPTOR for module in (generation_pb2, model_pb2, sampling_pb2, session_pb2)]
READS = re.compile("Get|List|Export|Replay|Encode|Score")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_file_names_its_package_in_every_language(file):
    """Plain protoc writes code for each of them, without a flag that maps packages."""
    options = file.GetOptions()
    assert (options.go_package, options.java_package, options.java_multiple_files) == (
        "github.com/elman-server/elman/proto/elman/v1;elmanv1",
        "io.github.elmanserver.v1",
        True,
    )
    assert (options.csharp_namespace, options.php_namespace, options.php_metadata_namespace) == (
        "Elman.V1",
        r"Elman\V1",
        r"Elman\V1\Metadata",
    )
    assert (options.ruby_package, options.objc_class_prefix) == ("Elman::V1", "ELM")


def test_reads_say_that_they_have_no_side_effects():
    """A client or a proxy may send them again, and no other method claims it."""
    methods = [method for file in FILES for service in file.services_by_name.values() for method in service.methods]
    reads = {method.name for method in methods if READS.match(method.name)}
    said = {method.name for method in methods if method.GetOptions().idempotency_level == MethodOptions.NO_SIDE_EFFECTS}
    assert said == reads


def test_counts_have_one_form():
    """A number of things ends with `_count`; none begins with `num_`."""
    fields = [
        field.name for file in FILES for message in file.message_types_by_name.values() for field in message.fields
    ]
    assert [name for name in fields if name.startswith("num_")] == []


def test_the_contract_is_the_recorded_one_or_more():
    """Nothing of the last release's contract was removed, renamed, renumbered or moved."""
    assert _breaking(PROTO) == ""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("  string etag = 9;\n", ""),
        ("string etag = 9;", "string e_tag = 9;"),
        ("string etag = 9;", "string etag = 90;"),
        ("int64 turn_count = 11;", "int32 turn_count = 11;"),
        ("rpc RewindSession(RewindSessionRequest)", "rpc RewindSession(ForkSessionRequest)"),
        ('option go_package = "github.com', 'option go_package = "gitlab.com'),
    ],
)
def test_a_breaking_change_is_found(tmp_path, old, new):
    """A removed, renamed, renumbered or retyped field, another request, another package: each is named."""
    copy = tmp_path / "proto"
    shutil.copytree(PROTO, copy)
    file = copy / "elman/v1/session.proto"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    assert "session.proto" in _breaking(copy)


def _breaking(folder: Path) -> str:
    command = [str(BUF), "breaking", str(folder), "--against", str(PROTO / "image.binpb")]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def test_the_page_for_other_languages_has_every_reason():
    """Each reason stands in the table once, beside its code, and no other does."""
    rows = re.findall(r"^\| ([A-Z_]+) \| ([A-Z_, ]+) \|", PAGE.read_text(), re.MULTILINE)
    told = sorted((code, reason) for code, reasons in rows for reason in reasons.split(", "))
    sent = {(row.code.name, row.reason) for row in TABLE.values()}
    assert told == sorted(
        sent | {("RESOURCE_EXHAUSTED", reason) for reason in TOO_MANY.values()} | {("INTERNAL", "INTERNAL")}
    )


def test_the_command_for_python_writes_code(tmp_path):
    """As it stands on the page, but for the place where the code goes."""
    (command,) = re.findall(
        r"^\| Python \| `python (-m .*) proto/elman/v1/\*\.proto` \|$", PAGE.read_text(), re.MULTILINE
    )
    words = command.replace("=gen", f"={tmp_path}").split()
    files = [str(path.relative_to(ROOT)) for path in PROTO.glob("elman/v1/*.proto")]
    subprocess.run([sys.executable, *words, *files], check=True, cwd=ROOT)
    assert len(list(tmp_path.glob("elman/v1/*_pb2.py"))) == len(list(tmp_path.glob("elman/v1/*_pb2_grpc.py"))) == 5


def test_the_retry_policy_on_the_page_repeats_what_the_server_wants_repeated():
    """For all three services, with the one code that has RetryInfo and is no quota."""
    (text,) = re.findall(r"```json\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (policy,) = json.loads(text)["methodConfig"]
    assert {entry["service"] for entry in policy["name"]} == {name for file in FILES for name in _services(file)}
    assert policy["retryPolicy"]["retryableStatusCodes"] == ["UNAVAILABLE"]


def _services(file: FileDescriptor) -> list[str]:
    return [service.full_name for service in file.services_by_name.values()]
