# Start a process and let it write.
# This is tried without the sandbox too: there it does harm.
import multiprocessing


def write(path):
    with open(path, "w") as file:
        file.write("here")


def run(c):
    process = multiprocessing.get_context("fork").Process(target=write, args=(c["marker"],))
    process.start()
    process.join()
    return process.exitcode
