"""Every family of the package, found by looking at its modules: no list that could forget one."""

import importlib
import pkgutil
import sys

import distributed_dd.commands
from distributed_dd.family import Family

for verbs in pkgutil.iter_modules(distributed_dd.commands.__path__):  # they import whatever can be configured
    importlib.import_module(f"distributed_dd.commands.{verbs.name}")


def families() -> list[Family]:
    """In the order of their names, which are unique."""
    modules = [module for name, module in sorted(sys.modules.items()) if name.startswith("distributed_dd")]
    found = [value for module in modules for value in vars(module).values() if isinstance(value, Family)]
    by_name = {family.name: family for family in found}
    assert all(by_name[family.name] is family for family in found), "two families of one name"
    return [by_name[name] for name in sorted(by_name)]
