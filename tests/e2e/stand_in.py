"""Kaniko's image with the executor of `kaniko/` in it: everything else is where the real image has it."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from node.images import Entry, Image, folders
from node.node import Node, programs_folder

from builder.build_settings import Kaniko

SOURCE = Path(__file__).with_name("kaniko")
HOME = "/kaniko"


def import_stand_in(node: Node, folder: Path) -> None:
    """Build it, and give it to the node under the name that the service uses by default."""
    if shutil.which("go") is None:
        absent = pytest.fail if "CI" in os.environ else pytest.skip
        absent("go is not on the PATH, and Kaniko's stand-in has to be compiled")
    executor = folder / "executor"
    command = ["go", "build", "-trimpath", "-o", str(executor), "."]
    subprocess.run(command, cwd=SOURCE, env=os.environ | {"CGO_ENABLED": "0", "GOWORK": "off"}, check=True)
    image = Image(
        Kaniko().image,
        [
            *folders(HOME, f"{HOME}/ssl", f"{HOME}/ssl/certs", "/workspace", "/etc"),
            Entry(f"{HOME}/executor", source=executor),
            Entry(f"{HOME}/buildctl", source=programs_folder() / "buildctl"),
        ],
        {
            "Entrypoint": [f"{HOME}/executor"],
            "Env": [
                "HOME=/root",
                "USER=root",
                f"PATH=/usr/local/bin:{HOME}",
                f"SSL_CERT_DIR={HOME}/ssl/certs",
                f"DOCKER_CONFIG={HOME}/.docker/",
            ],
            "WorkingDir": "/workspace",
        },
    )
    archive = folder / "kaniko.tar"
    image.write(archive)
    node.import_images(archive)
