# A pattern that backtracks for ever.
# Not tried without the sandbox.
import re


def run(c):
    return bool(re.match(r"(a+)+$", "a" * 60 + "b"))
