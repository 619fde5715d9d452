//! The reference of the records, `docs/RECORDS.md`, and their JSON Schemas in `docs/schema/`, made from the
//! types.
//!
//! `FINWAIT_BLESS=1 cargo test -p tcp-user --test records` rewrites them.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use finwait::api::{Stats, Status};
use finwait::audit;
use finwait::doctor;
use finwait::output::{EventWriter, Format, ListWriter, Palette, write_ports};
use finwait::store::columns::COLUMNS;
use finwait::view::{
    Close, Connection, IgnoredRst, Lost, PortBudget, Ports, Reopened, TimeWaitEnd, Transition, glossary,
    schema,
};
use finwait::why::Explanation;
use jiff::Timestamp;
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

/// A record or a document of records.
struct Document {
    /// The value of the key `schema`.
    name: &'static str,
    /// The commands that print the document.
    printed_by: &'static str,
    schema: Value,
}

/// The records of a stream of events.
const EVENTS: [&str; 6] = [
    schema::TRANSITION,
    schema::CLOSE,
    schema::REOPENED,
    schema::RST_IGNORED,
    schema::TIME_WAIT_END,
    schema::LOST,
];

fn documents() -> Vec<Document> {
    let document = |name, printed_by, schema| Document { name, printed_by, schema };
    let list = |name: &str, key: &str, about: &str, items: Value| {
        let array = json!({ "type": "array", "description": about, "items": items });
        named(json!({ "type": "object", "properties": { key: array }, "required": [key] }), name)
    };
    let reference = |name: &str| json!({ "$ref": file_name(name) });
    vec![
        document(
            schema::CONNECTION,
            "`finwait ls -o ndjson`, `finwait replay -o ndjson`",
            named(schema_of::<Connection>(), schema::CONNECTION),
        ),
        document(
            schema::CONNECTIONS,
            "`finwait ls -o json`, `finwait replay -o json`",
            list(schema::CONNECTIONS, "connections", "The connections.", reference(schema::CONNECTION)),
        ),
        document(
            schema::TRANSITION,
            "`finwait watch -o ndjson`, `finwait replay --events -o ndjson`",
            named(schema_of::<Transition>(), schema::TRANSITION),
        ),
        document(
            schema::CLOSE,
            "`finwait history -o ndjson`, `finwait watch -o ndjson`, `finwait replay --events -o ndjson`",
            named(schema_of::<Close>(), schema::CLOSE),
        ),
        document(
            schema::CLOSES,
            "`finwait history -o json`",
            list(
                schema::CLOSES,
                "closes",
                "The connections that closed, the latest first.",
                reference(schema::CLOSE),
            ),
        ),
        document(
            schema::ROWS,
            "`finwait history --sql STATEMENT -o json`",
            list(
                schema::ROWS,
                "rows",
                "The rows of the result, with the names that the statement gives their values.",
                json!({ "type": "object" }),
            ),
        ),
        document(
            schema::REOPENED,
            "`finwait watch -o ndjson`, `finwait replay --events -o ndjson`",
            named(schema_of::<Reopened>(), schema::REOPENED),
        ),
        document(
            schema::RST_IGNORED,
            "`finwait watch -o ndjson`, `finwait replay --events -o ndjson`",
            named(schema_of::<IgnoredRst>(), schema::RST_IGNORED),
        ),
        document(
            schema::TIME_WAIT_END,
            "`finwait watch -o ndjson`, `finwait replay --events -o ndjson`",
            named(schema_of::<TimeWaitEnd>(), schema::TIME_WAIT_END),
        ),
        document(
            schema::WHY,
            "`finwait why FLOW -o json`, `finwait replay --why FLOW FILE -o json`",
            schema_of::<Explanation>(),
        ),
        document(schema::LOST, "`finwait watch -o ndjson`", named(schema_of::<Lost>(), schema::LOST)),
        document(
            schema::EVENTS,
            "`finwait watch -o json`, `finwait replay --events -o json`",
            list(
                schema::EVENTS,
                "events",
                "The events in the order in which they happened.",
                json!({ "anyOf": EVENTS.map(reference) }),
            ),
        ),
        document(
            schema::PORT_BUDGET,
            "`finwait ports -o ndjson`",
            named(schema_of::<PortBudget>(), schema::PORT_BUDGET),
        ),
        document(schema::PORTS, "`finwait ports -o json`", named(schema_of::<Ports>(), schema::PORTS)),
        document(
            "finwait.stats/1",
            "`finwait stats -o json`",
            named(schema_of::<Stats>(), "finwait.stats/1"),
        ),
        document(
            "finwait.status/1",
            "`finwait status -o json`",
            named(schema_of::<Status>(), "finwait.status/1"),
        ),
        document(
            audit::SCHEMA,
            "`finwait audit -o json`",
            named(schema_of::<audit::Report>(), audit::SCHEMA),
        ),
        document(
            doctor::SCHEMA,
            "`finwait doctor -o json`",
            named(schema_of::<doctor::Diagnosis>(), doctor::SCHEMA),
        ),
    ]
}

