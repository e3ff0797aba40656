"""How much memory a process takes, from outside."""
import pathlib
import threading
import time


def status_kb(pid):
    """The memory lines of /proc/PID/status as {name: KiB}; empty once the process is gone."""
    try:
        text = pathlib.Path(f"/proc/{pid}/status").read_text("utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return {}
    return {line.split(":")[0]: int(line.split()[1])
            for line in text.splitlines() if line.endswith(" kB")}


class MemoryWatch:
    """Samples a process every 2 ms while it is in use as a context.

    anon_peak is a sample's maximum and may miss a spike that is shorter; total_peak (VmHWM: anonymous
    and file pages together) is kept by the kernel and misses nothing."""

    def __init__(self, pid):
        self.pid = pid
        self.anon_before = status_kb(pid)["RssAnon"] * 1024
        self.anon_peak = self.file_peak = self.total_peak = self.samples = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample)

    def _sample(self):
        while not self._stop.is_set():
            kb = status_kb(self.pid)
            if not kb:
                return
            self.samples += 1
            self.anon_peak = max(self.anon_peak, kb["RssAnon"] * 1024)
            self.file_peak = max(self.file_peak, kb["RssFile"] * 1024)
            self.total_peak = max(self.total_peak, kb["VmHWM"] * 1024)
            time.sleep(0.002)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()
