#!/usr/bin/env python3
"""Reads a dump of the demonstration's Debian with drgn and prints the results as JSON.

    worker.py DUMP VMLINUX

The dump is opened in place: a paging device's image. Members of the answer: release, tasks (count), panicked
(the task's name), backtrace (function names), pages (number of the worker's pages, found through its page
tables), wrong (pages with a wrong CRC), missing (number of indexes not found), keys.
"""

import json
import struct
import sys
import zlib

import drgn
from drgn.helpers.linux.mm import access_remote_vm, for_each_vma
from drgn.helpers.linux.pid import for_each_task

PAGE = 4096
MAGIC = struct.unpack("<Q", b"TPWORKER")[0]
HEADER = 64
# Bytes to read at a time.
CHUNK = 4 << 20
# Pages from this index on are there to be damaged, and are left alone.
BAIT = 1 << 32


def worker_pages(task):
    """Yields the worker's pages, read through its own address space."""
    for vma in for_each_vma(task.mm):
        start, end = vma.vm_start.value_(), vma.vm_end.value_()
        if vma.vm_file or end - start < CHUNK:
            continue
        for at in range(start, end, CHUNK):
            yield from pages_at(task.mm, at, min(CHUNK, end - at))


def pages_at(mm, start, size):
    try:
        data = access_remote_vm(mm, start, size)
    except drgn.FaultError:
        # Some pages were never touched: read page by page.
        if size > PAGE:
            for at in range(start, start + size, PAGE):
                yield from pages_at(mm, at, PAGE)
        return
    for at in range(0, size, PAGE):
        yield data[at : at + PAGE]


def check(pages):
    """Returns the indexes seen, the number of wrong pages, and the keys."""
    seen, wrong, keys = set(), 0, set()
    for page in pages:
        magic, key, index, _generation, crc = struct.unpack_from("<5Q", page)
        if magic != MAGIC or index >= BAIT:
            continue
        keys.add(key)
        wrong += crc != zlib.crc32(page[HEADER:]) or index in seen
        seen.add(index)
    return seen, wrong, keys


def main(dump, vmlinux):
    prog = drgn.Program()
    prog.set_core_dump(dump)
    prog.load_debug_info([vmlinux])
    tasks = {task.comm.string_().decode(): task for task in for_each_task(prog)}
    crashed = prog.crashed_thread()
    seen, wrong, keys = check(worker_pages(tasks["worker"])) if "worker" in tasks else (set(), 0, set())
    answer = {
        "release": prog["init_uts_ns"].name.release.string_().decode(),
        "tasks": sum(1 for _ in for_each_task(prog)),
        "panicked": crashed.object.comm.string_().decode(),
        "backtrace": [frame.name for frame in crashed.stack_trace() if frame.name],
        "pages": len(seen),
        "wrong": wrong,
        "missing": len(set(range(len(seen))) - seen),
        "keys": sorted(keys),
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    main(*sys.argv[1:])
