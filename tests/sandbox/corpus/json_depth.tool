# Nest a text until the parser's stack is gone.
# Not tried without the sandbox.
import json
import sys


def run(c):
    sys.setrecursionlimit(10**9)
    return json.loads("[" * 10**6)
