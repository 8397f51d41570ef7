"""`entertainmenttime-schemas`: the same models for other services, from the same source, without the rest."""

import re
import zipfile
from pathlib import Path

import pytest

from schemas import __version__
from schemas.golden import goldens
from tests.elsewhere import Elsewhere, build_wheel

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.timeout(180)


def test_its_modules_name_each_other_relatively_since_the_package_has_two_names() -> None:
    absolute = re.compile(r"^\s*(from|import) schemas\b", re.M)
    assert [path.name for path in ROOT.glob("schemas/*.py") if absolute.search(path.read_text())] == []


def test_the_example_in_its_readme_works_in_another_service(elsewhere: Elsewhere) -> None:
    (example,) = re.findall(r"^```python\n(.*?)^```", ROOT.joinpath("schemas/README.md").read_text(), re.S | re.M)
    told = elsewhere.run(f"{example}\nprint(message.topic, message.key.decode(), dict(message.headers)['ce_type'])")
    assert told == "views 0197c2a4-7d00-7000-8000-000000000001 b'entertainmenttime.video.viewed.v1'\n"


READ_GOLDEN = """
import json, pathlib, typing
from entertainmenttime_schemas.envelope import decode

class Record(typing.NamedTuple):
    key: bytes; value: bytes; headers: list; partition: int = 0; offset: int = 0; timestamp: int = 0

for path in pathlib.Path(GOLDEN).glob("*.json"):
    golden = json.loads(path.read_text())
    headers = [(name, value.encode()) for name, value in golden["headers"].items()]
    decoded = decode(Record(golden["key"].encode(), golden["value"].encode(), headers), golden["topic"])
    print(decoded.event.type, decoded.event.key == golden["key"])
"""


def test_it_reads_every_golden_record(elsewhere: Elsewhere) -> None:
    told = elsewhere.run(f"GOLDEN = {str(ROOT / 'tests/golden')!r}\n{READ_GOLDEN}").splitlines()
    assert sorted(told) == sorted(f"{golden.type} True" for golden in goldens())


def test_it_brings_neither_our_other_packages_nor_numpy(elsewhere: Elsewhere) -> None:
    told = elsewhere.run(
        "from importlib.util import find_spec\n"
        "print([name for name in ('schemas', 'projections', 'gateway', 'agents', 'numpy', 'yaml') if find_spec(name)])"
    )
    assert told == "[]\n"


def test_it_holds_the_source_itself_with_types_licence_and_published_schemas(tmp_path: Path) -> None:
    with zipfile.ZipFile(build_wheel(tmp_path)) as wheel:
        names = wheel.namelist()
        for name in names:
            if name.startswith("entertainmenttime_schemas/") and name.endswith((".py", ".json", ".yaml")):
                assert wheel.read(name) == (ROOT / "schemas" / name.partition("/")[2]).read_bytes()
    assert "entertainmenttime_schemas/py.typed" in names
    assert "entertainmenttime_schemas/published/asyncapi.yaml" in names
    assert f"entertainmenttime_schemas-{__version__}.dist-info/licenses/LICENSE" in names


def test_partitions_come_with_the_extra_that_brings_numpy(tmp_path: Path) -> None:
    with zipfile.ZipFile(build_wheel(tmp_path)) as wheel:
        (metadata,) = [wheel.read(name).decode() for name in wheel.namelist() if name.endswith("METADATA")]
    needed = re.findall(r"^Requires-Dist: ([a-z]+)(.*)$", metadata, re.M)
    assert {name for name, rest in needed if "extra" not in rest} == {"orjson", "pydantic"}
    assert [name for name, rest in needed if "extra == 'partitions'" in rest] == ["numpy"]
