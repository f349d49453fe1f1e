# Make names that look like ways out.
# Not tried without the sandbox.
def run(c):
    found = []
    for path in ("..\\secret", "a/..\u2215secret", "\u2025/secret", "%2e%2e/secret", "a;cat secret", "-rf", "\u202etxt", "new\nline"):
        try:
            files.write_text(path, "x")
            found.append(files.read_text(path))
        except ToolError as error:
            found.append(type(error).__name__)
    return found
