# Simply open the file.
# This is tried without the sandbox too: there it does harm.
def run(c):
    return open(c["secret"]).read()
