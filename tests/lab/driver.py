"""Runs the script of a NixOS test on machines made by tests/lab/boot, from what the test's nodes evaluate to.

    driver.py SCRIPT NODES.json DIR [PLACE=FILE ...]

NODES.json: for each node the units, files below /etc and users (tests/nix/eval.nix). PLACE=FILE puts a file of this machine
there, one below a bin/ as a program that is found by its name. To be run in a network of its own (unshare --net), which is a
loopback that all machines share; each knows the others by addresses of its own, and is cut off by making those unreachable.
It offers what the scripts here use of the test driver of NixOS, and `session`.
"""

import contextlib
import ctypes
import functools
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time

BOOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "boot")
PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
LIBC = ctypes.CDLL(None)
PR_SET_PDEATHSIG = 1


class Failed(Exception):
    pass


class Machine:
    def __init__(self, number, name, node, names, directory, files):
        self.name, self.node = name, node
        self.dir = os.path.join(directory, name)
        self.layer = os.path.join(self.dir, "layer")
        self.log = os.path.join(directory, f"{name}.log")
        # Where the others are for this one.
        self.others = {other: f"127.0.{number + 1}.{i + 1}" for i, other in enumerate(names) if other != name}
        hosts = ["127.0.0.1 localhost", f"127.0.0.1 {name}"] + [f"{at} {other}" for other, at in self.others.items()]
        self.put("/etc/hosts", "\n".join(hosts) + "\n")
        for path, text in node["etc"].items():
            self.put(f"/etc/{path}", text)
        for unit, text in node["units"].items():
            self.put(f"/etc/systemd/system/{unit}.service", text)
        for place, file in files:
            self.file(place, file)
        self.process = None

    def put(self, path, text):
        at = self.layer + path
        os.makedirs(os.path.dirname(at), exist_ok=True)
        with open(at, "w") as f:
            f.write(text)

    def file(self, place, file):
        at = self.layer + place
        os.makedirs(os.path.dirname(at), exist_ok=True)
        shutil.copyfile(os.path.realpath(file), at)
        if "/bin/" in place:
            os.chmod(at, 0o755)
            link = f"{self.layer}/usr/local/bin/{os.path.basename(place)}"
            os.makedirs(os.path.dirname(link), exist_ok=True)
            os.symlink(place, link)

    def start(self):
        with open(self.log, "w") as log:
            command = [BOOT, self.dir, self.name]
            # It ends with this process, however that ends.
            ends_too = functools.partial(LIBC.prctl, PR_SET_PDEATHSIG, signal.SIGKILL)
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=ends_too)
        self.until(lambda: self.execute("systemctl is-active basic.target")[0] == 0, 60, "its systemd to come up")
        for user, what in self.node["users"].items():
            kind = "--system" if what.get("isSystemUser") else "--create-home"
            self.succeed(f"getent group {what.get('group', 'users')} || groupadd {what.get('group', 'users')}")
            self.succeed(f"useradd {kind} --gid {what.get('group', 'users')} --shell /bin/sh {user}")
        if self.node["userAllowOther"]:
            self.succeed("echo user_allow_other >> /etc/fuse.conf")
        for unit in self.node["units"]:
            self.succeed(f"systemctl start --no-block {unit}.service")

    def first(self):
        """Its systemd, as this system numbers it: the child of `unshare`, which `boot` became."""
        with open(f"/proc/{self.process.pid}/task/{self.process.pid}/children") as f:
            return f.read().split()[0]

    def execute(self, command):
        if self.process.poll() is not None:
            raise Failed(f"{self.name} has ended: {open(self.log).read()[-2000:]}")
        try:
            inside = ["nsenter", "--target", self.first(), "--mount", "--pid", "--ipc", "--uts", "--cgroup", "--root"]
        except (IndexError, FileNotFoundError):
            return 1, "it has no first process yet"
        done = subprocess.run(
            inside + ["env", "-i", f"PATH={PATH}", "HOME=/root", "bash", "-c", f"cd /\n{command}"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=300,
        )
        self.said = done.stderr
        return done.returncode, done.stdout

    def succeed(self, command):
        code, out = self.execute(command)
        if code != 0:
            raise Failed(f"{self.name}: {command}\nended with {code}: {out}{self.said}")
        return out

    def fail(self, command):
        code, out = self.execute(command)
        if code == 0:
            raise Failed(f"{self.name}: {command}\nwas to fail: {out}")
        return out

    def until(self, holds, timeout, what):
        begun = time.monotonic()
        while not holds():
            if time.monotonic() - begun > timeout:
                raise Failed(f"{self.name}: {what} did not happen in {timeout} s\n{self.said}")
            time.sleep(0.1)

    def journal(self):
        return self.execute("systemctl --no-pager --failed; journalctl --no-pager -n 15 -u tcfsd; tail -n 30 /var/lib/tcfs/log/tcfs.log")[1]

    def wait_until_succeeds(self, command, timeout=900):
        last = []

        def holds():
            code, out = self.execute(command)
            last[:] = [out]
            return code == 0

        self.until(holds, timeout, command)
        return last[0]

    def wait_for_unit(self, unit, timeout=120):
        self.until(lambda: self.execute(f"systemctl is-active {unit}")[0] == 0, timeout, f"{unit} to be active")

    def wait_for_open_port(self, port, timeout=120):
        self.wait_until_succeeds(f"timeout 5 bash -c '</dev/tcp/127.0.0.1/{port}'", timeout)

    def block(self):
        for at in self.others.values():
            subprocess.run(["ip", "route", "add", "blackhole", f"{at}/32", "table", "local"], check=True)

    def unblock(self):
        for at in self.others.values():
            subprocess.run(["ip", "route", "del", "blackhole", f"{at}/32", "table", "local"], check=True)

    def end(self):
        if self.process is None:
            return
        if self.process.poll() is None:
            # `unshare --kill-child`, which does not listen to other signals, takes its systemd and everything below with it.
            self.process.kill()
            self.process.wait()
        for kind in ("", "systemd", "unified"):
            top = os.path.join("/sys/fs/cgroup", kind, f"tcfs-machine-{self.process.pid}")
            for path, _, _ in os.walk(top, topdown=False):
                for _ in range(50):
                    try:
                        os.rmdir(path)
                        break
                    except OSError:
                        time.sleep(0.05)


@contextlib.contextmanager
def subtest(name):
    begun = time.monotonic()
    yield
    print(f"{name}: {time.monotonic() - begun:.1f} s", flush=True)


def session(user, commands):
    """The command that runs these as a user in a login session that has a systemd of its own."""
    at = "/run/user/$(id -u)"
    before = f"cd\nexport XDG_RUNTIME_DIR={at} DBUS_SESSION_BUS_ADDRESS=unix:path={at}/bus\n"
    return f"runuser -u {user} -- bash -ec {shlex.quote(before + commands)}"


def main():
    script, nodes, directory, *files = sys.argv[1:]
    files = [f.split("=", 1) for f in files]
    with open(nodes) as f:
        nodes = json.load(f)
    # It ends when whoever called ends.
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    machines = {name: Machine(i, name, node, list(nodes), directory, files) for i, (name, node) in enumerate(nodes.items())}
    names = {name.replace("-", "_"): m for name, m in machines.items()}
    names["machines"] = list(machines.values())
    names["__file__"] = script
    names["subtest"], names["session"] = subtest, session
    names["start_all"] = lambda: [m.start() for m in machines.values()]
    try:
        with open(script) as f:
            exec(compile(f.read(), script, "exec"), names)
    except Exception:
        for m in machines.values():
            if m.process is not None:
                print(f"== {m.name}\n{m.journal()}", file=sys.stderr)
        raise
    finally:
        for m in machines.values():
            m.end()


main()
