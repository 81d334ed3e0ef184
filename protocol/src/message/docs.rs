//! The tables of operations in `docs/protocol.md` are those of the types.

use std::fmt::Write;
use std::path::Path;

use super::client::{FromClient, ToClient};
use super::rpc::{ToScheduler, ToWorkerRpc};
use super::worker::{FromWorker, ToWorker};

/// Set it to have the tables written instead of compared.
const WRITE: &str = "OXIDASK_WRITE_DOCS";

#[test]
fn docs_list_every_operation_with_its_fields() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/protocol.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let mut expected = page.clone();
    for (direction, operations) in [
        ("FromClient", FromClient::described()),
        ("ToClient", ToClient::described()),
        ("FromWorker", FromWorker::described()),
        ("ToWorker", ToWorker::described()),
        ("ToScheduler", ToScheduler::described()),
        ("ToWorkerRpc", ToWorkerRpc::described()),
    ] {
        let begin = format!("<!-- operations {direction} -->\n");
        let start = expected.find(&begin).expect(&begin) + begin.len();
        let length = expected[start..].find("<!-- end -->").expect("an end");
        expected.replace_range(start..start + length, &table(&operations));
    }
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(&path, expected).unwrap();
    } else {
        assert!(
            page == expected,
            "docs/protocol.md differs from the types; write its tables with \
             `{WRITE}=1 cargo test -p oxidask-protocol docs`"
        );
    }
}

fn table(operations: &[(&str, Vec<String>, String)]) -> String {
    let mut table = "\n| operation | fields | meaning |\n|---|---|---|\n".to_owned();
    for (name, fields, meaning) in operations {
        let fields = fields.join(", ");
        writeln!(table, "| `{name}` | {fields} | {meaning} |").unwrap();
    }
    table + "\n"
}
