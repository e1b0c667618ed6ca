"""What pyproject.toml cannot say: a wheel carries configs/ as distributed_dd/configs."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConfigs(build_py):
    """An editable installation reads configs/ where it lies."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            self.copy_tree("configs", str(Path(self.build_lib) / "distributed_dd" / "configs"))


setup(cmdclass={"build_py": BuildWithConfigs})