#[test]
fn the_schemas_match_the_types() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/schema");
    let mut expected = Vec::new();
    for Document { name, schema, .. } in documents() {
        let file = file_name(name);
        let text = serde_json::to_string_pretty(&schema).expect("a JSON value") + "\n";
        assert_golden(&folder.join(&file), &text);
        expected.push(file);
    }
    let files = fs::read_dir(folder).expect("the folder of the schemas");
    let mut files: Vec<_> =
        files.map(|file| file.expect("a file").file_name().into_string().expect("UTF-8")).collect();
    files.sort();
    expected.sort();
    assert_eq!(files, expected);
}

/// `docs/HISTORY.md` has the columns of the table between two marks.
#[test]
fn the_reference_of_the_history_has_the_columns() {
    const MARKS: [&str; 2] = ["<!-- columns -->\n", "<!-- end of columns -->\n"];
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/HISTORY.md");
    let text = fs::read_to_string(&path).expect("the page");
    let (before, rest) = text.split_once(MARKS[0]).expect("the first mark");
    let (_, after) = rest.split_once(MARKS[1]).expect("the second mark");
    let mut table = "| column | type | content |\n| --- | --- | --- |\n".to_owned();
    for column in COLUMNS {
        let _ = writeln!(table, "| `{}` | {} | {} |", column.name, column.sql_type, column.meaning);
    }
    assert_golden(&path, &[before, MARKS[0], &table, MARKS[1], after].concat());
}

#[test]
fn the_reference_matches_the_types() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/RECORDS.md");
    assert_golden(&path, &reference());
}

/// Every key of a record is in its schema, and every key that the schema requires is in the record.
#[test]
fn real_records_have_the_keys_of_their_schemas() {
    let capture = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/demo/recording.pcap.gz");
    let documents = documents();
    let mut seen = std::collections::BTreeSet::new();
    for arguments in [&["-o", "ndjson"][..], &["--events", "-o", "ndjson"]] {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_finwait"))
            .arg("replay")
            .arg(&capture)
            .args(arguments)
            .output()
            .expect("starting finwait");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        for line in String::from_utf8(output.stdout).expect("UTF-8").lines() {
            let record: Value = serde_json::from_str(line).expect("JSON");
            let name = record["schema"].as_str().expect("a schema");
            let document = documents.iter().find(|document| document.name == name).expect("a known schema");
            assert_keys(&record, &document.schema, &document.schema, name);
            seen.insert(document.name);
        }
    }
    assert_eq!(
        Vec::from_iter(seen),
        [schema::CLOSE, schema::CONNECTION, schema::TIME_WAIT_END, schema::TRANSITION]
    );
}

fn assert_keys(value: &Value, schema: &Value, root: &Value, path: &str) {
    let Value::Object(object) = value else { return };
    let schema = resolve(schema, root);
    let properties = schema["properties"].as_object().unwrap_or_else(|| panic!("{path}: an object"));
    for key in required(schema) {
        assert!(object.contains_key(key), "{path}: {key} is missing");
    }
    for (key, value) in object {
        let property = properties.get(key).unwrap_or_else(|| panic!("{path}: {key} is in no schema"));
        assert_keys(value, property, root, &format!("{path}.{key}"));
    }
}

fn required(schema: &Value) -> impl Iterator<Item = &str> {
    schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str)
}

/// Returns the schema of a type as it is written to its file.
fn schema_of<T: JsonSchema>() -> Value {
    let generator = SchemaSettings::draft2020_12().for_serialize().into_generator();
    let mut schema = generator.into_root_schema_for::<T>().to_value();
    // A connection inside another record has its own key `schema`.
    if let Some(connection) = schema.pointer_mut("/$defs/Connection") {
        *connection = named(connection.take(), schema::CONNECTION);
    }
    for_json(&mut schema);
    schema
}

