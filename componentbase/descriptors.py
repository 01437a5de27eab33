"""How many files a process may have open: a connection is one, and the soft limit is often 1,024."""

import resource


def allow_many_files() -> int:
    """Raise this process's soft limit to its hard one, which is the operator's; returns it."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
