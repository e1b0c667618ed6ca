"""Errors a user can act on, each with the exit code that the command line returns for it."""

from distributed_dd.secrecy import without_secrets


class UserError(Exception):
    """Base of every error that is explained instead of shown as a traceback."""

    exit_code = 1

    def __init__(self, where: str, problem: str, *, allowed: str = "", fix: str = "") -> None:
        where, problem, allowed, fix = map(without_secrets, (where, problem, allowed, fix))
        self.where, self.problem, self.allowed, self.fix = where, problem, allowed, fix
        lines = [f"{where}: {problem}"]
        if allowed:
            lines.append(f"  allowed: {allowed}")
        if fix:
            lines.append(f"  to do:   {fix}")
        super().__init__("\n".join(lines))

    def __reduce__(self) -> tuple:
        # Keyword arguments do not survive an exception's default pickling between processes.
        return _rebuild, (type(self), self.where, self.problem, self.allowed, self.fix)


def _rebuild(cls: type[UserError], where: str, problem: str, allowed: str, fix: str) -> UserError:
    return cls(where, problem, allowed=allowed, fix=fix)


class ConfigError(UserError):
    """A configuration that cannot be run as it stands."""

    exit_code = 2


class MissingInputError(UserError):
    """A file, folder or data set that is not where it should be."""

    exit_code = 3


class DivergedError(UserError):
    """A number that stopped being finite; the last good state was kept."""

    exit_code = 4


class IntegrityError(UserError):
    """Something on disk that is not what was written there."""

    exit_code = 5


class LockedError(UserError):
    """A folder that another process is working on."""
