# Take memory in small pieces.
# Not tried without the sandbox.
def run(c):
    hoard = []
    while True:
        hoard.append(bytearray(1 << 20))