/// Adds the key `schema` with this constant.
fn named(mut schema: Value, name: &str) -> Value {
    let about = "Name and version of the record's format.";
    schema["properties"]["schema"] = json!({ "type": "string", "const": name, "description": about });
    let others = required(&schema).filter(|key| *key != "schema").map(str::to_owned);
    schema["required"] = std::iter::once("schema".to_owned()).chain(others).collect();
    if schema.get("$schema").is_some() {
        schema["title"] = name.into();
    }
    schema
}

/// Turns Rust's words in descriptions into those of JSON.
fn for_json(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            for (key, value) in object {
                match value {
                    Value::String(text) if key == "description" => {
                        *text = text.replace("`None`", "`null`").replace("[`", "`").replace("`]", "`");
                        *text = text.replace('\n', " ");
                    }
                    value => for_json(value),
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(for_json),
        _ => {}
    }
}

/// Returns the file name of a schema: `finwait.connection/1` is in `finwait.connection.1.json`.
fn file_name(schema: &str) -> String {
    format!("{}.json", schema.replace('/', "."))
}

/// Makes the text of `docs/RECORDS.md`.
fn reference() -> String {
    let mut text = INTRODUCTION.to_owned();
    for Document { name, printed_by, schema } in documents() {
        let about = schema["description"].as_str().map(|about| format!("{about}\n\n")).unwrap_or_default();
        let file = file_name(name);
        line(
            &mut text,
            &format!("\n## {name}\n\n{about}Printed by {printed_by}. Schema: [{file}](schema/{file})\n"),
        );
        line(&mut text, "| key | type | meaning |\n| --- | --- | --- |");
        rows(&mut text, &schema, &schema, "");
    }
    text.push_str(CSV);
    let columns = |header: Vec<u8>| {
        let header = String::from_utf8(header).expect("UTF-8");
        header.trim_end().split(',').map(|column| format!("`{column}`")).collect::<Vec<_>>().join(", ")
    };
    let mut header = Vec::new();
    let list = ListWriter::new(&mut header, Format::Csv, Palette::PLAIN, Timestamp::UNIX_EPOCH);
    list.and_then(ListWriter::finish).expect("a Vec");
    line(&mut text, &format!("\nColumns of connections: {}.", columns(header)));
    let mut header = Vec::new();
    let events = EventWriter::new(&mut header, Format::Csv, Palette::PLAIN);
    events.and_then(EventWriter::finish).expect("a Vec");
    line(&mut text, &format!("\nColumns of events: {}.", columns(header)));
    let mut header = Vec::new();
    let ports = Ports {
        schema: schema::PORTS.into(),
        as_of: Timestamp::UNIX_EPOCH,
        first: 1,
        last: 1,
        reserved: 0,
        bound: 0,
        bound_complete: true,
        available: 1,
        destinations: Vec::new(),
    };
    write_ports(&ports, &mut header, Format::Csv, true, Palette::PLAIN).expect("a Vec");
    line(&mut text, &format!("\nColumns of port budgets: {}.", columns(header)));
    text.push_str("\n# Words\n\nThe values of the keys above. `finwait glossary` prints them, too.\n");
    let mut group = "";
    for entry in glossary() {
        if entry.group != group {
            group = entry.group;
            line(&mut text, &format!("\n## {}\n\n| word | meaning |\n| --- | --- |", capitalized(group)));
        }
        line(&mut text, &format!("| `{}` | {} |", entry.word, entry.meaning));
    }
    text
}

/// Adds a row for each key of an object, and for the keys of its nested objects.
fn rows(text: &mut String, object: &Value, root: &Value, prefix: &str) {
    let none = Map::new();
    for (key, property) in object["properties"].as_object().unwrap_or(&none) {
        let path = format!("{prefix}{key}");
        let inner = resolve(property, root);
        let about = property["description"].as_str().or(inner["description"].as_str());
        let about = about.unwrap_or_else(|| panic!("{path} has no description"));
        let mut values = Vec::new();
        allowed(property, root, &mut values);
        let values = match values.len() {
            0 => String::new(),
            1 => format!(" `{}`.", values[0]),
            _ => format!(" One of `{}`.", values.join("`, `")),
        };
        line(text, &format!("| `{path}` | {} | {about}{values} |", type_of(property, root)));
        if property["$ref"] == "#/$defs/Connection" {
            line(text, &format!("| `{path}.*` | | The keys of `{}`. |", schema::CONNECTION));
            continue;
        }
        rows(text, inner, root, &format!("{path}."));
        rows(text, resolve(&inner["items"], root), root, &format!("{path}[]."));
    }
}

/// Follows a reference, and skips the `null` of an optional value.
fn resolve<'a>(schema: &'a Value, root: &'a Value) -> &'a Value {
    if let Some(definition) = schema["$ref"].as_str().and_then(|reference| reference.strip_prefix('#')) {
        return root.pointer(definition).expect("a definition");
    }
    let present = |schema: &&Value| schema["type"] != "null";
    match schema["anyOf"].as_array().map(|schemas| schemas.iter().filter(present).collect::<Vec<_>>()) {
        Some(schemas) if schemas.len() == 1 => resolve(schemas[0], root),
        _ => schema,
    }
}

/// Returns the type of a value in a word or two.
fn type_of(schema: &Value, root: &Value) -> String {
    let resolved = resolve(schema, root);
    let is_null = |schema: &Value| schema["type"] == "null";
    let optional = schema["anyOf"].as_array().is_some_and(|schemas| schemas.iter().any(is_null));
    let (name, nullable) = match &resolved["type"] {
        Value::String(name) => (name.as_str(), false),
        Value::Array(names) => {
            let name = names.iter().filter_map(Value::as_str).find(|name| *name != "null");
            (name.unwrap_or("null"), names.iter().any(|name| name == "null"))
        }
        _ if resolved["$ref"].is_string() || resolved["anyOf"].is_array() => ("object", false),
        _ => ("string", false),
    };
    let name = match (name, resolved["format"].as_str()) {
        ("string", Some("date-time")) => "time",
        ("string", Some("ip")) => "IP address",
        (name, _) => name,
    };
    let name = match (name, &resolved["items"], &resolved["additionalProperties"]) {
        ("array", Value::Object(_), _) => format!("array of {}", type_of(&resolved["items"], root)),
        ("object", _, Value::Object(_)) => {
            format!("map of {}", type_of(&resolved["additionalProperties"], root))
        }
        _ => name.to_owned(),
    };
    if optional || nullable { format!("{name} or null") } else { name }
}

/// Collects the values of a closed set.
fn allowed(schema: &Value, root: &Value, values: &mut Vec<String>) {
    let resolved = resolve(schema, root);
    let names = resolved["enum"].as_array().into_iter().flatten();
    let constants = resolved["oneOf"].as_array().into_iter().flatten().map(|value| &value["const"]);
    let one = Some(&resolved["const"]);
    values.extend(names.chain(constants).chain(one).filter_map(Value::as_str).map(str::to_owned));
    let groups = resolved["oneOf"].as_array().into_iter().flatten();
    values.extend(
        groups
            .flat_map(|group| group["enum"].as_array().into_iter().flatten())
            .filter_map(Value::as_str)
            .map(str::to_owned),
    );
}

fn line(text: &mut String, line: &str) {
    writeln!(text, "{line}").expect("a String");
}

fn capitalized(text: &str) -> String {
    let (first, rest) = text.split_at(1);
    first.to_uppercase() + rest
}

/// Compares a text with a file line by line; with `FINWAIT_BLESS=1` writes the file first.
fn assert_golden(path: &Path, text: &str) {
    if std::env::var_os("FINWAIT_BLESS").is_some() {
        fs::create_dir_all(path.parent().expect("a folder")).expect("making the folder");
        fs::write(path, text).expect("write the golden file");
    }
    let golden = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    for (number, (line, agreed)) in text.lines().zip(golden.lines()).enumerate() {
        assert_eq!(line, agreed, "line {} of {}", number + 1, path.display());
    }
    assert_eq!(text.lines().count(), golden.lines().count(), "lines of {}", path.display());
}

const INTRODUCTION: &str = "\
# Records

What finwait prints for programs: JSON (`-o json`, one document; `-o ndjson`, one object a line) and CSV (`-o csv`).

- Every record names its format in the key `schema`. Keys may be added to a format; none is renamed or removed.
- `null` means unknown or not applicable.
- Times are RFC 3339 in UTC with microseconds. Keys that end in `_ms` are durations in milliseconds.
- Strings from outside, such as the name of a process, may contain any character.

A test generates this file and the JSON Schemas in [schema/](schema/) from the types. `FINWAIT_BLESS=1 cargo test -p
tcp-user --test records` rewrites them.
";

const CSV: &str = "
## CSV

The first line has the names of the columns. They follow the JSON keys: `client_address` is `client.address`. A field is
empty where JSON has `null`. A line of events leaves the columns of other events empty. `cause` is the `cause` of a
transition, the `reason` of a reopened connection, or the `ending` of a TIME-WAIT, whose holder is the `side`.
";
