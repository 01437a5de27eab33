"""
Linux's sysfs for pins and 1-wire, played in a directory: `python -m tests.harness.fake_sysfs DIRECTORY`.

Chip "board" has pins 512 to 519. What is written into class/gpio/export makes the pin's directory, and a direction and
a value do what the kernel would do with them, some milliseconds later. A wire joins pin 515 to pin 514, so that an
output can be seen by an input. A thermometer 28-0316a2794bff has 23.125 °C. kill -9 and another start are a reboot: all
pins are inputs again.
"""

import shutil
import sys
import threading
from pathlib import Path

BASE, PINS = 512, 8
WIRE_FROM, WIRE_TO = 515, 514
SENSOR = "28-0316a2794bff"
GOOD = "72 01 4b 46 7f ff 0e 10 57 : crc=57 YES\n72 01 4b 46 7f ff 0e 10 57 t=23125\n"
BAD_CRC = GOOD.replace("YES", "NO")
TICK_S = 0.005


def write(path: Path, text: str) -> None:
    """At once or not at all, since a driver may read meanwhile."""
    scratch = path.with_name(f".{path.name}")
    scratch.write_text(text)
    scratch.replace(path)


class Sysfs:
    def __init__(self, root: Path) -> None:
        self.gpio = root / "class/gpio"
        self.levels = dict.fromkeys(range(BASE, BASE + PINS), False)
        """At the pin, whatever active_low says."""
        shutil.rmtree(self.gpio, ignore_errors=True)
        chip = self.gpio / f"gpiochip{BASE}"
        sensor = root / "bus/w1/devices" / SENSOR
        for directory in (chip, sensor):
            directory.mkdir(parents=True, exist_ok=True)
        for name, text in (("label", "board"), ("base", str(BASE)), ("ngpio", str(PINS))):
            write(chip / name, text + "\n")
        write(sensor / "w1_slave", GOOD)
        write(self.gpio / "export", "")

    def tick(self) -> None:
        text = (self.gpio / "export").read_text().strip()
        if text:
            write(self.gpio / "export", "")
            directory = self.gpio / f"gpio{int(text)}"
            if int(text) in self.levels and not directory.exists():
                self.export(directory)
        for number in self.levels:
            directory = self.gpio / f"gpio{number}"
            if directory.exists():
                self.obey(number, directory)
        self.levels[WIRE_TO] = self.levels[WIRE_FROM]

    def export(self, directory: Path) -> None:
        scratch = directory.with_name(f".{directory.name}")
        scratch.mkdir(exist_ok=True)
        for name, text in (("direction", "in"), ("value", "0"), ("active_low", "0")):
            write(scratch / name, text + "\n")
        scratch.replace(directory)

    def obey(self, number: int, directory: Path) -> None:
        direction = (directory / "direction").read_text().strip()
        is_low = (directory / "active_low").read_text().strip() == "1"
        value = (directory / "value").read_text().strip()
        if direction in ("high", "low"):
            self.levels[number] = direction == "high"
            write(directory / "value", f"{int(self.levels[number] != is_low)}\n")
            write(directory / "direction", "out\n")
        elif direction == "out" and value:
            self.levels[number] = (value == "1") != is_low
        elif direction == "in":
            now = str(int(self.levels[number] != is_low))
            if value != now:
                write(directory / "value", now + "\n")


def main() -> None:
    sysfs = Sysfs(Path(sys.argv[1]))
    print("ready 0", flush=True)
    while not threading.Event().wait(TICK_S):
        sysfs.tick()


if __name__ == "__main__":
    main()
