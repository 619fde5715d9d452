use std::fs;
use std::ops::ControlFlow;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use jiff::{Timestamp, ToSpan as _};

use super::StoreError;
use super::files::{FileName, Retention, StoreDirectory, StoredFile};
use super::reader::{StoreReader, TimeSpan};
use super::sql::{SqlError, SqlStore};
use super::writer::{FileChange, StoreWriter};
use crate::view::{
    Address, Close, CloseKind, Connection, Durations, IcmpMessage, Nat, NatTuple, Role, State, TimeWait,
    samples,
};

/// A directory of a test, removed at the end.
struct TestDirectory(StoreDirectory);

impl TestDirectory {
    fn new(name: &str) -> TestDirectory {
        let path = std::env::temp_dir().join(format!("finwait-store-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        let directory = StoreDirectory::new(path);
        assert!(directory.create().expect("a directory"));
        TestDirectory(directory)
    }

    fn writer(&self, retention: Retention) -> StoreWriter {
        StoreWriter::new(self.0.clone(), retention)
    }

    /// The connections, the latest first, and the files that could not be read.
    fn read(&self, span: TimeSpan) -> (Vec<Close>, Vec<StoreError>) {
        let mut reader = StoreReader::new(self.0.clone(), span);
        let (mut closes, mut errors) = (Vec::new(), Vec::new());
        for name in reader.files().expect("a list of files") {
            let result = reader.read(name, |close| {
                closes.push(close);
                ControlFlow::Continue(())
            });
            errors.extend(result.err());
        }
        (closes, errors)
    }

    fn names(&self) -> Vec<String> {
        self.0.list().expect("a list of files").iter().map(|file| file.name.to_string()).collect()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

impl Drop for TestDirectory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(self.0.path());
    }
}

fn at(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

fn close(connection: Connection, closed_at: Timestamp) -> Close {
    let durations_ms = Durations {
        handshake: connection.handshake_ms,
        established: Some(1.5),
        closing: None,
        time_wait: None,
    };
    Close { connection, revision: 1, closed_at: Some(closed_at), durations_ms }
}

/// Connections in which every key has a value at least once.
fn all_kinds() -> Vec<Close> {
    let mut translated = samples::established();
    let address = |text: &str| Address { address: text.parse().expect("an address"), port: 7 };
    translated.nat =
        Some(Nat { reply: NatTuple { client: address("10.0.0.1"), server: address("10.0.0.2") } });
    (translated.client.vlan, translated.scope) = (Some(vec![10, 20]), Some("eth1".into()));
    translated.client.bytes = i64::MAX.unsigned_abs();
    let mut refused = samples::time_wait();
    if let Some(close) = &mut refused.close {
        (close.aborter, close.icmp) = (Some(Role::Server), Some(IcmpMessage { kind: 3, code: 1 }));
    }
    refused.time_wait = Some(TimeWait { restarts: 3, ..refused.time_wait.expect("it waits") });
    refused.server.state = State::Unknown;
    [samples::time_wait(), samples::older(), samples::close_wait(), translated, refused]
        .into_iter()
        .zip(0..)
        .map(|(connection, minute)| close(connection, samples::at(50, f64::from(minute))))
        .collect()
}

const WEEK: Retention = Retention { age: Duration::from_secs(7 * 86_400), bytes: 256_000_000 };

#[test]
fn a_record_comes_back_as_it_was_written() {
    let place = TestDirectory::new("round");
    let written = all_kinds();
    let mut changes = Vec::new();
    place.writer(WEEK).write(&written, samples::at(51, 0.0), &mut changes).expect("written");
    let (mut read, errors) = place.read(TimeSpan::default());
    assert!(errors.is_empty() && changes.is_empty(), "{errors:?}, {changes:?}");
    read.reverse();
    assert_eq!(read, written);
    let mode = |name: &str| fs::metadata(place.path(name)).expect("a file").permissions().mode() & 0o777;
    assert_eq!((mode(""), mode("2026-11-22.db")), (0o700, 0o600));
}

#[test]
fn a_time_and_a_revision_select() {
    let place = TestDirectory::new("span");
    let mut writer = place.writer(WEEK);
    for day in ["2026-11-30T23:59:59.9Z", "2026-12-01T10:00:00Z", "2026-12-02T10:00:00Z"] {
        // The first is written a moment after midnight.
        let now = at(day).checked_add(1.second()).expect("a time");
        writer.write(&[close(samples::time_wait(), at(day))], now, &mut Vec::new()).expect("written");
    }
    assert_eq!(place.names(), ["2026-12-01.db", "2026-12-02.db"]);
    let closed_at = |since: Option<&str>, until: Option<&str>| -> Vec<String> {
        let (closes, errors) = place.read(TimeSpan { since: since.map(at), until: until.map(at) });
        assert!(errors.is_empty(), "{errors:?}");
        closes.iter().map(|close| close.closed_at.expect("it closed").to_string()).collect()
    };
    assert_eq!(closed_at(None, None).len(), 3);
    assert_eq!(closed_at(Some("2026-12-02T00:00:00Z"), None), ["2026-12-02T10:00:00Z"]);
    assert_eq!(closed_at(None, Some("2026-11-30T23:59:59.9Z")), ["2026-11-30T23:59:59.9Z"]);

    let mut again = close(samples::time_wait(), at("2026-12-02T11:00:00Z"));
    again.revision = 2;
    writer.write(&[again], at("2026-12-02T11:00:00Z"), &mut Vec::new()).expect("written");
    assert_eq!(closed_at(None, None), ["2026-12-02T11:00:00Z"], "all of them have one id");
}

#[test]
fn old_files_go_by_age_and_by_size() {
    let file = |name: &str, bytes| StoredFile { name: name.parse().expect("a name"), bytes };
    let files = [
        file("2026-11-23.db", 10),
        file("2026-11-24.db.damaged", 10),
        file("2026-11-30.db", 40),
        file("2026-11-30.2.db", 40),
        file("2026-12-01.db", 40),
    ];
    let gone = |bytes, current: &str, now| -> Vec<String> {
        let retention = Retention { bytes, ..WEEK };
        let expired = retention.expired(&files, current.parse().ok(), at(now));
        expired.iter().map(FileName::to_string).collect()
    };
    let none: [&str; 0] = [];
    assert_eq!(gone(1000, "2026-12-01.db", "2026-11-30T23:59:59Z"), none);
    assert_eq!(
        gone(1000, "2026-12-01.db", "2026-12-01T00:00:00Z"),
        ["2026-11-23.db"],
        "a week after its end"
    );
    assert_eq!(
        gone(1000, "2026-12-01.db", "2026-12-02T00:00:00Z"),
        ["2026-11-23.db", "2026-11-24.db.damaged"]
    );
    assert_eq!(
        gone(120, "2026-12-01.db", "2026-11-24T00:00:00Z"),
        ["2026-11-23.db", "2026-11-24.db.damaged"]
    );
    let all_but_current = ["2026-11-23.db", "2026-11-24.db.damaged", "2026-11-30.db", "2026-11-30.2.db"];
    assert_eq!(gone(0, "2026-12-01.db", "2026-11-24T00:00:00Z"), all_but_current);
}

#[test]
fn a_large_day_has_parts_of_which_the_oldest_goes() {
    let place = TestDirectory::new("parts");
    let mut writer = place.writer(Retention { bytes: 1_000_000, ..WEEK });
    let (now, mut changes) = (at("2026-12-01T10:00:00Z"), Vec::new());
    let batch = vec![close(samples::time_wait(), now); 500];
    while changes.is_empty() {
        writer.write(&batch, now, &mut changes).expect("written");
        writer.retire(now, &mut changes).expect("retired");
    }
    assert_eq!(
        changes,
        [FileChange::Removed(FileName::of_day(now.to_zoned(jiff::tz::TimeZone::UTC).date()))]
    );
    let names = place.names();
    assert_eq!(names.first().map(String::as_str), Some("2026-12-01.2.db"), "{names:?}");
    assert!((2..=4).contains(&names.len()), "{names:?}");
    let bytes: u64 = place.0.list().expect("a list of files").iter().map(|file| file.bytes).sum();
    assert!(bytes <= 1_000_000, "{bytes}");
}

#[test]
fn a_flood_of_attempts_leaves_room_for_connections() {
    let place = TestDirectory::new("flood");
    let retention = Retention { bytes: 4_000_000, ..WEEK };
    let now = at("2026-12-01T10:00:00Z");
    let mut attempt = close(samples::time_wait(), now);
    attempt.durations_ms.established = None;
    if let Some(close) = &mut attempt.connection.close {
        close.kind = Some(CloseKind::SynTimeout);
    }
    let mut writer = place.writer(retention);
    let left_out = writer.write(&vec![attempt.clone(); 2000], now, &mut Vec::new()).expect("written");
    let kept = 2000 - left_out;
    assert!(left_out > 1000 && kept > 100, "{kept} kept");
    drop(writer);
    let mut writer = place.writer(retention);
    let mixed = [attempt, close(samples::time_wait(), now)];
    assert_eq!(writer.write(&mixed, now, &mut Vec::new()).expect("written"), 1, "also after a restart");
    assert_eq!(place.read(TimeSpan::default()).0.len(), kept + 1);
}

#[test]
fn a_damaged_file_is_set_aside_and_the_others_are_read() {
    let place = TestDirectory::new("damaged");
    let mut writer = place.writer(WEEK);
    let days = [at("2026-12-01T10:00:00Z"), at("2026-12-02T10:00:00Z")];
    for day in days {
        writer.write(&[close(samples::time_wait(), day)], day, &mut Vec::new()).expect("written");
    }
    drop(writer);
    let text = "this is no database, but something that was written over it\n".repeat(200);
    for name in ["2026-12-01.db", "2026-12-02.db"] {
        fs::write(place.path(name), &text).expect("writing");
    }
    let (closes, errors) = place.read(TimeSpan::default());
    assert!(closes.is_empty() && errors.len() == 2 && errors.iter().all(StoreError::is_damage), "{errors:?}");

    let (mut writer, mut changes) = (place.writer(WEEK), Vec::new());
    writer.write(&[close(samples::time_wait(), days[1])], days[1], &mut changes).expect("written");
    let [FileChange::SetAside { aside, .. }] = changes[..] else { panic!("{changes:?}") };
    assert_eq!(aside.to_string(), "2026-12-02.db.damaged");
    assert_eq!(fs::read_to_string(place.path("2026-12-02.db.damaged")).expect("it is kept"), text);
    let (closes, errors) = place.read(TimeSpan::default());
    assert_eq!((closes.len(), errors.len()), (1, 1), "the other day's is still there: {errors:?}");
    let change = writer.set_aside("2026-12-01.db".parse().expect("a name")).expect("renamed");
    assert!(matches!(change, Some(FileChange::SetAside { .. })), "{change:?}");
    assert_eq!(place.read(TimeSpan::default()).1.len(), 0);
    assert_eq!(writer.set_aside("2026-12-01.db".parse().expect("a name")).expect("it is gone"), None);
}

#[test]
fn a_file_of_another_version_is_left_alone() {
    let place = TestDirectory::new("version");
    let now = at("2026-12-01T10:00:00Z");
    let other = rusqlite::Connection::open(place.path("2026-12-01.db")).expect("a file");
    other.execute_batch("CREATE TABLE connections (id); PRAGMA user_version = 99").expect("a table");
    drop(other);
    place.writer(WEEK).write(&[close(samples::time_wait(), now)], now, &mut Vec::new()).expect("written");
    assert_eq!(place.names(), ["2026-12-01.db", "2026-12-01.2.db"]);
    fs::write(place.path("2026-12-02.db"), "").expect("a file whose table the disk had no room for");
    let (closes, errors) = place.read(TimeSpan::default());
    assert_eq!(closes.len(), 1);
    assert!(matches!(errors[..], [StoreError::Version { .. }]), "{errors:?}");
    let store = SqlStore::open(&place.0, TimeSpan::default()).expect("opened");
    let mut statement = store.prepare("SELECT id FROM connections").expect("a statement");
    let mut count = 0;
    statement
        .for_each(|_| {
            count += 1;
            Ok::<_, SqlError>(())
        })
        .expect("rows");
    drop(statement);
    let unreadable = store.into_unreadable();
    assert_eq!(count, 1);
    assert!(matches!(unreadable[..], [StoreError::Version { .. }]), "{unreadable:?}");
}

#[test]
fn sql_reads_all_files_and_writes_none() {
    let place = TestDirectory::new("sql");
    assert!(matches!(SqlStore::open(&place.0, TimeSpan::default()), Err(SqlError::NoFiles(_))));
    let mut writer = place.writer(WEEK);
    for day in [at("2026-12-01T10:00:00Z"), at("2026-12-02T10:00:00Z")] {
        writer.write(&[close(samples::time_wait(), day)], day, &mut Vec::new()).expect("written");
    }
    let store = SqlStore::open(&place.0, TimeSpan::default()).expect("opened while the writer has it");
    let select = |sql: &str| -> Result<Vec<i64>, SqlError> {
        let mut numbers = Vec::new();
        store.prepare(sql)?.for_each(|values| {
            numbers.push(values[0].as_i64().expect("a number"));
            Ok::<_, SqlError>(())
        })?;
        Ok(numbers)
    };
    assert_eq!(select("SELECT count(*) FROM connections").expect("rows"), [2]);
    let late = "SELECT count(*) FROM connections WHERE closed_at > datetime('2026-12-02', '-1 hour')";
    assert_eq!(select(late).expect("rows"), [1], "times compare with those of SQLite");
    for write in [
        "INSERT INTO connections (id) VALUES (1)",
        "DELETE FROM \"2026-12-01.db\".connections",
        "DROP TABLE \"2026-12-01.db\".connections",
        "SELECT 1; DELETE FROM \"2026-12-01.db\".connections",
    ] {
        let error = select(write).expect_err(write);
        assert!(error.is_usage(), "{write}: {error:?}");
    }
    assert_eq!(select("SELECT count(*) FROM connections").expect("rows"), [2]);
}

#[test]
fn other_files_have_no_name_of_ours() {
    for text in ["2026-12-01.db", "2026-12-01.2.db", "2026-12-01.db.damaged", "2026-12-01.3.db.damaged"] {
        assert_eq!(text.parse::<FileName>().expect(text).to_string(), text);
    }
    for text in [
        "2026-12-01.1.db",
        "2026-12-01.db-wal",
        "notes.db",
        "2026-12-01",
        "2026-13-01.db",
        "2026-12-01.02.db",
    ] {
        assert!(text.parse::<FileName>().is_err(), "{text}");
    }
}
