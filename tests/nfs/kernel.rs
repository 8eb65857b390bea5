//! A real kernel's NFS client: Linux in user mode, on this machine's files, with the drive mounted over a network of its own.

use super::common::{World, tools, until};
use super::served::Served;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Longest that a script may take in there, the start of its kernel included.
pub const LONG: Duration = Duration::from_secs(240);

/// What is done before the script and after it.
const INIT: &str = r#"#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t tmpfs tmp /mnt; mount -t tmpfs tmp /tmp
M=/usr/lib/uml/modules/$(uname -r)/kernel
for m in fs/netfs/netfs fs/fscache/fscache net/sunrpc/sunrpc fs/nfs_common/grace fs/lockd/lockd fs/nfs/nfs fs/nfs_common/nfs_acl fs/nfs/nfsv3; do
    [ ! -f "$M/$m.ko" ] || insmod "$M/$m.ko"
done
ip link set lo up; ip addr add 10.0.2.15/24 dev eth0; ip link set eth0 up; ip route add default via 10.0.2.2
mkdir /mnt/nfs
O=vers=3,proto=tcp,mountproto=tcp,addr=10.0.2.2,mountaddr=10.0.2.2,port=$tcfsport,mountport=$tcfsport,nolock,noacl
mount -i -t nfs -o "$O,rsize=1048576,wsize=1048576,actimeo=1" "10.0.2.2:$tcfsexport" /mnt/nfs || { echo "RESULT mount failed"; halt -f -p; }
cd /mnt/nfs && sh -e "$tcfsscript" && echo "RESULT ok" || echo "RESULT the script failed"
cd /; umount /mnt/nfs && echo "RESULT unmounted"
halt -f -p
"#;

/// Runs a shell script with the drive of `s` as its directory (`/mnt/nfs`; `/mnt` and `/tmp` are its own memory, everything
/// else is this machine's and cannot be written); what it printed. `meanwhile` is called now and then.
#[track_caller]
pub fn run(s: &Served, script: &str, limit: Duration, mut meanwhile: impl FnMut(&str)) -> String {
    let uml = tools::find("linux.uml");
    tools::find("slirp-fullbolt");
    tools::find("insmod");
    let dir = tempfile::Builder::new().prefix("tcfs-uml").tempdir_in("/var/tmp").unwrap();
    let file = |name: &str, text: &str| -> PathBuf {
        let path = dir.path().join(name);
        fs::File::create(&path).unwrap().write_all(text.as_bytes()).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    };
    let (init, script) = (file("init.sh", INIT), file("script.sh", script));
    let slirp = file("slirp.sh", "#!/bin/sh\nexec slirp-fullbolt\n");
    let out = fs::File::create(dir.path().join("out")).unwrap();
    let mut child = Command::new(uml)
        .args(["mem=512M", "root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro", "con=null", "con0=fd:0,fd:1", "quiet"])
        .arg(format!("init={}", init.display()))
        .arg(format!("eth0=slirp,,{}", slirp.display()))
        .arg(format!("tcfsport={}", s.port))
        .arg(format!("tcfsexport={}", s.export))
        .arg(format!("tcfsscript={}", script.display()))
        .current_dir(dir.path())
        .stdin(Stdio::null())
        .stdout(out.try_clone().unwrap())
        .stderr(out)
        .spawn()
        .unwrap();
    let began = Instant::now();
    let text = |d: &Path| String::from_utf8_lossy(&fs::read(d.join("out")).unwrap()).into_owned();
    loop {
        if child.try_wait().unwrap().is_some() {
            break;
        }
        if began.elapsed() > limit {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("the script did not end:\n{}", text(dir.path()));
        }
        meanwhile(&text(dir.path()));
        std::thread::sleep(Duration::from_millis(50));
    }
    let text = text(dir.path());
    assert!(text.contains("RESULT ok") && text.contains("RESULT unmounted"), "{text}\n--- log\n{}", s.m.log());
    text
}

