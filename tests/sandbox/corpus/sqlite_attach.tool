# Let SQLite write a file.
# This is tried without the sandbox too: there it does harm.
import sqlite3


def run(c):
    connection = sqlite3.connect(c["marker"])
    connection.execute("create table t (a)")
    connection.commit()
