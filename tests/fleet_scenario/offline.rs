//! A machine that was away while the others worked: afterwards all show the same, and nothing is lost.

use super::proxy::Proxy;
use super::*;
use serde_json::json;
use std::fs;
use std::time::Instant;

/// How yoga is away.
#[derive(Clone, Copy, PartialEq)]
enum Away {
    /// Its daemon does not run; it pushes without one.
    Stopped,
    /// Its daemon runs and reaches neither store nor bus.
    Cut,
}

/// What becomes of the bus meanwhile.
#[derive(Clone, Copy, PartialEq)]
enum Bus {
    There,
    /// Everything that was said is forgotten before yoga comes back.
    Expired,
    /// The server is killed while the others work, and comes back with nothing.
    Wiped,
    /// There never was one.
    Never,
}

/// The figure for coming to rest, as often as a busy machine may need it.
const REST: Duration = Duration::from_secs(300);

fn file(i: usize) -> String {
    format!("d{:02}/file-{i:04}.txt", i % 23)
}

fn spell(away: Away, bus: Bus) {
    let mut lab = Lab::new();
    let n = common::count(300, 5000);
    let (store_line, bus_line) = (Proxy::to(lab.weed.port()), Proxy::to(lab.nats.port));
    let machine = |name: &str, store: &str, url: String| {
        let m = lab.at(name, store);
        // The later setting of a variable counts.
        let m = if bus == Bus::Never { m.env("TCFS_POLL_INTERVAL", "5s").env("TCFS_NATS_URL", "") } else { m.env("TCFS_NATS_URL", url) };
        m.mount()
    };
    let direct = lab.weed.endpoint();
    let zoo = machine("petting-zoo-mini", &direct, lab.nats.url());
    let bates = machine("xoxd-bates", &direct, lab.nats.url());
    let line = format!("http://127.0.0.1:{}", store_line.port());
    let yoga = machine("yoga", &line, format!("nats://127.0.0.1:{}", bus_line.port()));
    let all = [&zoo, &bates, &yoga];
    if bus != Bus::Never {
        all.iter().for_each(|m| is_connected(m));
    }
    for i in 0..n / 2 {
        let path = zoo.path(file(i));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("as it was {i}")).unwrap();
    }
    zoo.wait();
    assert_eq!(converged(&all, REST).len(), n / 2);

    if away == Away::Stopped {
        yoga.unmount();
    }
    store_line.cut(true);
    bus_line.cut(true);
    // What the line had taken is through.
    std::thread::sleep(Duration::from_millis(500));

    // The others: one in five of what was there is edited, one in five moved, one in twenty removed; as much is made.
    let mut said: Vec<String> = vec![];
    for i in 0..n {
        let m = if i % 2 == 0 { &zoo } else { &bates };
        // The other one has it by now, if it is to be moved or removed there.
        let has = || until("the other machine has it", SOON, || m.path(file(i)).exists().then_some(()));
        match i {
            i if i >= n / 2 => {
                fs::create_dir_all(m.path(file(i)).parent().unwrap()).unwrap();
                fs::write(m.path(file(i)), format!("made while away {i}")).unwrap();
                said.push(format!("made while away {i}"));
            }
            i if i % 5 == 0 => {
                has();
                fs::write(m.path(file(i)), format!("edited by the others {i}")).unwrap();
                said.push(format!("edited by the others {i}"));
            }
            i if i % 5 == 1 => {
                has();
                fs::rename(m.path(file(i)), m.path(format!("{}-moved", file(i)))).unwrap();
                said.push(format!("as it was {i}"));
            }
            i if i % 20 == 2 => {
                has();
                fs::remove_file(m.path(file(i))).unwrap();
            }
            _ => said.push(format!("as it was {i}")),
        }
        if i == n / 3 && bus == Bus::Wiped {
            lab.nats.kill();
            lab.nats.wipe();
        }
    }
    // yoga edits some of each kind.
    let local = lab.world.dir().join("local");
    for i in (0..n / 2).filter(|i| i / 5 % 4 == 0) {
        let text = format!("edited by yoga {i}");
        match away {
            Away::Cut => fs::write(yoga.path(file(i)), &text).unwrap(),
            Away::Stopped if i % 20 == 0 => {
                fs::create_dir_all(&local).unwrap();
                let name = file(i).rsplit_once('/').unwrap().1.to_owned();
                fs::write(local.join(&name), &text).unwrap();
                yoga.fault(Some(json!({ "mode": "down" })));
                yoga.cli(&["push", local.join(&name).to_str().unwrap(), "--to", &format!("{}/", file(i).split('/').next().unwrap())])
                    .exit(3);
            }
            Away::Stopped => continue,
        }
        said.push(text);
    }
    zoo.wait();
    bates.wait();
    match bus {
        Bus::Wiped => lab.nats.restart(),
        Bus::Expired => forget(&lab.nats.url()),
        Bus::There | Bus::Never => {}
    }

    store_line.cut(false);
    bus_line.cut(false);
    let back = Instant::now();
    yoga.fault(None);
    if away == Away::Stopped {
        yoga.mount();
    }
    let tree = converged(&all, REST);
    println!("{n} changes while away: all show the same {:?} later", back.elapsed());

    let texts: std::collections::BTreeSet<&[u8]> = tree.values().map(Vec::as_slice).collect();
    let replaced = |t: &str| t.starts_with("as it was") && said.iter().any(|s| s.starts_with("edited by yoga") && s.ends_with(&t[9..]));
    for t in &said {
        // What yoga had of a file when it edited it is what the others moved: the edit followed.
        assert!(texts.contains(t.as_bytes()) || replaced(t), "lost: {t}");
    }
    // Edited on both sides: both stand.
    let both: Vec<usize> = (0..n / 2)
        .filter(|i| said.contains(&format!("edited by yoga {i}")) && said.contains(&format!("edited by the others {i}")))
        .collect();
    assert!(!both.is_empty());
    for i in both {
        let (dir, name) = file(i).split_once('/').map(|(d, n)| (d.to_owned(), n.to_owned())).unwrap();
        let stem = format!("{dir}/{}.conflict-", name.trim_end_matches(".txt"));
        assert_eq!(tree.keys().filter(|p| p.starts_with(&stem)).count(), 1, "{stem}");
    }
    // What was removed and not edited elsewhere is gone.
    for i in (0..n / 2).filter(|i| i % 20 == 2 && !said.contains(&format!("edited by yoga {i}"))) {
        assert!(!tree.contains_key(&file(i)), "{} is back", file(i));
    }
}

