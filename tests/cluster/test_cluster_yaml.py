"""cluster.yaml: Ray's own validation, and its commands as far as they can run here."""

from __future__ import annotations

import copy
import json
import re
import shlex
import subprocess
import tomllib
from collections import Counter
from importlib import metadata

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.scripts import scripts

from tests.commands import REPOSITORY

CLUSTER = yaml.safe_load((REPOSITORY / "cluster.yaml").read_text())
COMMANDS = [
    (group, command)
    for group in CLUSTER
    if group.endswith("_commands")
    for command in CLUSTER[group]
]
NODES = CLUSTER["available_node_types"]


def test_ray_accepts_it():
    validate_config(prepare_config(copy.deepcopy(CLUSTER)))  # as `ray up` does


def test_ray_accepts_the_one_on_premise():
    [text] = re.findall(r"```yaml\n(.*?)```", (REPOSITORY / "docs/cluster.md").read_text(), re.S)
    config = prepare_config(yaml.safe_load(text))
    validate_config(config)
    for command in config["head_start_ray_commands"] + config["worker_start_ray_commands"]:
        subprocess.run(["bash", "-n", "-c", command], check=True)


def test_rays_validation_can_fail():
    with pytest.raises(Exception, match="workers"):
        validate_config(prepare_config({**copy.deepcopy(CLUSTER), "workers": 3}))


@pytest.mark.parametrize("group, command", COMMANDS)
def test_commands_are_shell_and_name_what_exists(group, command):
    subprocess.run(["bash", "-n", "-c", command], check=True)
    for part in re.split(r"&&|;", command):
        words = shlex.split(part)
        if words[:2] == ["ray", "start"]:
            known = {option for parameter in scripts.start.params for option in parameter.opts}
            assert {word.split("=")[0] for word in words[2:]} <= known
        if words[:2] == ["pip", "install"]:
            check_installed_as_pinned(words[2:])


def check_installed_as_pinned(words: list[str]) -> None:
    """Versions are those of constraints.txt, and extras those of pyproject.toml."""
    constraints = (REPOSITORY / "constraints.txt").read_text().splitlines()
    extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    if "-c" in words:
        assert (REPOSITORY / words[words.index("-c") + 1]).exists()
    for word in words:
        if "==" in word:
            assert word in constraints
        if found := re.fullmatch(r"\.\[(.+)\]", word):
            assert set(found[1].split(",")) <= extras["optional-dependencies"].keys()


def test_the_image_has_the_pinned_ray_and_python():
    version = metadata.version("ray")
    assert CLUSTER["docker"]["image"].startswith(f"rayproject/ray:{version}-py311")


def test_jobs_are_told_how_far_the_pools_grow():
    [command] = [c for c in CLUSTER["head_start_ray_commands"] if "ray start" in c]
    [told] = re.findall(r"MOLSIEVE_MAX_RESOURCES='(.*?)'", command)
    most = Counter()
    for node in NODES.values():
        for name, amount in node["resources"].items():
            most[name] += amount * node.get("max_workers", 0)
    assert json.loads(told) == most
    assert sum(node.get("max_workers", 0) for node in NODES.values()) == CLUSTER["max_workers"]


def test_pools_start_empty_and_gpus_are_spot():
    assert NODES[CLUSTER["head_node_type"]]["resources"] == {"CPU": 0}
    workers = {name: node for name, node in NODES.items() if name != CLUSTER["head_node_type"]}
    assert all(node["min_workers"] == 0 for node in workers.values())
    with_gpus = [node for node in workers.values() if node["resources"].get("GPU")]
    assert with_gpus and len(with_gpus) < len(workers)
    for node in with_gpus:
        assert node["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}


def test_nothing_listens_to_the_world_and_every_node_wants_the_token():
    starts = [command for _, command in COMMANDS if "ray start" in command]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token" in command for command in starts)
    assert all(re.findall(r"-host[= ](\S+)", command) in ([], ["127.0.0.1"]) for command in starts)
    assert CLUSTER["file_mounts"]["/home/ray/.ray/auth_token"] == "~/.ray/auth_token"
