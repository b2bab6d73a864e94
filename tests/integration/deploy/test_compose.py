"""Compose file, image recipe and `.env.example`, against specification and code.

The compose programs are the machine's and those of Debian's packages, the one of 1.29 among them;
nothing here needs an engine.
"""

import ast
import os
import re
import secrets
import shutil
import subprocess
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic_settings import BaseSettings
from support.compose_programs import find_compose, offered
from support.places import PROJECT
from support.postgres import IMAGE

from mdp_core.settings import ExchangeSettings
from mdp_core.wiring import installed_adapters
from scripts.cli import main as cli

COMPOSE = PROJECT / "docker-compose.yml"
EXAMPLE = PROJECT / ".env.example"
PACKAGES = tuple(
    tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"][
        "wheel"
    ]["packages"]
)
PASSWORDS = ("POSTGRES_PASSWORD", "MDP_SERVICE_PASSWORD", "MDP_ANALYST_PASSWORD", "JWT_SECRET")

_VARIABLE = re.compile(r"(MDP|JWT|DATABASE|POSTGRES)_[A-Z_]*[A-Z]")
# What compose calls the image's own variables, inside the container.
_OF_POSTGRES = {"POSTGRES_DB", "POSTGRES_USER"}


@pytest.fixture(scope="module", params=offered())
def compose(request: pytest.FixtureRequest) -> Sequence[str]:
    """The command of a compose program: the file must do for each."""
    return find_compose(request.param)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the compose file and a `.env` made from the example as told."""
    folder = tmp_path_factory.mktemp("compose")
    shutil.copy(COMPOSE, folder)
    text = EXAMPLE.read_text()
    for name in PASSWORDS:
        text, count = re.subn(rf"(?m)^{name}=$", f"{name}={secrets.token_hex(32)}", text)
        assert count == 1, name
    (folder / ".env").write_text(text)
    return folder


@pytest.fixture(scope="module")
def services(compose: Sequence[str], folder: Path) -> Mapping[str, Any]:
    """The services as the compose program understands them."""
    done = _config(compose, folder)
    assert done.returncode == 0, done.stderr
    return yaml.safe_load(done.stdout)["services"]


def test_compose_file_keeps_the_specification() -> None:
    """By the JSON schema of the compose specification."""
    checker = shutil.which("check-jsonschema", path=str(PROJECT / ".venv" / "bin"))
    assert checker
    command = [checker, "--builtin-schema", "vendor.compose-spec", str(COMPOSE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own program

    assert done.returncode == 0, done.stdout


def test_start_order_is_that_of_the_conditions(services: Mapping[str, Any]) -> None:
    """Database healthy, then the migration has succeeded, then the API is healthy."""
    conditions = {
        name: {other: need["condition"] for other, need in service.get("depends_on", {}).items()}
        for name, service in services.items()
    }

    healthy, done = "service_healthy", "service_completed_successfully"
    assert conditions == {
        "postgres": {},
        "migrate": {"postgres": healthy},
        "api-service": {"postgres": healthy, "migrate": done},
        "syncer-service": {"postgres": healthy, "migrate": done, "api-service": healthy},
    }
    assert "healthcheck" in services["postgres"]
    assert "healthcheck" in services["api-service"]


def test_database_is_pinned_private_and_kept(services: Mapping[str, Any]) -> None:
    """The image that the tests run too, on the loopback interface, on a named volume."""
    postgres = services["postgres"]

    assert postgres["image"] == IMAGE
    assert {_first(port, "host_ip") for port in postgres["ports"]} == {"127.0.0.1"}
    assert [_first(volume, "source") for volume in postgres["volumes"]] == ["postgres-data"]
    assert "max_locks_per_transaction=512" in postgres["command"]
    assert "max_connections=100" in postgres["command"]


def test_services_can_write_nowhere_and_are_limited(services: Mapping[str, Any]) -> None:
    """Read-only root, no capability, bounded use; all on the one bridge network."""
    for name, service in services.items():
        assert set(service["networks"]) == {"mdp_network"}
        assert {"cpus", "mem_limit", "pids_limit"} <= set(service)
        assert service["restart"] == ("no" if name == "migrate" else "unless-stopped")
        if name != "postgres":
            assert service["read_only"] is True
            assert service["cap_drop"] == ["ALL"]
            assert service["security_opt"] == ["no-new-privileges:true"]


def test_smallest_machine_can_start_every_service(services: Mapping[str, Any]) -> None:
    """An engine refuses a container that may take more CPUs than there are."""
    assert {float(service["cpus"]) for service in services.values()} == {1.0}


def test_services_get_the_cpus_that_are_set(compose: Sequence[str], folder: Path) -> None:
    """Each its own, in fractions too."""
    given = {"MDP_DATABASE_CPUS": "4", "MDP_API_CPUS": "2.5", "MDP_SYNCER_CPUS": "0.5"}
    done = _config(compose, folder, environment=given)
    assert done.returncode == 0, done.stderr
    services = yaml.safe_load(done.stdout)["services"]

    limits = {name: float(service["cpus"]) for name, service in services.items()}
    assert limits == {"postgres": 4, "migrate": 1, "api-service": 2.5, "syncer-service": 0.5}


def test_secrets_reach_only_who_needs_them(services: Mapping[str, Any], folder: Path) -> None:
    """The owner's password never gets into a service that listens."""
    pairs = re.findall(r"(?m)^([A-Z_]+)=(.{64})$", (folder / ".env").read_text())
    holders = {
        name: {other for other, service in services.items() if value in str(service["environment"])}
        for name, value in pairs
    }

    assert holders == {
        "POSTGRES_PASSWORD": {"postgres", "migrate"},
        "MDP_SERVICE_PASSWORD": {"migrate", "api-service", "syncer-service"},
        "MDP_ANALYST_PASSWORD": {"migrate"},
        "JWT_SECRET": {"api-service"},
    }


