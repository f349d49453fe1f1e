"""The layers of the sandbox by name, and the sets of them that one may require.

`REQUIRED` holds on an ordinary Linux (5.13 or newer) that lets users make namespaces. Where it does not (a container
under Docker's default profile, Ubuntu's `apparmor_restrict_unprivileged_userns`), `WITHOUT_NAMESPACES` is what still
needs no privilege: Landlock denies every file and seccomp every socket, process and signal.
"""

from collections.abc import Iterable, Mapping

from .errors import BadJob, LayerMissing

WITHOUT_NAMESPACES = frozenset(
    {"closed_descriptors", "no_capabilities", "no_new_privs", "rlimits", "landlock", "seccomp"}
)
REQUIRED = WITHOUT_NAMESPACES | {"user_ns", "net_ns", "pid_ns"}
ALL = REQUIRED | {"mount_ns", "empty_root", "ipc_ns", "uts_ns", "cgroup_ns"}

_ADVICE = {
    "landlock": "it needs Linux 5.13 with `landlock` in /sys/kernel/security/lsm",
    "seccomp": "it needs a kernel built with CONFIG_SECCOMP_FILTER",
}
_NAMESPACE_ADVICE = (
    "allow user namespaces (sysctl user.max_user_namespaces, kernel.apparmor_restrict_unprivileged_userns)"
)


def known(names: Iterable[str]) -> frozenset[str]:
    """Return the names as a set; BadJob where one is no layer."""
    wanted = frozenset(names)
    for name in sorted(wanted - ALL):
        raise BadJob(f"there is no layer {name!r}; the layers are {', '.join(sorted(ALL))}")
    return wanted


def demand(required: frozenset[str], held: Mapping[str, str]) -> tuple[str, ...]:
    """Return the layers that hold, sorted; LayerMissing names the first required one that does not."""
    for name in sorted(required, key=lambda name: (name != "user_ns", name)):  # the others hang on that one
        reason = held.get(name, "it was never reported")
        if reason:
            advice = _ADVICE.get(name, _NAMESPACE_ADVICE if name.endswith(("_ns", "_root")) else "run it elsewhere")
            raise LayerMissing(
                f"the sandbox refuses to run: layer {name!r} is required and does not hold ({reason}); "
                f"{advice}, or require fewer with layers=",
                name,
            )
    return tuple(sorted(name for name, reason in held.items() if not reason and name in ALL))
