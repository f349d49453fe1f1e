# Return more than may cross.
# Not tried without the sandbox.
def run(c):
    return ["x" * 1000] * 10**5
