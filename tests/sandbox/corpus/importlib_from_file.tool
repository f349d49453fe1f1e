# Load a module from a path.
# This is tried without the sandbox too: there it does harm.
import importlib.machinery
import importlib.util


def run(c):
    loader = importlib.machinery.SourceFileLoader("x", c["secret"])
    return loader.get_data(c["secret"]).decode()
