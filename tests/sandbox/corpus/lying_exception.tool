# An exception whose text loops, and whose type lies.
# Not tried without the sandbox.
class Lie(Exception):
    def __str__(self):
        while True:
            pass


def run(c):
    raise Lie
