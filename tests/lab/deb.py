# The Debian package: installed, its units valid and running with a real systemd, removed; and the service of `tcfs service`.
start_all()
box.succeed("useradd --create-home --shell /bin/bash ann")


def ann(command):
    return box.succeed(session("ann", command))


def mounted(name):
    """Root may not look into a mount of hers: what the table of mounts says."""
    return f"grep -q ' /home/ann/{name} fuse' /proc/mounts"


with subtest("it installs, and brings program, manual, completions and units"):
    box.succeed("dpkg -i /root/tcfs.deb")
    assert box.succeed("tcfs --version") == box.succeed("tcfsd --version").replace("tcfsd", "tcfs")
    box.succeed("man -w tcfs tcfs-mount && bash -n /usr/share/bash-completion/completions/tcfs")
    box.succeed("dpkg --verify tcfs && test -z \"$(dpkg --verify tcfs)\"")
    for unit, how in (("system/tcfs@.service", ""), ("user/tcfs.service", "--user")):
        # A template is looked at as one of its instances.
        instance = "/run/" + unit.split("/")[1].replace("@", "@ann")
        said = box.succeed(f"cp /usr/lib/systemd/{unit} {instance}; XDG_RUNTIME_DIR=/run systemd-analyze verify {how} {instance} 2>&1")
        assert "tcfs" not in said, said

with subtest("the user's own unit mounts the drive"):
    box.succeed("loginctl enable-linger ann")
    box.wait_until_succeeds("test -S /run/user/$(id -u ann)/bus", timeout=60)
    ann("systemctl --user enable --now tcfs && mountpoint -q ~/tcfs && echo one > ~/tcfs/one && tcfs wait")
    ann("systemctl --user restart tcfs && grep -x one ~/tcfs/one")
    ann("systemctl --user disable --now tcfs")
    box.fail(mounted("tcfs"))

with subtest("tcfs service install does, too, and goes again"):
    ann("tcfs service install ~/elsewhere && tcfs service status && mountpoint -q ~/elsewhere && grep -x one ~/elsewhere/one")
    pid = ann("systemctl --user show -P MainPID tcfs").strip()
    box.succeed(f"kill -9 {pid}")
    box.wait_until_succeeds("runuser -u ann -- grep -x one /home/ann/elsewhere/one", timeout=90)
    ann("tcfs service uninstall")
    box.fail(mounted("elsewhere"))

with subtest("the template of the system mounts it for one who does not log in"):
    box.succeed("systemctl enable --now tcfs@ann && " + mounted("tcfs"))
    ann("grep -x one ~/tcfs/one && echo two > ~/tcfs/two && tcfs status | grep -i mounted")

with subtest("another version of the package: the drive goes on, and is the new one after a restart"):
    box.succeed("dpkg -i /root/tcfs.deb && " + mounted("tcfs"))
    ann("grep -x two ~/tcfs/two")
    box.succeed("systemctl restart tcfs@ann")
    ann("grep -x two ~/tcfs/two")

with subtest("removed, it unmounts and leaves what is the user's"):
    before = ann("find ~/.local/state/tcfs -type f | wc -l")
    box.succeed("dpkg -r tcfs")
    box.fail(mounted("tcfs"))
    box.fail("test -e /usr/bin/tcfs -o -e /usr/lib/systemd/user/tcfs.service")
    assert int(ann("find ~/.local/state/tcfs -type f | wc -l")) >= int(before) > 0
    box.succeed("dpkg -P tcfs; dpkg -i /root/tcfs.deb && systemctl restart tcfs@ann")
    ann("grep -x one ~/tcfs/one && grep -x two ~/tcfs/two")
