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
const LONG: Duration = Duration::from_secs(240);

/// What is done before the script and after it.
const INIT: &str = r#"#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t tmpfs tmp /mnt
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

/// Runs a shell script with the drive of `s` as its directory; what it printed. `meanwhile` is called now and then.
#[track_caller]
fn run(s: &Served, script: &str, mut meanwhile: impl FnMut(&str)) -> String {
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
        if began.elapsed() > LONG {
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
! rmdir d 2>/dev/null; ! ln a.txt hard 2>/dev/null; ! mknod pipe p 2>/dev/null
set -C; echo mine > once; ! (echo theirs > once) 2>/dev/null; [ "$(cat once)" = mine ]; set +C
rm -r d/e; [ ! -e d/e ]; rm d/f*; rmdir d
df . > /dev/null
mkdir git && cd git && git init -q . && git config user.email a@b && git config user.name n && echo x > x && git add x && git commit -qm one
[ -z "$(git status --porcelain)" ]; git fsck --strict; cd ..
ls -a
"#;

#[test]
fn a_kernel_works_on_it_and_another_machine_has_it_all() {
    let w = World::new();
    let (s, bob) = (Served::new(&w, "ann"), w.mount("bob"));
    let out = run(&s, WORK, |_| {});
    assert!(!out.contains(".nfs"), "a removed file is left behind: {out}");
    s.m.wait();
    until("all is there", super::SOON, || {
        let text = |p: &str| fs::read_to_string(bob.path(p)).ok();
        (text("a.txt")? == "hello\n"
            && text("once")? == "mine\n"
            && text("git/x")? == "x\n"
            && fs::metadata(bob.path("big")).ok()?.len() == 0)
            .then_some(())
    });
    let names = fs::read_to_string(bob.path("names")).unwrap();
    assert!(names.contains(".nfs"), "the client gave the removed file a name of its own: {names}");
    for gone in ["open.txt", "d", "hard", "pipe"] {
        assert!(!bob.path(gone).exists(), "{gone}");
    }
    let all = fs::read_dir(bob.root()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect::<Vec<_>>();
    assert!(!all.iter().any(|n| n.starts_with(".nfs")), "it never leaves the machine: {all:?}");
}

/// The daemon is killed in the middle: the client waits, finds it again, and nothing is missing.
#[test]
fn a_copy_goes_on_over_a_restart_of_the_daemon() {
    let w = World::new();
    let mut s = Served::new(&w, "ann");
    let script = r#"
mkdir /mnt/from; for i in $(seq 40); do dd if=/dev/urandom of=/mnt/from/f$i bs=64k count=4 2>/dev/null; done
echo COPYING; cp -r /mnt/from to; sync; echo COPIED
echo 3 > /proc/sys/vm/drop_caches; diff -r /mnt/from to && echo SAME
"#;
    // The server is needed by the copy and changed by the kill: the first start's address is what the client has.
    let first = Served { m: w.device("nobody").off(), port: s.port, export: s.export.clone(), command: String::new() };
    let mut killed = false;
    let out = run(&first, script, |text| {
        let begun = text.contains("COPYING") && s.m.state().join("overlay").read_dir().is_ok_and(|d| d.count() > 0);
        if begun && !killed {
            killed = true;
            s.kill();
            std::thread::sleep(Duration::from_millis(500));
            s.serve();
        }
    });
    assert!(killed && out.contains("SAME"), "{out}");
    assert_eq!((s.port, &s.export), (first.port, &first.export));
}
