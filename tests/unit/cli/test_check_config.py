"""check CONFIG: in itself, against the host, and against the cgroup tree."""

import json
import os
from pathlib import Path

from tests.lab.cgroup import Cgroup
from tests.unit.cli.conftest import Cli

PREFIX = """
[prefixes.isp6]
type = "fixed"
prefix = "2001:db8:1::/64"
interface = "nosuch0"
placement = "delegated"
"""


def test_a_good_configuration_is_said_to_be_with_its_warnings(cli: Cli, tmp_path: Path) -> None:
    with Cgroup("check") as root:
        open_tree = root.child("user")
        os.chown(open_tree.procs, 65534, -1)
        open_tree.child("app.service")
        config = tmp_path / "x.toml"
        config.write_text(
            f'[agent]\ncgroup = "{root.path}"\n[classes.app]\ncgroups = ["user/*.service"]\n'
            f'[classes.late]\ncgroups = ["later"]\n{PREFIX}'
        )
        result = cli("check", config, "--json")
    found = json.loads(result.stdout)
    assert result.exit_code == 0
    assert [(item["name"], item["state"]) for item in found] == [
        (f"{config}:11", "warning"),
        ("classes.app", "warning"),
        ("classes.late", "warning"),
        (str(config), "ok"),
    ]
    assert "nosuch0" in found[0]["detail"]
    assert "user/app.service" in found[1]["detail"]
    assert "delegated = true" in found[1]["remedy"]


def test_a_bad_configuration_exits_4_with_all_lines(cli: Cli, tmp_path: Path) -> None:
    config = tmp_path / "x.toml"
    config.write_text('[agent]\nmark_mask = 0\nsocket = "relative"\n')
    result = cli("check", config)
    assert result.exit_code == 4
    assert f"{config}:2:" in result.stderr
    assert f"{config}:3:" in result.stderr
    assert cli("check", tmp_path / "none").exit_code == 4
