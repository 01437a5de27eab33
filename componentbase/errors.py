"""
The one kind of exception whose text is meant for the person who started a command.

It stands alone so that a process which reads no configuration file need not load, or install, what reads one.
"""


class CommandError(Exception):
    """The command cannot go on; the text is its last line. componentbase.cli.guard prints it and exits with 1."""
