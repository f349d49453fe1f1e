# Unpickle an object that runs a command.
# This is tried without the sandbox too: there it does harm.
import os
import pickle


class Bomb:
    def __reduce__(self):
        return os.system, (command,)


def run(c):
    global command
    command = "cp " + c["secret"] + " " + c["marker"]
    return pickle.loads(b"cos\nsystem\n(S'" + command.encode() + b"'\ntR.")
