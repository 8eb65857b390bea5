use super::*;
use crate::store::list_all;
use std::time::Duration;

const OVER: PutMode = PutMode::Overwrite;

fn body(s: &'static str) -> Bytes {
    Bytes::from_static(s.as_bytes())
}

#[tokio::test]
async fn a_store_that_vanishes_is_unavailable_and_never_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let s = DirStore::new(&path, 1);
    assert_eq!(s.head("default/x").await.unwrap(), None, "before its first use there is nothing");
    assert_eq!(s.get("default/x").await.unwrap_err().kind(), Kind::NotFound);
    s.put("default/x", body("1"), OVER).await.unwrap();

    let away = dir.path().join("away");
    fs::rename(&path, &away).unwrap();
    for another in [false, true] {
        if another {
            fs::create_dir(&path).unwrap(); // the empty mount point below an unmounted disk
        }
        assert_eq!(s.put("default/y", body("2"), OVER).await.unwrap_err().kind(), Kind::Unavailable);
        assert_eq!(s.get("default/x").await.unwrap_err().kind(), Kind::Unavailable);
        assert_eq!(s.head("default/x").await.unwrap_err().kind(), Kind::Unavailable);
        assert_eq!(s.delete("default/x").await.unwrap_err().kind(), Kind::Unavailable);
        assert_eq!(s.list("", None).await.unwrap_err().kind(), Kind::Unavailable);
        assert_eq!(path.exists(), another);
    }
    assert_eq!(fs::read_dir(&path).unwrap().count(), 0, "nothing was written into the mount point");

    fs::remove_dir(&path).unwrap();
    fs::rename(&away, &path).unwrap();
    assert_eq!(s.get("default/x").await.unwrap(), "1", "it works again when the disk is back");
    s.put("default/y", body("2"), OVER).await.unwrap();
}

#[tokio::test]
async fn a_disk_that_comes_back_under_other_numbers_is_known_by_its_mark() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let s = DirStore::new(&path, 1);
    s.put("default/x", body("1"), OVER).await.unwrap();
    let copy = dir.path().join("copy");
    let copied = std::process::Command::new("cp").arg("-a").arg(&path).arg(&copy).status().unwrap();
    assert!(copied.success());
    fs::rename(&path, dir.path().join("old")).unwrap();
    fs::rename(&copy, &path).unwrap();
    s.put("default/y", body("2"), OVER).await.unwrap();
    assert_eq!(s.get("default/x").await.unwrap(), "1");
}

#[tokio::test]
async fn tidied_directories_are_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let s = DirStore::new(dir.path(), 1);
    s.put("default/log/a-1/1", body("1"), OVER).await.unwrap();
    fs::remove_dir_all(dir.path().join("default")).unwrap();
    fs::remove_dir_all(dir.path().join(root::CORNER)).unwrap();
    s.put("default/log/a-1/2", body("2"), OVER).await.unwrap();
    assert_eq!(s.get("default/log/a-1/2").await.unwrap(), "2");
}

#[tokio::test]
async fn stale_temporary_files_go_and_young_ones_stay() {
    let dir = tempfile::tempdir().unwrap();
    DirStore::new(dir.path(), 1).put("default/x", body("1"), OVER).await.unwrap();
    let tmp = dir.path().join(root::CORNER).join("tmp");
    let old = File::create(tmp.join("dead-1")).unwrap();
    old.set_modified(std::time::SystemTime::now() - Duration::from_secs(3700)).unwrap();
    File::create(tmp.join("alive-1")).unwrap();
    DirStore::new(dir.path(), 2).put("default/y", body("2"), OVER).await.unwrap();
    let left: Vec<_> = fs::read_dir(&tmp).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["alive-1"]);
    let keys: Vec<_> = list_all(&DirStore::new(dir.path(), 3), "").await.unwrap().into_iter().map(|m| m.key).collect();
    assert_eq!(keys, ["default/x", "default/y"], "our own corner is no object");
}

