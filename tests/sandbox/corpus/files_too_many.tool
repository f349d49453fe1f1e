# Ask more often than a call may.
# Not tried without the sandbox.
def run(c):
    while True:
        try:
            files.exists("nothing")
        except ToolError:
            pass
