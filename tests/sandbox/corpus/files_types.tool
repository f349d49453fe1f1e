# Arguments of types that no path has.
# Not tried without the sandbox.
def run(c):
    found = []
    for value in (None, 3, b"link", ["link"], {"path": "link"}, True, 1.5):
        for action in (files.read_text, files.list_folder, lambda p: files.write_bytes("new", p), lambda p: files.write_text(p, p)):
            try:
                found.append(repr(action(value)))
            except ToolError as error:
                found.append(str(error))
    return found
