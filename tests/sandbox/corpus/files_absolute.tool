# Name the secret by its full path, in several spellings.
# Not tried without the sandbox.
def run(c):
    found = []
    for path in (c["secret"], "/" + c["secret"], "//etc/passwd", "file://" + c["secret"], "~/secret", "a\0" + c["secret"], "", "/", ".", "a//b", "x" * 5000, "é" * 300):
        try:
            found.append(files.read_text(path))
        except ToolError as error:
            found.append(type(error).__name__)
    return found