const WORK: &str = r#"
echo hello > a.txt; [ "$(cat a.txt)" = hello ]
mkdir -p d/e; cp -a /etc/passwd d/e/; cmp /etc/passwd d/e/passwd
mv d/e/passwd d/e/users; ln -s users d/e/link; cmp /etc/passwd d/e/link
chmod 600 d/e/users; [ "$(stat -c %a d/e/users)" = 600 ]
dd if=/dev/urandom of=big bs=1M count=6 2>/dev/null; was=$(md5sum < big)
sync; echo 3 > /proc/sys/vm/drop_caches; [ "$(md5sum < big)" = "$was" ]
dd if=/dev/zero of=big bs=1 seek=1000 count=5 conv=notrunc 2>/dev/null; [ "$(stat -c %s big)" = 6291456 ]
: > big; [ "$(stat -c %s big)" = 0 ]
# Removed while it is open: readable to the end, and gone for everybody else.
exec 5<>open.txt; echo first >&5; rm open.txt; echo second >&5; [ "$(cat /proc/self/fd/5)" = "first
second" ]; ls -a > names; exec 5>&-
for i in $(seq 60); do echo $i > d/f$i; done; [ "$(ls d | wc -l)" = 61 ]
! rmdir d 2>/dev/null; ln a.txt hard; [ "$(stat -c %h hard)" = 2 ]; echo more >> hard; [ "$(tail -1 a.txt)" = more ]
mkfifo pipe; (echo through > pipe &) ; [ "$(cat pipe)" = through ]
set -C; echo mine > once; ! (echo theirs > once) 2>/dev/null; [ "$(cat once)" = mine ]; set +C
rm -r d/e; [ ! -e d/e ]; rm d/f*; rmdir d
df . > /dev/null
# A save through a temporary name, over the old file, while that is open.
echo old > plan.md; exec 6<plan.md; echo new > .plan.md.tmp; mv .plan.md.tmp plan.md; [ "$(cat plan.md)" = new ]; [ "$(cat <&6)" = old ]; exec 6<&-
dd if=/dev/urandom of=synced bs=64k count=3 conv=fsync 2>/dev/null; [ "$(stat -c %s synced)" = 196608 ]
truncate -s 10M sparse; [ "$(stat -c %s sparse)" = 10485760 ]; printf end | dd of=sparse bs=1 seek=10485757 conv=notrunc 2>/dev/null
[ "$(head -c 1000000 sparse | tr -d '\0' | wc -c)" = 0 ]; [ "$(tail -c 3 sparse)" = end ]; [ "$(du -k sparse | cut -f1)" -lt 5000 ]
mkdir 日本 'with space'; echo über > '日本/naïve café.txt'; ln -s '../日本/naïve café.txt' 'with space/link'; [ "$(cat 'with space/link')" = über ]
(flock -n 7 && ! flock -n synced true) 7<synced; flock -n synced true
# Much, read back from the server.
dd if=/dev/urandom of=100MiB bs=1M count=100 2>/dev/null; md5sum < 100MiB > sum; sync; echo 3 > /proc/sys/vm/drop_caches; md5sum < 100MiB | cmp - sum
mkdir git && cd git && git init -q . && git config user.email a@b && git config user.name n && echo x > x && git add x && git commit -qm one
[ -z "$(git status --porcelain)" ]; git fsck --strict; cd ..
ls -a
"#;

#[test]
fn a_kernel_works_on_it_and_another_machine_has_it_all() {
    let w = World::new();
    let (s, bob) = (Served::new(&w, "ann"), w.mount("bob"));
    let out = run(&s, WORK, LONG, |_| {});
    assert!(!out.contains(".nfs"), "a removed file is left behind: {out}");
    s.m.wait();
    until("all is there", super::SOON, || {
        let text = |p: &str| fs::read_to_string(bob.path(p)).ok();
        (text("a.txt")? == "hello\nmore\n"
            && text("hard")? == "hello\nmore\n"
            && text("once")? == "mine\n"
            && text("git/x")? == "x\n"
            && fs::metadata(bob.path("big")).ok()?.len() == 0)
            .then_some(())
    });
    assert_eq!(fs::read_to_string(bob.path("with space/link")).unwrap(), "über\n");
    assert_eq!((fs::read(bob.path("plan.md")).unwrap(), fs::metadata(bob.path("sparse")).unwrap().len()), (b"new\n".to_vec(), 10 << 20));
    let sum = std::process::Command::new("md5sum").stdin(fs::File::open(bob.path("100MiB")).unwrap()).output().unwrap();
    assert!(sum.stdout == fs::read(bob.path("sum")).unwrap(), "100 MiB are the same elsewhere");
    let names = fs::read_to_string(bob.path("names")).unwrap();
    assert!(names.contains(".nfs"), "the client gave the removed file a name of its own: {names}");
    for gone in ["open.txt", "d", "pipe"] {
        assert!(!bob.path(gone).exists(), "{gone}");
    }
    let all = fs::read_dir(bob.root()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect::<Vec<_>>();
    assert!(!all.iter().any(|n| n.starts_with(".nfs")), "it never leaves the machine: {all:?}");
}

/// Ten thousand names are listed whole, each once, while others come and go at the server.
#[test]
fn a_kernel_lists_ten_thousand_names_while_others_come_and_go() {
    const NAMES: usize = 10_000;
    let w = World::new();
    let s = Served::new(&w, "ann");
    let mut c = s.client();
    let root = c.root();
    let dir = c.mkdir(&root, "many", 0o755).unwrap();
    for i in 0..NAMES {
        c.symlink(&dir, &format!("stays-{i:05}"), "x").unwrap();
    }
    let script = r#"
for round in 1 2 3 4 5; do
    echo 2 > /proc/sys/vm/drop_caches; sleep 1.1
    ls -f many > /mnt/list; [ "$(grep -c ^stays- /mnt/list)" = 10000 ]; [ "$(grep ^stays- /mnt/list | sort -u | wc -l)" = 10000 ]
    echo "LISTED $(grep -c ^comes- /mnt/list)"
done
"#;
    let mut round = 0;
    let out = run(&s, script, LONG, |_| {
        for _ in 0..20 {
            c.symlink(&dir, &format!("comes-{round}"), "x").unwrap();
            if round >= 50 {
                c.remove(&dir, &format!("comes-{}", round - 50)).unwrap();
            }
            round += 1;
        }
    });
    assert!(round > 200 && out.matches("LISTED").count() == 5, "{round} came meanwhile\n{out}");
}

/// The daemon is killed ten times in the middle: the client waits, finds it again, and nothing that was acknowledged is missing.
#[test]
fn a_copy_and_a_growing_log_go_on_over_ten_kills_of_the_daemon() {
    const KILLS: usize = 10;
    let w = World::new();
    let mut s = Served::new(&w, "ann");
    let script = r#"
mkdir /mnt/from; for i in $(seq 200); do dd if=/dev/urandom of=/mnt/from/f$i bs=16k count=$((i % 8 + 1)) 2>/dev/null; done
# A line is noted as acknowledged once a sync of it was.
(n=0; while [ ! -e /mnt/stop ]; do n=$((n+1)); echo "line $n" >> log; sync -d log && echo $n > /mnt/acknowledged; sleep 0.05; done; touch /mnt/stopped) &
echo COPYING
mkdir to; for i in $(seq 200); do cp /mnt/from/f$i to/; echo "COPIED $i"; done
touch /mnt/stop; while [ ! -e /mnt/stopped ]; do sleep 0.1; done
sync; echo 3 > /proc/sys/vm/drop_caches; diff -r /mnt/from to && echo SAME
n=$(cat /mnt/acknowledged); [ "$(wc -l < log)" -ge "$n" ]; seq -f "line %.0f" $(wc -l < log) | cmp - log && echo "LOG $n"
"#;
    // The server is needed by the copy and changed by the kill: the first start's address is what the client has.
    let first = Served { m: w.device("nobody").off(), port: s.port, export: s.export.clone(), command: String::new() };
    let mut kills = 0;
    let out = run(&first, script, 2 * LONG, |text| {
        // Spread over the copy.
        if kills < KILLS && text.lines().any(|l| l.trim() == format!("COPIED {}", kills * 18 + 5)) {
            kills += 1;
            s.kill();
            std::thread::sleep(Duration::from_millis(200));
            s.serve();
        }
    });
    assert!(kills == KILLS && out.contains("SAME") && out.contains("LOG "), "{kills} kills\n{out}");
    assert_eq!((s.port, &s.export), (first.port, &first.export));
    println!("{}", out.lines().find(|l| l.starts_with("LOG")).unwrap_or_default());
    // And another machine has all of it.
    s.m.wait();
    let bob = w.mount("bob");
    until("all is there", super::SOON, || {
        let n = fs::read_dir(bob.path("to")).ok()?.count();
        (n == 200 && fs::read(bob.path("log")).is_ok()).then_some(())
    });
}

/// A person who has only the mount: the control directory through the kernel's client, as through FUSE (`tests/ways`).
const CONTROL: &str = r#"
set -x
no() { if "$@"; then echo "it worked: $*"; exit 1; fi; }
n=0; while ! grep -q '"name": "bob"' .tcfs/devices.json; do n=$((n+1)); [ $n -lt 60 ]; sleep 1.1; done
[ "$(cat .tcfs/pending.json)" = "[]" ]; grep -q '"pending": 0' .tcfs/status.json; grep -q '^tcfs_conflicts 1$' .tcfs/metrics
ls .tcfs/at | grep -q yesterday; [ "$(ls -a | grep -c tcfs)" = 0 ]
grep -q plan.md .tcfs/conflicts.json
s=$(ls | grep conflict); rm "$s"
n=0; while grep -q plan.md .tcfs/conflicts.json; do n=$((n+1)); [ $n -lt 60 ]; sleep 1.1; done
[ ! -e gone.txt ]; ls .tcfs/history | grep -q gone.txt
cp .tcfs/history/gone.txt/* back.txt; [ "$(cat back.txt)" = precious ]
first=$(ls .tcfs/history/plan.md | head -1); [ "$(cat .tcfs/history/plan.md/$first)" = base ]
moment=$(cat moment); [ "$(cat .tcfs/at/$moment/gone.txt)" = precious ]; diff -r .tcfs/at/$moment/d d; cmp .tcfs/at/$moment/big big
no touch .tcfs/x; no rm -f .tcfs/status.json; no mkdir .tcfs/at/x; no mv plan.md .tcfs/; no cp plan.md .tcfs/at/$moment/new
tail -n 1 .tcfs/events | grep -q '"event"'; grep -q tcfs .tcfs/log
"#;

#[test]
fn with_ls_cat_cp_and_rm_alone_by_a_kernels_nfs_client() {
    let w = World::new();
    let (s, bob) = (Served::new(&w, "ann"), w.mount("bob"));
    let ann = &s.m;
    let push = |m: &super::common::Mounted, text: &str, to: &str| {
        let file = w.dir().join("source");
        fs::write(&file, text).unwrap();
        m.cli(&["push", file.to_str().unwrap(), "--to", to]);
    };
    push(ann, "base", "plan.md");
    push(ann, "precious", "gone.txt");
    push(ann, "deep", "d/e/f");
    let big: String = (0..400_000).map(|n| format!("{n}\n")).collect();
    push(ann, &big, "big");
    ann.wait();
    until("all is there", super::SOON, || (bob.path("big").exists() && bob.path("plan.md").exists()).then_some(()));
    std::thread::sleep(Duration::from_millis(20));
    let date = Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%S.%3NZ"]).output().unwrap();
    push(ann, String::from_utf8_lossy(&date.stdout).trim(), "moment");
    bob.fault(Some(serde_json::json!({"mode": "down"})));
    fs::write(bob.path("plan.md"), "from bob").unwrap();
    push(ann, "from ann", "plan.md");
    ann.wait();
    bob.fault(None);
    fs::remove_file(bob.path("gone.txt")).unwrap();
    bob.wait();
    until("the conflict is here", super::SOON, || {
        let status = ann.status();
        let gone = !ann.cli(&["ls"]).stdout.contains("gone.txt");
        (status["conflicts"] == 1 && status["pending"] == 0 && gone).then_some(())
    });
    run(&s, CONTROL, LONG, |_| {});
    until("the conflict is over everywhere", super::SOON, || {
        let names: Vec<_> = fs::read_dir(bob.root()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        let whole = fs::read_to_string(bob.path("back.txt")).is_ok_and(|t| t == "precious");
        (whole && !names.iter().any(|n| n.contains("conflict"))).then_some(())
    });
}