#[tokio::test]
async fn a_failed_put_leaves_no_temporary_file() {
    let dir = tempfile::tempdir().unwrap();
    let s = DirStore::new(dir.path(), 1);
    s.put("default/x", body("1"), OVER).await.unwrap();
    assert_eq!(s.put("default/x/y", body("2"), OVER).await.unwrap_err().kind(), Kind::NotDir);
    fs::create_dir(dir.path().join("default/d")).unwrap();
    assert!(s.put("default/d", body("2"), OVER).await.is_err());
    assert_eq!(fs::read_dir(dir.path().join(root::CORNER).join("tmp")).unwrap().count(), 0);
}

#[tokio::test]
async fn objects_that_another_program_put_flat_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let s = DirStore::new(dir.path(), 1);
    let hash = "ab".repeat(32);
    let key = format!("default/chunks/{hash}");
    fs::create_dir_all(dir.path().join("default/chunks")).unwrap();
    fs::write(dir.path().join(&key), "flat").unwrap();
    assert_eq!(s.get(&key).await.unwrap(), "flat");
    assert_eq!(s.head(&key).await.unwrap().unwrap().size, 4);
    assert_eq!(list_all(&s, "default/chunks/").await.unwrap()[0].key, key);
    s.put(&key, body("ours"), OVER).await.unwrap();
    assert!(dir.path().join(format!("default/chunks/ab/{hash}")).is_file());
    s.delete(&key).await.unwrap();
    assert_eq!(s.head(&key).await.unwrap(), None);
}

#[tokio::test]
async fn an_object_larger_than_any_of_ours_is_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let s = DirStore::new(dir.path(), 1);
    File::create(dir.path().join("huge")).unwrap().set_len(MAX_OBJECT + 1).unwrap();
    assert_eq!(s.get("huge").await.unwrap_err().kind(), Kind::Corrupt);
}

/// Waits for a message; `false` after a second of silence.
async fn told(rx: &mut tokio::sync::mpsc::Receiver<()>) -> bool {
    matches!(tokio::time::timeout(Duration::from_secs(1), rx.recv()).await, Ok(Some(())))
}

async fn quiet(rx: &mut tokio::sync::mpsc::Receiver<()>) {
    while told(rx).await {}
}

#[tokio::test]
async fn a_watch_tells_of_new_objects_also_of_new_devices() {
    let dir = tempfile::tempdir().unwrap();
    let here = DirStore::new(dir.path(), 1);
    let there = DirStore::new(dir.path(), 2);
    assert!(here.watch("default/log/").is_none(), "watching makes no store");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    there.put("default/store.json", body("{}"), OVER).await.unwrap();
    let mut rx = here.watch("default/log/").unwrap();
    there.put("default/log/b-2/00000000000000000001", body("1"), OVER).await.unwrap();
    assert!(told(&mut rx).await, "a device that was never seen before");
    quiet(&mut rx).await;
    for n in 2..20 {
        there.put(&format!("default/log/b-2/{n:020}"), body("n"), OVER).await.unwrap();
    }
    assert!(told(&mut rx).await);
    quiet(&mut rx).await;
    here.get("default/log/b-2/00000000000000000001").await.unwrap();
    list_all(&here, "default/log/").await.unwrap();
    there.put("default/chunks/x", body("c"), OVER).await.unwrap();
    assert!(!told(&mut rx).await, "reading, and what lies elsewhere, is no change");
}

#[tokio::test]
async fn a_device_directory_is_announced_again_when_its_watch_stands() {
    let dir = tempfile::tempdir().unwrap();
    let s = DirStore::new(dir.path(), 1);
    s.put("default/store.json", body("{}"), OVER).await.unwrap();
    let mut rx = s.watch("default/log").unwrap();
    fs::create_dir(dir.path().join("default/log/c-3")).unwrap();
    assert!(told(&mut rx).await);
    assert!(told(&mut rx).await, "what landed before the watch stood is looked for once more");
}
