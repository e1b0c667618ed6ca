"""Every family of the package, found by looking at its modules: no list that could forget one."""

import sys

import distributed_dd.commands  # noqa: F401 - imports whatever can be configured
from distributed_dd.family import Family


def families() -> list[Family]:
    """In the order of their names, which are unique."""
    modules = [module for name, module in sorted(sys.modules.items()) if name.startswith("distributed_dd")]
    found = [value for module in modules for value in vars(module).values() if isinstance(value, Family)]
    by_name = {family.name: family for family in found}
    assert all(by_name[family.name] is family for family in found), "two families of one name"
    return [by_name[name] for name in sorted(by_name)]
