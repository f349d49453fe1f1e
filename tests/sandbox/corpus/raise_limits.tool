# Raise the limits again, or those of another.
# Not tried without the sandbox.
import resource


def run(c):
    done = []
    for which in range(16):
        for step in (lambda w=which: resource.setrlimit(w, (-1, -1)), lambda w=which: resource.prlimit(c["bystander"], w, (1, 1))):
            try:
                step()
                done.append(which)
            except (OSError, ValueError):
                pass
    assert not done, done
    raise PermissionError("refused")