/// As after the days for which the stream keeps anything.
#[tokio::main(flavor = "current_thread")]
async fn forget(url: &str) {
    let client = async_nats::connect(url).await.unwrap();
    let stream = async_nats::jetstream::new(client).get_stream("STATE_UPDATES").await.unwrap();
    assert!(stream.purge().await.unwrap().purged > 0);
}

#[test]
fn its_daemon_did_not_run() {
    drive_only!();
    spell(Away::Stopped, Bus::There);
}

#[test]
fn its_network_was_cut_off() {
    drive_only!();
    spell(Away::Cut, Bus::There);
}

#[test]
fn its_network_was_cut_off_until_all_messages_had_expired() {
    drive_only!();
    spell(Away::Cut, Bus::Expired);
}

#[test]
fn the_bus_lost_everything_meanwhile() {
    drive_only!();
    spell(Away::Cut, Bus::Wiped);
}

#[test]
fn there_never_was_a_bus() {
    drive_only!();
    spell(Away::Stopped, Bus::Never);
    spell(Away::Cut, Bus::Never);
}

/// Both it and the others delete more while it is away than the brake lets pass: what one deleted the rest still have, until
/// somebody approves; then it is gone everywhere.
#[test]
fn more_was_deleted_than_the_brake_lets_pass() {
    drive_only!();
    let lab = Lab::new();
    let n = common::count(800, 5000);
    let (store_line, bus_line) = (Proxy::to(lab.weed.port()), Proxy::to(lab.nats.port));
    let zoo = lab.machine("petting-zoo-mini").mount();
    let bates = lab.machine("xoxd-bates").mount();
    let line = format!("http://127.0.0.1:{}", store_line.port());
    let yoga = lab.at("yoga", &line).env("TCFS_NATS_URL", format!("nats://127.0.0.1:{}", bus_line.port())).mount();
    let all = [&zoo, &bates, &yoga];
    all.iter().for_each(|m| is_connected(m));
    for i in 0..n {
        let path = zoo.path(file(i));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("as it was {i}")).unwrap();
    }
    zoo.wait();
    assert_eq!(converged(&all, REST).len(), n);
    // Nothing is held back from nobody: each has to have heard of the others.
    let knows = |m: &Mounted| m.status()["devices"].as_u64() == Some(3);
    until("each has heard of the others", SOON, || all.iter().all(|m| knows(m)).then_some(()));

    store_line.cut(true);
    bus_line.cut(true);
    // Of ten files zoo deletes six, yoga three, and the tenth is edited by yoga.
    let of = |what: fn(usize) -> bool| (0..n).filter(move |i| what(i % 10));
    of(|d| d < 6).for_each(|i| fs::remove_file(zoo.path(file(i))).unwrap());
    of(|d| (6..9).contains(&d)).for_each(|i| fs::remove_file(yoga.path(file(i))).unwrap());
    of(|d| d == 9).for_each(|i| fs::write(yoga.path(file(i)), format!("edited {i}")).unwrap());
    zoo.wait();
    store_line.cut(false);
    bus_line.cut(false);
    let back = Instant::now();
    let held = |m: &Mounted| m.status()["held_back"].as_u64().unwrap() as usize;
    until("all know of all", REST, || all.iter().all(|m| held(m) == n / 10 * 9 && m.pending() == 0).then_some(()));
    println!("{n} files, nine of ten deleted: all know {:?} later", back.elapsed());
    until("the edits are there", REST, || {
        let edited = |m: &Mounted, i: usize| fs::read_to_string(m.path(file(i))).is_ok_and(|t| t == format!("edited {i}"));
        all.iter().all(|m| of(|d| d == 9).all(|i| edited(m, i))).then_some(())
    });
    assert_eq!(tree(bates.root()).len(), n, "it deleted nothing");
    assert_eq!(tree(zoo.root()).len(), n / 10 * 4);
    assert_eq!(tree(yoga.root()).len(), n / 10 * 7);

    bates.cli_long(&["approve"]).ok();
    bates.wait();
    let left = converged(&all, REST);
    assert_eq!(left.len(), n / 10);
    assert!(left.values().all(|t| t.starts_with(b"edited ")) && all.iter().all(|m| held(m) == 0));
}