@pytest.mark.parametrize("name", ["POSTGRES_PASSWORD", "MDP_SERVICE_PASSWORD"])
def test_nothing_starts_with_an_empty_password(
    compose: Sequence[str], folder: Path, name: str
) -> None:
    """The program says which one is missing and where to set it."""
    done = _config(compose, folder, environment={name: ""})

    assert done.returncode != 0
    assert f"{name}" in done.stderr
    assert "set it in .env" in done.stderr


def test_example_names_what_is_used_and_nothing_else() -> None:
    """Every variable of the settings, of other code and of compose; no other."""
    named = re.findall(r"(?m)^(?:# )?([A-Z_]+)=", EXAMPLE.read_text())

    assert sorted(named) == sorted(_settings() | _constants() | _of_compose())


def test_containers_get_every_setting() -> None:
    """The compose file hands over all of `.env`: no variable is without effect."""
    of_machines = {"MDP_LOCAL_DATABASE", "MDP_CACHE_DIR", "MDP_APT_SOURCES"}

    assert _settings() - of_machines <= _handed_over() | set(PASSWORDS)


def test_image_gets_every_package() -> None:
    """The wheel's packages are copied, and no ignore rule keeps them out."""
    dockerfile = (PROJECT / "Dockerfile").read_text()
    copied = re.findall(r"(?m)^COPY (\w+) \1$", dockerfile)
    let_in = re.findall(r"(?m)^!(\w+)$", (PROJECT / ".dockerignore").read_text())

    assert sorted(copied) == sorted(PACKAGES)
    assert set(PACKAGES) <= set(let_in)


def _config(
    compose: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    inherited = {name: it for name, it in os.environ.items() if not _VARIABLE.fullmatch(name)}
    return subprocess.run(  # noqa: S603 - a compose program, on our own file
        [*compose, "config"],
        cwd=folder,
        env={**inherited, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
    )


def _first(described: Mapping[str, str] | str, name: str) -> str:
    """Give what a port or a volume begins with; new programs part it into members."""
    return described.partition(":")[0] if isinstance(described, str) else described[name]


def _settings() -> set[str]:
    """Name the variables that settings are read from."""
    assert cli.app  # the entrypoints are loaded, and with them every class of settings
    exchanges = {exchange for exchange, _ in installed_adapters()}
    names = {
        f"MDP_{exchange.upper()}_{field.upper()}"
        for exchange in exchanges
        for field in ExchangeSettings.model_fields
    }
    for kind in _subclasses(BaseSettings):
        if kind is not ExchangeSettings and kind.__module__.split(".")[0] in PACKAGES:
            for field, info in kind.model_fields.items():
                prefix = str(kind.model_config.get("env_prefix"))
                names.add(str(info.validation_alias or f"{prefix}{field}").upper())
    return names


def _subclasses(kind: type[BaseSettings]) -> Iterator[type[BaseSettings]]:
    for subclass in kind.__subclasses__():
        yield subclass
        yield from _subclasses(subclass)


def _constants() -> set[str]:
    """Name the variables that stand in the code as they are."""
    trees = [
        ast.parse(path.read_text()) for name in PACKAGES for path in (PROJECT / name).rglob("*.py")
    ]
    return {
        node.value
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and _VARIABLE.fullmatch(node.value)
    }


def _of_compose() -> set[str]:
    filled_in = set(re.findall(r"\$\{([A-Z_]+)", COMPOSE.read_text()))
    return (filled_in | _handed_over()) - _OF_POSTGRES


def _handed_over() -> set[str]:
    return set(re.findall(r"(?m)^ +([A-Z_]+):", COMPOSE.read_text()))
