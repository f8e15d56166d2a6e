"""The command lines for docker and podman, when an image is built, and what is said when it cannot be."""

from pathlib import Path

import pytest

from kennel.rehearsal.containers.engine import Container, ContainerError, Network
from kennel.rehearsal.containers.images import DockerEngine, Image, Tool, digest, image_engine


@pytest.fixture
def client(tmp_path: Path) -> DockerEngine:
    config = {"Entrypoint": ["python3", "-m", "training"], "Env": ["PATH=/bin"]}
    server = {"Entrypoint": ["python3", "-m", "inference"], "Env": ["PYTHONPATH=/opt/program"]}
    engine = DockerEngine(Tool("docker"), "base", tmp_path)
    engine.images = {"1": Image("t", config), "2": Image("i", server)}
    return engine


def test_a_job_runs_the_images_entry_point_in_its_own_network_with_torch_mounted(client: DockerEngine) -> None:
    job = Container(
        program="training",
        root=Path("/w/ml"),
        image="registry/training:1",
        arguments=["train"],
        network=Network(("net",)),
        environment={"A": "1"},
    )
    line = client.arguments(job, "name")
    assert line[:2] == ["run", "--rm"]
    assert line[line.index("--network") + 1] == "net"
    assert line[line.index("--hostname") + 1] == "algo-1"
    assert "--volume=/w/ml:/opt/ml" in line
    assert any(part.endswith(":/opt/kennel/packages") for part in line)
    assert {"--env=A=1", "--env=PYTHONPATH=/opt/kennel/hook"} <= {*line}
    assert line[-6:] == ["--entrypoint", "python3", "t", "-m", "training", "train"]


def test_a_server_is_published_on_loopback_only_and_gets_nothing_mounted_but_its_model(client: DockerEngine) -> None:
    environment = {"SAGEMAKER_BIND_TO_PORT": "8123", "BIND_ADDRESS": "127.0.0.1"}
    server = Container(
        program="inference", root=Path("/w/ml"), image="inference:2", arguments=["serve"], environment=environment
    )
    line = client.arguments(server, "name")
    assert line[line.index("--publish") + 1] == "127.0.0.1:8123:8123"
    assert "--env=BIND_ADDRESS=0.0.0.0" in line
    assert [part for part in line if part.startswith("--volume")] == ["--volume=/w/ml:/opt/ml"]


def test_a_step_may_name_its_own_entry_point(client: DockerEngine) -> None:
    job = Container(
        program="training",
        root=Path("/w"),
        image="training:1",
        entrypoint=["python3", "-m", "training", "prepare"],
        network=Network(("n",)),
    )
    assert client.arguments(job, "name")[-6:] == ["--entrypoint", "python3", "t", "-m", "training", "prepare"]


def test_an_image_that_was_never_built_is_refused(client: DockerEngine) -> None:
    with pytest.raises(ContainerError, match=r"There is no image 'training:3'\."):
        client.arguments(Container(program="training", root=Path("/w"), image="training:3"), "name")


def test_without_a_container_engine_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ContainerError, match="start Docker, or install podman or buildah"):
        image_engine(tmp_path)


def test_an_image_is_built_again_when_a_file_or_the_base_changes_and_not_for_a_cache(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM a")
    first = digest(tmp_path, "base")
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "x.pyc").write_text("")
    assert digest(tmp_path, "base") == first
    assert digest(tmp_path, "other") != first
    (tmp_path / "Dockerfile").write_text("FROM b")
    assert digest(tmp_path, "base") != first


def test_an_image_that_cannot_be_built_is_said_with_its_base(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    docker = tmp_path / "docker"
    docker.write_text('#!/bin/sh\n[ "$1" = info ] || { echo "cannot pull" >&2; exit 1; }\n')
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    with pytest.raises(ContainerError, match=r"(?s)build failed:\ncannot pull.*The base was debian; --base-image"):
        image_engine(tmp_path, "debian").build("1", tmp_path)
