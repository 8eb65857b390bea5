# A hub, a leaf node of it on yoga, a Mac that talks to the leaf, and a machine elsewhere that talks to the hub. The store is not
# asked for news in all this time: what arrives has come by the bus.
from shlex import quote


def su(machine, command):
    return machine.succeed(f"su tcfs -c {quote(command)}")


def soon(machine, command):
    return machine.wait_until_succeeds(f"su tcfs -c {quote(command)}", timeout=90)


start_all()
devices = (yoga, mac, far)
hub.wait_for_unit("weed.service")
hub.wait_for_open_port(8333)
for machine in (hub, yoga):
    machine.wait_for_unit("tcfs-nats.service")
for machine in devices:
    machine.wait_for_unit("tcfsd.service")
    soon(machine, "tcfs --config /etc/tcfs/config.toml status | grep -i connected")

with subtest("what one saves, the others have"):
    for i, machine in enumerate(devices):
        su(machine, f"echo {i} > /tcfs/{machine.name}")
        for other in devices:
            soon(other, f"grep -x {i} /tcfs/{machine.name}")

with subtest("the hub is killed: the leaf and its machines go on"):
    hub.succeed("systemctl kill -s KILL tcfs-nats.service; systemctl stop tcfs-nats.service")
    su(yoga, "echo alone > /tcfs/yoga")
    soon(mac, "grep -x alone /tcfs/yoga")
    su(mac, "mkdir /tcfs/m && for i in $(seq 100); do echo $i > /tcfs/m/$i; done")
    soon(yoga, "test $(ls /tcfs/m | wc -l) = 100")
    su(far, "echo apart > /tcfs/far && tcfs --config /etc/tcfs/config.toml wait")
    # Nobody told them.
    su(far, "grep -x 0 /tcfs/yoga && test ! -e /tcfs/m")
    su(yoga, "grep -x 2 /tcfs/far")

with subtest("the hub is back: all converge"):
    hub.succeed("systemctl start tcfs-nats.service")
    for machine in devices:
        soon(machine, "grep -x alone /tcfs/yoga && grep -x apart /tcfs/far && test $(ls /tcfs/m | wc -l) = 100")
    seen = "cd /tcfs && find . -type f | sort | xargs sha256sum"
    assert su(yoga, seen) == su(mac, seen) == su(far, seen)

with subtest("the leaf is killed: the machine elsewhere goes on, and the leaf's catch up"):
    yoga.succeed("systemctl kill -s KILL tcfs-nats.service; systemctl stop tcfs-nats.service")
    su(far, "echo further > /tcfs/far")
    su(mac, "echo later > /tcfs/mac")
    yoga.succeed("systemctl start tcfs-nats.service")
    for machine in devices:
        soon(machine, "grep -x further /tcfs/far && grep -x later /tcfs/mac")
