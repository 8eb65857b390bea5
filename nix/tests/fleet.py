# The script of fleet.nix: enrol, write on one and read on the other, conflict, resolve, partition, catch-up, restart.
import json
from shlex import quote


def alice(machine, command):
    return machine.succeed(f"su alice -c {quote(command)}")


def soon(machine, command):
    return machine.wait_until_succeeds(f"su alice -c {quote(command)}", timeout=120)


def tcfs(command):
    return f"tcfs --config /etc/tcfs/config.toml {command}"


def same(path):
    """Both machines list the same below this path, with the same contents."""
    seen = f"cd {path} && find . -type f | sort | xargs -r -d '\\n' sha256sum"
    return alice(ann, seen) == alice(bob, seen)


start_all()
server.wait_for_unit("tcfs-nats.service")
server.wait_for_unit("weed.service")
server.wait_for_open_port(4222)
server.wait_for_open_port(8333)

with subtest("both machines mount and enrol themselves"):
    for machine in (ann, bob):
        machine.wait_for_unit("tcfsd.service")
        alice(machine, "test -d /tcfs/.tcfs")
    soon(ann, tcfs("--json device list") + " | grep -c '\"name\":\"bob\"'")
    status = json.loads(alice(ann, tcfs("--json status")))
    assert status["device"]["name"] == "ann", status
    soon(ann, tcfs("status") + " | grep -i connected")

with subtest("what is written on one is read on the other"):
    alice(ann, "mkdir /tcfs/notes && echo monday > /tcfs/notes/plan.md")
    soon(bob, "grep -x monday /tcfs/notes/plan.md")
    alice(bob, "echo tuesday >> /tcfs/notes/plan.md")
    soon(ann, "grep -x tuesday /tcfs/notes/plan.md")
    alice(ann, "head -c 20000000 /dev/urandom > /tcfs/big && " + tcfs("wait"))
    soon(bob, "test $(stat -c %s /tcfs/big) = 20000000")
    assert alice(ann, "sha256sum < /tcfs/big") == alice(bob, "sha256sum < /tcfs/big")

with subtest("others may look, as far as modes allow"):
    alice(ann, "echo open > /tcfs/open && chmod 644 /tcfs/open && echo mine > /tcfs/mine && chmod 600 /tcfs/mine")
    ann.succeed("su nobody -s /bin/sh -c 'cat /tcfs/open'")
    ann.fail("su nobody -s /bin/sh -c 'cat /tcfs/mine'")

with subtest("what both change while they are apart stands there twice"):
    bob.block()
    alice(ann, "echo 'wednesday, says ann' > /tcfs/notes/plan.md")
    alice(bob, "echo 'wednesday, says bob' > /tcfs/notes/plan.md")
    bob.unblock()
    for machine in (ann, bob):
        soon(machine, "test $(ls /tcfs/notes | wc -l) = 2 && ls /tcfs/notes | grep conflict")
    assert same("/tcfs/notes")
    texts = alice(ann, "cat /tcfs/notes/*")
    assert "says ann" in texts and "says bob" in texts, texts

with subtest("removing one ends it everywhere"):
    alice(bob, "rm /tcfs/notes/*conflict*")
    soon(ann, "test $(ls /tcfs/notes | wc -l) = 1")
    soon(ann, tcfs("conflicts") + " | grep -x 'no conflicts'")
    assert same("/tcfs/notes")

with subtest("a machine that was away goes on, and catches up"):
    bob.block()
    alice(ann, "mkdir /tcfs/many && cd /tcfs/many && for i in $(seq 300); do echo $i > $i; done")
    alice(ann, "rm /tcfs/big && mv /tcfs/notes /tcfs/papers && " + tcfs("wait"))
    alice(bob, "mkdir /tcfs/own && for i in $(seq 50); do echo $i > /tcfs/own/$i; done")
    alice(bob, "test ! -e /tcfs/many && test -e /tcfs/notes/plan.md && head -c 1000 /tcfs/big | wc -c")
    bob.unblock()
    soon(bob, "test $(ls /tcfs/many | wc -l) = 300 && test ! -e /tcfs/big && test -e /tcfs/papers/plan.md")
    soon(ann, "test $(ls /tcfs/own | wc -l) = 50")
    assert same("/tcfs")

with subtest("a restart of the service, and one that was killed, lose nothing"):
    alice(ann, "echo before > /tcfs/last")
    ann.succeed("systemctl restart tcfsd.service")
    alice(ann, "grep -x before /tcfs/last")
    alice(ann, "echo after > /tcfs/last")
    ann.succeed("systemctl kill -s KILL tcfsd.service")
    soon(ann, "grep -x after /tcfs/last")
    soon(bob, "grep -x after /tcfs/last")
    ann.succeed("systemctl stop tcfsd.service")
    ann.fail("mountpoint -q /tcfs")
