//! The metadata tree.

use super::*;

fn set(t: &mut Bench, path: &[&str], value: Value) {
    let path = Value::array(path.iter().copied());
    t.ask(0, "set_metadata", [("keys", path), ("value", value)]);
    t.expect([(0, NIL)]);
}

fn get(t: &mut Bench, path: &[&str]) -> Value {
    let no_default = Value::map([
        ("__Enum__", YES),
        ("name", s("no_default")),
        ("__module__", s("dask.typing")),
        ("__name__", s("_NoDefault")),
    ]);
    let path = Value::array(path.iter().copied());
    t.ask(0, "get_metadata", [("keys", path), ("default", no_default)]);
    t.replies().pop().unwrap().1
}

#[test]
fn values_stand_under_paths() {
    let mut t = Bench::new();
    set(&mut t, &["x"], n(1));
    assert_eq!(get(&mut t, &["x"]), n(1));
    set(&mut t, &["x", "y"], n(2));
    assert_eq!(get(&mut t, &["x"]), Value::map([("y", n(2))]));
    set(
        &mut t,
        &["x"],
        Value::map([("a", Value::map([("b", n(3))]))]),
    );
    assert_eq!(get(&mut t, &["x", "a", "b"]), n(3));
    assert_eq!(get(&mut t, &["x", "z"]), s("KeyError: z"));
    set(&mut t, &["l"], Value::array([n(7)]));
    assert_eq!(
        get(&mut t, &["l", "b"]),
        s("TypeError: metadata: b leads into a value that is no dict")
    );
}

#[test]
fn a_default_stands_in_for_what_is_missing() {
    let mut t = Bench::new();
    let path = Value::array(["cluster-manager-info"]);
    let empty = Value::Map(vec![]);
    t.ask(
        1,
        "get_metadata",
        [("keys", path.clone()), ("default", empty.clone())],
    );
    t.ask(2, "get_metadata", [("keys", path), ("default", NIL)]);
    t.expect([(1, empty), (2, NIL)]);
}

#[test]
fn a_path_of_any_length_is_refused() {
    let mut t = Bench::new();
    let path = Value::array((0..100_000).map(|_| s("x")));
    t.ask(1, "set_metadata", [("keys", path), ("value", n(1))]);
    let text = "ValueError: metadata path of 100000 keys exceeds the limit of 64";
    t.expect([(1, s(text))]);
}
