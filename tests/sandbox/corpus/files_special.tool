# Open a fifo that nobody writes, a socket, a device.
# Not tried without the sandbox.
def run(c):
    found = []
    for path in ("fifo", "socket", "zero", "folder"):
        for action in (files.read_bytes, lambda p: files.write_text(p, "x"), lambda p: files.append_text(p, "x"), files.remove):
            try:
                found.append(repr(action(path))[:20])
            except ToolError as error:
                found.append(type(error).__name__)
    assert found == ["ToolError"] * 16, found
    raise PermissionError("refused")
