#!/usr/bin/env python3
"""Boots a configuration, crashes a partition once its console prints a text, checks the dump, and exits with a status.

    examples/harness.py CONFIG.toml PARTITION TEXT [COMMAND...]

TEXT appears on the console when the partition is up; COMMAND is `tidepool` (default: cargo run -q --).
Status 0: the partition crashed and restarted, and its dump verifies. 1: a failure. 2: wrong arguments.
"""

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import tomllib

LIMIT = 600  # seconds for the whole run


class Node:
    """A node that `tidepool boot` runs, accessed through its sockets."""
    def __init__(self, command, config, partition, folder):
        events, console = f"{folder}/events", f"{folder}/console"
        boot = ["boot", "--quiet", config, "--events", events, "--console", f"{partition}={console}"]
        self.process = subprocess.Popen(command + boot, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        atexit.register(self.process.terminate)
        self.events = self.connect(events).makefile("rw")
        self.console = self.connect(console)
        self.seen, self.asked = [], 0

    def connect(self, path):
        """Connects to a socket, which exists once the configuration was checked."""
        while True:
            if self.process.poll() is not None:
                sys.exit(f"the command ended with status {self.process.returncode}")
            try:
                line = socket.socket(socket.AF_UNIX)
                line.connect(path)
                return line
            except OSError:
                time.sleep(0.05)

    def wait(self, **wanted):
        """Returns the next event with these members since the last command. Its effects may come before its reply."""
        at = self.asked
        while True:
            if at == len(self.seen):
                line = self.events.readline()
                self.seen.append(json.loads(line or sys.exit(f"the end before {wanted}; {self.seen[-1:]}")))
            if all(self.seen[at].get(key) == value for key, value in wanted.items()):
                return self.seen[at]
            at += 1

    def wait_for_text(self, text):
        """Reads the console until `text` appears."""
        heard = b""
        while text.encode() not in heard:
            heard += self.console.recv(4096) or sys.exit(f"no “{text}” in {heard[-500:]!r}")

    def command(self, number, **command):
        self.asked = len(self.seen)
        print(json.dumps({"id": number, **command}), file=self.events, flush=True)
        reply = self.wait(event="reply", id=number)
        if not reply["ok"]:
            sys.exit(f"{command}: {reply['error']}")

    def image(self, config, disk):
        """Returns the image file of a disk: the emulator's serial `disk1` is the second image."""
        serial = next(e["serial"] for e in self.seen if e["event"] == "disk" and e["index"] == disk)
        with open(config, "rb") as file:
            images = [device["image"] for device in tomllib.load(file)["paging_device"] if "image" in device]
        return os.path.join(os.path.dirname(config), images[int(serial.removeprefix("disk"))])


def main(config, partition, text, *command):
    signal.signal(signal.SIGALRM, lambda *_: sys.exit(f"not over within {LIMIT} s"))
    signal.alarm(LIMIT)
    command = list(command) or ["cargo", "run", "-q", "--"]
    with tempfile.TemporaryDirectory() as folder:
        node = Node(command, config, partition, folder)
        node.wait_for_text(text)
        node.command(1, command="crash", partition=partition)
        crash = node.wait(event="crash", partition=partition)
        dump = node.wait(event="dump_complete", partition=partition)
        node.wait_for_text(text)  # the next incarnation is up
        node.command(2, command="poweroff")
        status = node.process.wait()
    image = [node.image(config, dump["disk"])] + ([str(dump["space"])] if dump["space"] else [])
    verified = subprocess.run(command + ["dump", "verify"] + image).returncode
    print(f"{partition}: crashed ({crash['reason']}), {dump['bytes_written']} bytes written; dump in {' '.join(image)}")
    return 1 if status or verified else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]) if len(sys.argv) > 3 else 2)
