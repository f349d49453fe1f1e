# Pass descriptors over the channel to the host, and ask for some.
# Not tried without the sandbox.
import array
import os
import socket


def run(c):
    channel = socket.socket(fileno=3)
    channel.sendmsg([b"\0\0\0\0"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))])
    return channel.recvmsg(100, 100)[1]
