# Write to a file outside.
# This is tried without the sandbox too: there it does harm.
def run(c):
    with open(c["target"], "w") as file:
        return file.write("changed")
