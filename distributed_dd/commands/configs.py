"""The configurations that come with the package."""

from argparse import Namespace

from distributed_dd import presets
from distributed_dd.backends.local.terminal import terminal
from distributed_dd.errors import ConfigError
from distributed_dd.family import did_you_mean


def configs(options: Namespace) -> int:
    """List those whose names have all the words; of a single one say all that its head says."""
    every = presets.names()
    chosen = [name for name in every if name == options.words[0]] if len(options.words) == 1 else []
    chosen = chosen or [name for name in every if all(word in name for word in options.words)]
    if not chosen:
        words = " ".join(options.words)
        folders = ", ".join(sorted({name.partition("/")[0] for name in every}))
        raise ConfigError("configs", f"none has {words!r} in its name{did_you_mean(words, every)}", allowed=folders)
    console = terminal(soft_wrap=True)
    for name in chosen:
        preset = presets.described(name)
        console.print(f"{name}\n    {preset.title}")
        if len(chosen) == 1:
            for fact, text in preset.facts.items():
                console.print(f"    {fact}: {text}")
            console.print(f"    file: {presets.root() / name}{presets.SUFFIX}")
        elif "Measured" in preset.facts:
            console.print(f"    Measured: {preset.facts['Measured']}")
    return 0
