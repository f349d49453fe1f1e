# Read and write a file that has another name outside.
# Not tried without the sandbox.
def run(c):
    found = []
    for action in (files.read_text, lambda p: files.write_text(p, "changed"), lambda p: files.append_text(p, "changed")):
        try:
            found.append(action("hard"))
        except ToolError as error:
            found.append(str(error))
    return found
