//! The schemas of Pod and Service specs: those of Kubernetes, made to fit.
//!
//! Taken from k8s-openapi, with upstream's defaults and list types put in and
//! every description taken out (they would make a CRD larger than client-side
//! `kubectl apply` can store).

use k8s_openapi::api::core::v1;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

/// The schema of a pod spec.
pub(crate) fn pod_spec(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = v1::PodSpec::json_schema(generator).to_value();
    strip_descriptions(&mut schema);
    for containers in ["containers", "initContainers"] {
        if let Some(ports) =
            schema.pointer_mut(&format!("/properties/{containers}/items/properties/ports"))
        {
            keyed_by(ports, &["containerPort", "protocol"]);
            default_protocol(ports);
        }
    }
    if let Some(spread) = schema.pointer_mut("/properties/topologySpreadConstraints") {
        keyed_by(spread, &["topologyKey", "whenUnsatisfiable"]);
    }
    relax_references(&mut schema);
    // Gone from Kubernetes' ObjectMeta, but accepted by upstream's CRD.
    if let Some(metadata) = schema.pointer_mut(
        "/properties/volumes/items/properties/ephemeral/properties/volumeClaimTemplate/properties/metadata/properties",
    ) {
        metadata["clusterName"] = json!({"type": "string"});
    }
    into_schema(schema)
}

/// References to objects by name, whose name upstream does not require.
const REFERENCES: [&str; 8] = [
    "configMap",
    "configMapKeyRef",
    "configMapRef",
    "imagePullSecrets",
    "nodePublishSecretRef",
    "secret",
    "secretKeyRef",
    "secretRef",
];

fn relax_references(schema: &mut Value) {
    for_each_schema(schema, &mut |node| {
        let Some(Value::Object(properties)) = node.get_mut("properties") else {
            return;
        };
        for (name, property) in properties {
            let optional = match name.as_str() {
                "hostAliases" => "ip",
                reference if REFERENCES.contains(&reference) => "name",
                _ => continue,
            };
            let node = match property.get_mut("items") {
                Some(items) => items,
                None => property,
            };
            if let Some(Value::Array(required)) = node.get_mut("required") {
                required.retain(|name| name != optional);
            }
        }
    });
}

/// The schema of a Service spec.
pub(crate) fn service_spec(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = v1::ServiceSpec::json_schema(generator).to_value();
    strip_descriptions(&mut schema);
    if let Some(ports) = schema.pointer_mut("/properties/ports") {
        keyed_by(ports, &["port", "protocol"]);
        default_protocol(ports);
    }
    for list in ["clusterIPs", "ipFamilies"] {
        if let Some(list) = schema.pointer_mut(&format!("/properties/{list}")) {
            list["x-kubernetes-list-type"] = json!("atomic");
        }
    }
    // Gone from Kubernetes since 1.22, but manifests with it are accepted by
    // upstream's CRD.
    if let Some(Value::Object(properties)) = schema.pointer_mut("/properties") {
        properties.insert(
            "topologyKeys".to_owned(),
            json!({"type": "array", "items": {"type": "string"}}),
        );
    }
    into_schema(schema)
}

fn keyed_by(list: &mut Value, keys: &[&str]) {
    list["x-kubernetes-list-type"] = json!("map");
    list["x-kubernetes-list-map-keys"] = json!(keys);
}

fn default_protocol(ports: &mut Value) {
    ports["items"]["properties"]["protocol"]["default"] = json!("TCP");
}

/// Removes every `description` of a schema, but not properties of that name.
pub(crate) fn strip_descriptions(schema: &mut Value) {
    for_each_schema(schema, &mut |node| {
        node.remove("description");
    });
}

/// Calls `visit` for a schema and every schema inside it.
pub(crate) fn for_each_schema(schema: &mut Value, visit: &mut impl FnMut(&mut Map<String, Value>)) {
    let Value::Object(node) = schema else {
        return;
    };
    visit(node);
    if let Some(Value::Object(properties)) = node.get_mut("properties") {
        for property in properties.values_mut() {
            for_each_schema(property, visit);
        }
    }
    for inner in ["items", "additionalProperties", "not"] {
        if let Some(inner) = node.get_mut(inner) {
            for_each_schema(inner, visit);
        }
    }
    for many in ["allOf", "anyOf", "oneOf"] {
        if let Some(Value::Array(inners)) = node.get_mut(many) {
            for inner in inners {
                for_each_schema(inner, visit);
            }
        }
    }
}

fn into_schema(value: Value) -> Schema {
    Schema::try_from(value).expect("a schema with changed members is still an object")
}
