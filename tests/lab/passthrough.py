# The service with CAP_SYS_ADMIN and without: what each may, and that the drive works with either.
import re

start_all()


def service(machine):
    machine.wait_for_unit("tcfsd.service")
    pid = machine.succeed("systemctl show -P MainPID tcfsd.service").strip()
    return dict(re.findall(r"^(\w+):\s*(\S+)", machine.succeed(f"cat /proc/{pid}/status"), re.M))


def work(machine, user):
    """A tree, a large file, a repository: through the mount, as whoever owns it."""

    def su(command):
        return machine.succeed(f"su {user} -s /bin/sh -c '{command}'")

    su("mkdir /tcfs/d && cp -r /usr/share/common-licenses /tcfs/d/ && diff -r /usr/share/common-licenses /tcfs/d/common-licenses")
    su("head -c 50000000 /dev/urandom > /tcfs/big && sha256sum < /tcfs/big > /tcfs/sum && sha256sum < /tcfs/big | cmp - /tcfs/sum")
    su("cd /tcfs && git init -q r && cd r && git -c user.name=a -c user.email=a@b commit -q --allow-empty -m one && git log --oneline | grep one")
    su("tcfs --config /etc/tcfs/config.toml wait && tcfs --config /etc/tcfs/config.toml git status r | grep -v behind")
    machine.succeed("mountpoint -q /tcfs")


with subtest("with the capability: it mounts itself, is confined, and git gets nothing of it"):
    status = service(direct)
    sys_admin = 1 << 21
    assert int(status["CapEff"], 16) == sys_admin == int(status["CapBnd"], 16), status
    assert int(status["CapAmb"], 16) == 0, status
    assert status["NoNewPrivs"] == "1" and status["Seccomp"] == "2", status
    assert status["Uid"] != "0"
    state = direct.succeed("su ann -c 'tcfs --config /etc/tcfs/config.toml --json status'")
    assert '"passthrough":true' in state, state
    work(direct, "ann")
    # It was handed to the kernel in earnest, not only offered.
    log = direct.succeed("cat /var/lib/tcfs/log/tcfs.log")
    assert "passthrough is not possible" not in log, log

with subtest("without it: by fusermount3, and it may do nothing itself"):
    status = service(helped)
    assert int(status["CapEff"], 16) == 0 and int(status["CapAmb"], 16) == 0, status
    work(helped, "tcfs")
    # Others look as far as modes allow.
    helped.succeed("su tcfs -s /bin/sh -c 'echo x > /tcfs/x && chmod 644 /tcfs/x' && su nobody -s /bin/sh -c 'cat /tcfs/x'")

with subtest("both unmount when they are stopped, and have everything when they are back"):
    for machine in (direct, helped):
        machine.succeed("systemctl stop tcfsd.service")
        machine.fail("mountpoint -q /tcfs")
        machine.succeed("systemctl start tcfsd.service && mountpoint -q /tcfs")
        machine.succeed("su $(stat -c %U /tcfs/sum) -s /bin/sh -c 'sha256sum < /tcfs/big | cmp - /tcfs/sum'")

with subtest("what the configuration has wrong is told, and not tried again and again"):
    direct.succeed("systemctl stop tcfsd.service; sed -i s/auto/atuo/ /etc/tcfs/config.toml")
    direct.fail("systemctl start tcfsd.service")
    assert "Result=exit-code" in direct.succeed("systemctl show -p Result tcfsd.service")
    assert direct.succeed("systemctl is-failed tcfsd.service || true").strip() == "failed"
    assert "conflict_mode" in direct.succeed("journalctl -u tcfsd.service -n 20")
