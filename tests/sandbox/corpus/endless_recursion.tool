# Recurse until the stack is gone.
# Not tried without the sandbox.
import sys


def run(c):
    sys.setrecursionlimit(10**9)
    def down(n):
        return down(n + 1) + repr([n]).__len__()
    return down(0)
