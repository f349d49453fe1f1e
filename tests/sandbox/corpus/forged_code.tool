# Bytecode that reads outside its constants.
# Not tried without the sandbox.
def run(c):
    code = run.__code__.replace(co_code=bytes([100, 255, 83, 0]), co_consts=(), co_stacksize=2)
    return type(run)(code, {})(c)
