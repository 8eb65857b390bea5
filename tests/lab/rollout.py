# Runs the chapter "Operations" of the README: every block of commands, from top to bottom, on the machines that it names.
import os
import re
from shlex import quote

readme = open(os.path.join(os.path.dirname(__file__), "../../README.md")).read()
chapter = re.search(r"^## Operations\n(.*?)^## ", readme, re.M | re.S).group(1)
blocks = re.findall(r"^```sh (root |soon )?on ([^\n]+)\n(.*?)^```$", chapter, re.M | re.S)
assert len(blocks) == chapter.count("```sh") > 20, "a block of commands says on which machine it is to be run"



def s3_answers():
    server.wait_until_succeeds("timeout 5 openssl s_client -connect localhost:8333 < /dev/null", timeout=60)


start_all()
for name in ("tcfs-nats", "weed"):
    server.wait_for_unit(f"{name}.service")
lab = [m for m in machines if m.name != "server"]

with subtest("what is there before: S3 with TLS, a hub, a leaf; users"):
    server.succeed(
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=server -addext subjectAltName=DNS:server"
        " -addext basicConstraints=critical,CA:FALSE -keyout /etc/weed/key -out /etc/weed/cert 2>&1 && chmod 644 /etc/weed/key"
        " && sed -i '/^ExecStart=/ s|$| -s3.cert.file=/etc/weed/cert -s3.key.file=/etc/weed/key|' /etc/systemd/system/weed.service"
        " && systemctl daemon-reload && systemctl restart weed"
    )
    certificate = server.succeed("cat /etc/weed/cert")
    yoga.wait_for_unit("tcfs-nats.service")
    for m in lab:
        m.succeed(f"cat >> /etc/ssl/certs/ca-certificates.crt <<'END'\n{certificate}\nEND")
        m.succeed("useradd --create-home --shell /bin/bash ann && loginctl enable-linger ann")
        m.wait_until_succeeds("test -S /run/user/$(id -u ann)/bus", timeout=60)
    s3_answers()


def run(m, who, commands):
    given = {
        "S3": "https://server:8333",
        "KEY_ID": "test",
        "SECRET_KEY": "test-key",
        "BUS": f"nats://{'127.0.0.1' if m.name == 'yoga' else 'yoga'}:4223",
        "BUS_PASSWORD": "test-password",
    }
    if who == "root ":
        return f"cd /root\nset -e\n{commands}"
    before = "".join(f"export {k}={quote(v)}\n" for k, v in given.items())
    return session("ann", before + commands)


def on(m, who, commands):
    if who == "soon ":
        said = m.wait_until_succeeds(run(m, who, commands), timeout=90)
    else:
        said = m.succeed(run(m, who, commands))
    print(f"-- {m.name}\n{commands}{said}")
    return said


for who, where, commands in blocks:
    every = where.startswith("every machine")
    if "every machine, one after the other" in where:
        # What came before has set aside what the machines have. Now the store is gone.
        server.succeed("systemctl kill -s KILL weed; systemctl stop weed && rm -rf /var/lib/weed/* && systemctl start weed")
        s3_answers()
    for m in [m for m in lab if every or m.name == where]:
        with subtest(f"{m.name}: {commands.splitlines()[0]}"):
            said = on(m, who, commands)
        # What a person would look for in what it says.
        if "device list" in commands:
            assert all(n in said for n in ("xoxd-bates", "petting-zoo-mini", "yoga")), said
            m.wait_until_succeeds(run(m, who, "test $(tcfs device list | grep -c online) = 2"), timeout=90)
        if "tcfs why" in commands:
            assert "hello from xoxd-bates" in said and "xoxd-bates wrote" in said, said
        if "tail -n 3" in commands:
            assert "rollout/now" in said, said
        if "resolve-conflict" in commands:
            assert "plan.conflict-" in said and "-the plan of" in said and "+the plan of" in said, said
        if "log --oneline" in commands:
            assert said.split("\n")[0].endswith(" one"), said
        if re.search("^tcfs conflicts( && tcfs status)?$", commands, re.M):
            assert "no conflicts" in said, said
    assert every or where in [m.name for m in lab], where

with subtest("and what the page says besides"):
    for m in lab:
        on(m, "soon ", "tcfs status | grep 'bus.*connected'")
    # An older program and a newer state.
    db = "~/.local/state/tcfs/state.db"
    on(yoga, "", "systemctl --user stop tcfs")
    on(yoga, "", f"sqlite3 {db} 'PRAGMA user_version=99'")
    assert "newer tcfs" in on(yoga, "", "tcfs ls / 2>&1 || true")
    on(yoga, "", f"sqlite3 {db} 'PRAGMA user_version=1' && systemctl --user start tcfs && cat ~/tcfs/rollout/hello.txt")
    # The backup of before is a store.
    keep = "tcfs --state-dir /tmp/other --store file://$HOME/backup"
    assert "hello from xoxd-bates" in on(petting_zoo_mini, "", f"{keep} device enroll --name other && {keep} pull rollout/hello.txt /tmp/h && cat /tmp/h")
