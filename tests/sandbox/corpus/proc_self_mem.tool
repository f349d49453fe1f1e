# Read and write memory through /proc/self/mem, and the host's.
# This is tried without the sandbox too: there it does harm.
def run(c):
    found = []
    for name in ("self", c["host"]):
        try:
            with open(f"/proc/{name}/maps") as file:
                found.append(file.read(200))
            with open(c["secret"]) as file:
                found.append(file.read())
        except OSError as error:
            found.append(type(error).__name__)
    return found
