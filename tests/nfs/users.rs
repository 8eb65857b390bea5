//! Another user of this machine.

use super::common::{World, tools};
use super::served::Served;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

/// What another user can try: to read the secret, to find the path among what the system tells, to mount it under a path
/// that is guessed, saying that he is root.
const TRY: &str = r#"
import os, socket, struct, sys
port, state = int(sys.argv[1]), sys.argv[2]
assert os.geteuid() != 0
for path in [state + '/nfs.json', state + '/log/tcfs.log', state + '/daemon.sock']:
    try:
        open(path, 'rb').read()
        print('READ', path)
    except OSError:
        pass
def call(program, procedure, uid, args):
    cred = struct.pack('>IIIII', 0, 0, uid, uid, 0)
    body = struct.pack('>IIIIIIII', 5, 0, 2, program, 3, procedure, 1, len(cred)) + cred + struct.pack('>II', 0, 0) + args
    s = socket.create_connection(('127.0.0.1', port), 10)
    s.sendall(struct.pack('>I', len(body) | 0x80000000) + body)
    n = struct.unpack('>I', s.recv(4, socket.MSG_WAITALL))[0] & 0x7fffffff
    return s.recv(n, socket.MSG_WAITALL)
def text(b):
    return struct.pack('>I', len(b)) + b + b'\0' * (-len(b) % 4)
def granted(reply):
    # accepted, done, and no error
    return reply[8:12] == bytes(4) and reply[20:24] == bytes(4) and reply[24:28] == bytes(4)
for uid in [0, os.geteuid()]:
    for path in [b'/', b'', b'/tcfs', b'/tcfs-' + b'0' * 32, b'/..', b'/export']:
        if granted(call(100005, 1, uid, text(path))):
            print('MOUNTED', uid, path)
    exports = call(100005, 5, uid, b'')
    if len(exports) > 28:
        print('TOLD', exports)
    for handle in [bytes(28), b'\xff' * 28, b'\0' * 16 + (1).to_bytes(8, 'big') + bytes(4)]:
        if granted(call(100003, 1, uid, text(handle))):
            print('READ BY HANDLE', uid, handle)
# The processes of others show what they were started with.
for pid in filter(str.isdigit, os.listdir('/proc')):
    try:
        words = open(f'/proc/{pid}/cmdline', 'rb').read()
    except OSError:
        continue
    if b'tcfs-' in words and b'mount' in words and b'127.0.0.1' in words:
        print('SEEN', words)
print('TRIED')
"#;

/// The system's own: one in root's home is not to be run by another user.
const PYTHON: &str = "/usr/bin/python3";

#[test]
fn another_user_of_the_machine_gets_nothing() {
    tools::need_root("becoming another user");
    assert!(fs::exists(PYTHON).unwrap(), "{PYTHON} is missing; install it with: apt-get install -y python3");
    let w = World::new();
    let s = Served::new(&w, "ann");
    // Not the way there but the files themselves keep him out.
    for d in s.m.state().ancestors().take_while(|d| d.starts_with(w.dir())) {
        fs::set_permissions(d, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let script = w.dir().join("try.py");
    fs::write(&script, TRY).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o644)).unwrap();
    let mut cmd = Command::new(tools::find("setpriv"));
    cmd.args(["--reuid=54321", "--regid=54321", "--clear-groups", PYTHON]).arg(&script).arg(s.port.to_string()).arg(s.m.state());
    let done = super::common::cli::run(&mut cmd, super::SOON);
    assert!(done.code == 0 && done.stdout.trim() == "TRIED", "{}", done.text());
}
