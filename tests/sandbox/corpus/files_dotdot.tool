# Climb out of the workspace by name.
# Not tried without the sandbox.
def run(c):
    return each(lambda path: files.read_text(path), ["../secret", "a/../../secret", "./../secret", "a/./../../secret", "..", "a/..", "../" * 9 + "etc/passwd"])


def each(action, paths):
    found = []
    for path in paths:
        try:
            found.append(action(path))
        except ToolError as error:
            found.append(str(error))
    return found
