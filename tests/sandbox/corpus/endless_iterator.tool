# An iterator that never ends, summed.
# Not tried without the sandbox.
import itertools


def run(c):
    return sum(itertools.count())
