# Take memory in one piece.
# Not tried without the sandbox.
def run(c):
    return len("x" * (1 << 40))
