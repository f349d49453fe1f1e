# An integer of more digits than there is time.
# Not tried without the sandbox.
def run(c):
    return len(str(9 ** (9 ** 9)))
