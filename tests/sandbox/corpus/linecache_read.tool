# Let the standard library read the file as if it were source.
# This is tried without the sandbox too: there it does harm.
import linecache


def run(c):
    return "".join(linecache.getlines(c["secret"]))
