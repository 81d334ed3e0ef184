//! Our CRDs accept what upstream's accept.
//!
//! Upstream's CRDs are read from an installed `dask_kubernetes` (its version
//! is in `python/requirements`): `OXIDASK_UPSTREAM_CRDS` names the folder, or
//! `OXIDASK_PYTHON` an interpreter that can import the package. Without either
//! the walk is skipped with a line that says so.

#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

fn upstream_folder() -> Option<PathBuf> {
    if let Some(folder) = std::env::var_os("OXIDASK_UPSTREAM_CRDS") {
        return Some(folder.into());
    }
    let python = std::env::var_os("OXIDASK_PYTHON")?;
    let code = "import importlib.util as u, pathlib; \
        print(pathlib.Path(u.find_spec('dask_kubernetes').origin).parent \
        / 'operator/deployment/helm/dask-kubernetes-operator/crds')";
    let out = Command::new(python).args(["-c", code]).output().unwrap();
    assert!(
        out.status.success(),
        "OXIDASK_PYTHON cannot import dask_kubernetes: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    Some(String::from_utf8(out.stdout).unwrap().trim().into())
}

/// Our CRD and upstream's of each kind.
fn pairs() -> Option<Vec<(Value, Value)>> {
    let Some(folder) = upstream_folder() else {
        eprintln!("skipped: neither OXIDASK_UPSTREAM_CRDS nor OXIDASK_PYTHON is set");
        return None;
    };
    let pairs = oxidask_operator_api::crds()
        .into_iter()
        .filter(|crd| crd.spec.group == oxidask_operator_api::GROUP)
        .map(|crd| {
            let singular = crd.spec.names.singular.clone().unwrap();
            let file = folder.join(format!("{singular}.yaml"));
            let text = std::fs::read_to_string(&file)
                .unwrap_or_else(|e| panic!("cannot read {}: {e}", file.display()));
            let upstream: Value = serde_saphyr::from_str(&text).unwrap();
            (serde_json::to_value(crd).unwrap(), upstream)
        })
        .collect();
    Some(pairs)
}

/// Notes in `faults` where `ours` would refuse, change or drop what `theirs`
/// accepts.
fn walk(path: &str, ours: &Value, theirs: &Value, faults: &mut Vec<String>, nodes: &mut usize) {
    *nodes += 1;
    let mut fault = |what: String| faults.push(format!("{path}: {what}"));
    let Value::Object(_) = ours else {
        fault(format!("missing (upstream: {})", theirs["type"]));
        return;
    };
    let int_or_string = ours["x-kubernetes-int-or-string"] == true;
    if int_or_string {
        if theirs["type"] != "string" && theirs["type"] != "integer" {
            fault(format!(
                "int-or-string where upstream has {}",
                theirs["type"]
            ));
        }
    } else if ours["type"] != theirs["type"] {
        fault(format!(
            "type {} where upstream has {}",
            ours["type"], theirs["type"]
        ));
    }
    if !int_or_string && !ours["format"].is_null() && ours["format"] != theirs["format"] {
        fault(format!(
            "format {} where upstream has {}",
            ours["format"], theirs["format"]
        ));
    }
    for same in [
        "default",
        "nullable",
        "x-kubernetes-list-type",
        "x-kubernetes-list-map-keys",
    ] {
        if ours[same] != theirs[same] {
            fault(format!(
                "{same} {} where upstream has {}",
                ours[same], theirs[same]
            ));
        }
    }
    for never in [
        "enum",
        "pattern",
        "maximum",
        "maxLength",
        "minLength",
        "maxItems",
        "minItems",
        "x-kubernetes-validations",
        "oneOf",
        "not",
        "uniqueItems",
    ] {
        if !ours[never].is_null() && ours[never] != theirs[never] {
            fault(format!("new restriction {never}: {}", ours[never]));
        }
    }
    // A negative number of workers was accepted and made the operator fail.
    if !ours["minimum"].is_null() && !path.ends_with(".replicas") {
        fault(format!("new restriction minimum: {}", ours["minimum"]));
    }
    let none = vec![];
    let their_required = theirs["required"].as_array().unwrap_or(&none);
    for name in ours["required"].as_array().unwrap_or(&none) {
        if !their_required.contains(name) {
            fault(format!("requires {name}, upstream does not"));
        }
    }
    if let Some(properties) = theirs["properties"].as_object() {
        for (name, inner) in properties {
            let mine = &ours["properties"][name];
            walk(&format!("{path}.{name}"), mine, inner, faults, nodes);
        }
    }
    if theirs["items"].is_object() {
        walk(
            &format!("{path}[]"),
            &ours["items"],
            &theirs["items"],
            faults,
            nodes,
        );
    }
    if theirs["additionalProperties"].is_object() {
        let mine = &ours["additionalProperties"];
        walk(
            &format!("{path}{{}}"),
            mine,
            &theirs["additionalProperties"],
            faults,
            nodes,
        );
    }
}

#[test]
fn no_field_of_upstream_became_narrower_nullable_or_lost_its_default() {
    let Some(pairs) = pairs() else { return };
    let (mut faults, mut nodes) = (Vec::new(), 0);
    for (ours, theirs) in &pairs {
        let schema = "/spec/versions/0/schema/openAPIV3Schema";
        let kind = theirs["spec"]["names"]["kind"].as_str().unwrap();
        let (ours, theirs) = (
            ours.pointer(schema).unwrap(),
            theirs.pointer(schema).unwrap(),
        );
        walk(kind, ours, theirs, &mut faults, &mut nodes);
    }
    assert!(
        faults.is_empty(),
        "{} faults:\n{}",
        faults.len(),
        faults.join("\n")
    );
    assert!(
        nodes > 6000,
        "only {nodes} nodes of upstream's schemas were walked"
    );
}

#[test]
fn names_columns_and_scale_paths_are_upstreams() {
    let Some(pairs) = pairs() else { return };
    for (ours, theirs) in &pairs {
        let names = &theirs["spec"]["names"];
        for name in ["kind", "plural", "singular"] {
            assert_eq!(ours["spec"]["names"][name], names[name]);
        }
        let short = |crd: &Value| {
            crd["spec"]["names"]["shortNames"]
                .as_array()
                .cloned()
                .unwrap_or_default()
        };
        assert_eq!(short(ours), short(theirs), "{}", names["kind"]);
        assert_eq!(ours["spec"]["scope"], theirs["spec"]["scope"]);
        let (ours, theirs) = (&ours["spec"]["versions"][0], &theirs["spec"]["versions"][0]);
        for (mine, column) in ours["additionalPrinterColumns"]
            .as_array()
            .unwrap()
            .iter()
            .zip(theirs["additionalPrinterColumns"].as_array().unwrap())
        {
            for what in ["name", "type", "jsonPath"] {
                assert_eq!(mine[what], column[what], "{}", names["kind"]);
            }
        }
        let mut scale = ours["subresources"]["scale"].clone();
        if let Some(scale) = scale.as_object_mut() {
            scale.remove("labelSelectorPath");
        }
        assert_eq!(scale, theirs["subresources"]["scale"], "{}", names["kind"]);
    }
}

#[test]
fn client_side_apply_has_room_for_each_crd() {
    for crd in oxidask_operator_api::crds() {
        let name = crd.metadata.name.clone().unwrap();
        let bytes = serde_json::to_string(&crd).unwrap().len();
        assert!(bytes < 200_000, "{name} is {bytes} bytes of compact JSON");
    }
}

#[test]
fn every_field_of_our_own_is_documented() {
    fn check(path: &str, schema: &Value, missing: &mut Vec<String>) {
        // Pod and Service specs and conditions carry no descriptions.
        if schema["properties"]["containers"].is_object()
            || schema["properties"]["clusterIP"].is_object()
            || path.ends_with(".conditions[]")
            || path.ends_with(".clients[]")
        {
            return;
        }
        for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            if inner["description"].is_null()
                && !path.ends_with(".status.phase")
                && !path.ends_with("cluster.status")
            {
                missing.push(path.clone());
            }
            check(&path, inner, missing);
        }
        if schema["items"].is_object() {
            check(&format!("{path}[]"), &schema["items"], missing);
        }
    }
    let mut missing = Vec::new();
    for crd in oxidask_operator_api::crds() {
        let crd = serde_json::to_value(crd).unwrap();
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        check(
            crd["spec"]["names"]["kind"].as_str().unwrap(),
            schema,
            &mut missing,
        );
    }
    missing.retain(|path| !path.ends_with(".spec") && !path.ends_with(".status"));
    assert!(missing.is_empty(), "no description: {missing:#?}");
    assert_ne!(json!(null), json!(missing));
}

#[test]
fn no_default_of_an_experiment_breaks_its_own_bounds() {
    fn check(path: &str, schema: &Value, faults: &mut Vec<String>) {
        let default = &schema["default"];
        let too_short = default.as_array().map(Vec::len).is_some_and(|length| {
            schema["minItems"]
                .as_u64()
                .is_some_and(|least| (length as u64) < least)
        });
        let too_small = default.as_i64().is_some_and(|number| {
            schema["minimum"]
                .as_f64()
                .is_some_and(|least| (number as f64) < least)
        });
        if too_short || too_small {
            faults.push(format!("{path}: {default}"));
        }
        for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
            check(&format!("{path}.{name}"), inner, faults);
        }
        if schema["items"].is_object() {
            check(&format!("{path}[]"), &schema["items"], faults);
        }
    }
    let mut faults = Vec::new();
    for crd in oxidask_operator_api::crds() {
        let crd = serde_json::to_value(crd).unwrap();
        let kind = crd["spec"]["names"]["kind"].as_str().unwrap();
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        check(kind, schema, &mut faults);
    }
    assert_eq!(faults, Vec::<String>::new());
}
