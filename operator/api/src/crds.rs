//! The CRDs: what the types derive to, made a superset of upstream's.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::{Value, json};

use crate::experiment::MAX_CELLS;
use crate::pod_schema::{for_each_schema, strip_descriptions};
use crate::{DaskAutoscaler, DaskCluster, DaskJob, DaskWorkerGroup, ScalingExperiment};

/// The five CRDs, as `cargo xtask crds` writes them.
///
/// # Panics
/// Never: the input is derived from this crate's types, and a test builds it.
pub fn crds() -> Vec<CustomResourceDefinition> {
    [
        fit(DaskCluster::crd(), &[]),
        fit(DaskWorkerGroup::crd(), &[ROOT]),
        fit(DaskJob::crd(), &[ROOT, "/properties/spec/properties/job"]),
        fit(DaskAutoscaler::crd(), &[ROOT]),
        fit(ScalingExperiment::crd(), &[]),
    ]
    .into()
}

/// The schema node of the resource itself.
const ROOT: &str = "";

/// Turns a derived CRD into one that accepts what upstream's accepts.
///
/// `spec_optional`: the nodes that do not require their property `spec`.
fn fit(crd: CustomResourceDefinition, spec_optional: &[&str]) -> CustomResourceDefinition {
    let mut crd = serde_json::to_value(crd).expect("a CRD is plain data");
    let is_job = crd["spec"]["names"]["kind"] == "DaskJob";
    let is_experiment = crd["spec"]["names"]["kind"] == "ScalingExperiment";
    let schema = &mut crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    for_each_schema(schema, &mut |node| {
        // The API server drops a null where a field is not nullable, or puts
        // the default in its place; clients send nulls and count on that.
        node.remove("nullable");
        // Only bounds that we state ourselves, never those of a Rust type.
        if node.get("type") == Some(&json!("integer")) {
            node.remove("format");
        }
        // The default of a whole object comes from Rust's `Default`; the API
        // server would put it where the user wrote nothing.
        if node.get("default").is_some_and(Value::is_object)
            || node.get("default") == Some(&json!(""))
        {
            node.remove("default");
        }
    });
    // kube's own text for the root says nothing; the spec's says what it is.
    schema["description"] = schema["properties"]["spec"]["description"].take();
    schema["properties"]["spec"]["description"] = json!("What is wanted.");
    require(schema);
    for spec in [
        "/properties/spec",
        "/properties/spec/properties/cluster/properties/spec",
    ] {
        if let Some(timeout) = schema.pointer_mut(&format!("{spec}/properties/idleTimeout")) {
            timeout["default"] = json!(0);
        }
    }
    for node in spec_optional {
        let node = schema
            .pointer_mut(node)
            .expect("the node is one of our types");
        if let Some(Value::Array(required)) = node.get_mut("required") {
            required.retain(|name| name != "spec");
        }
    }
    if let Some(conditions) = schema.pointer_mut("/properties/status/properties/conditions/items") {
        strip_descriptions(conditions);
    }
    if is_job {
        fit_job(schema);
    }
    if is_experiment {
        fit_experiment(schema);
    }
    for_each_schema(schema, &mut |node| {
        if node.get("required").is_some_and(|r| r == &json!([])) {
            node.remove("required");
        }
    });
    serde_json::from_value(crd).expect("the changes keep the form of a CRD")
}

/// States which properties upstream requires. Rust's types have a default for
/// all of them, so that whatever is stored can be read.
fn require(schema: &mut Value) {
    let spec = "/properties/spec/properties";
    for (node, required) in [
        ("".to_owned(), vec!["spec"]),
        ("/properties/spec".to_owned(), required_of_spec(schema)),
        (format!("{spec}/worker"), vec!["spec"]),
        (format!("{spec}/scheduler"), vec!["spec", "service"]),
        (format!("{spec}/cluster"), vec!["spec"]),
        (
            format!("{spec}/cluster/properties/spec"),
            vec!["scheduler", "worker"],
        ),
        (
            format!("{spec}/cluster/properties/spec/properties/worker"),
            vec!["spec"],
        ),
        (
            format!("{spec}/cluster/properties/spec/properties/scheduler"),
            vec!["spec", "service"],
        ),
        ("/properties/status".to_owned(), vec![]),
    ] {
        if let Some(Value::Object(node)) = schema.pointer_mut(&node)
            && node.get("type") == Some(&json!("object"))
        {
            node.insert("required".to_owned(), json!(required));
        }
    }
}

fn required_of_spec(schema: &Value) -> Vec<&'static str> {
    let has = |name: &str| {
        schema["properties"]["spec"]["properties"]
            .get(name)
            .is_some()
    };
    // An autoscaler's limits are optional here: KubeCluster.adapt() without
    // arguments sends none.
    let mut required: Vec<&'static str> = Vec::new();
    for name in ["scheduler", "worker", "cluster", "job"] {
        if has(name) {
            required.push(name);
        }
    }
    required
}

/// Upstream's particulars of DaskJob.
fn fit_job(schema: &mut Value) {
    schema["properties"]["spec"]["properties"]["job"]["properties"]["spec"]["properties"]["restartPolicy"]
        ["default"] = json!("OnFailure");
    let status = &mut schema["properties"]["status"];
    status["required"] = json!(["jobStatus"]);
    for name in ["jobStatus", "jobRunnerPodName", "startTime", "endTime"] {
        status["properties"][name]["nullable"] = json!(true);
    }
    for name in ["startTime", "endTime"] {
        status["properties"][name]["format"] = json!("date-time");
    }
    // As upstream: the status of the embedded cluster is accepted, not read.
    schema["properties"]["spec"]["properties"]["cluster"]["properties"]["status"] = json!({
        "type": "object",
        "properties": {"phase": {"type": "string"}},
    });
}

/// What the API server checks of a ScalingExperiment. Rules compare fields of
/// bounded size only, so that their cost stays far below what it allows.
fn fit_experiment(schema: &mut Value) {
    let spec = &mut schema["properties"]["spec"];
    spec["required"] = json!(["cluster", "cores", "nodes", "sizes", "workload"]);
    spec["x-kubernetes-validations"] = json!([
        {
            "rule": format!("self.sizes.size() * self.nodes.size() * self.cores.size() * self.repeats <= {MAX_CELLS}"),
            "message": format!("sizes × nodes × cores × repeats may be {MAX_CELLS} cells at most"),
        },
        {
            "rule": "!has(self.workload.python) || (has(self.runner) && has(self.runner.spec))",
            "message": "the workload python needs spec.runner.spec, the pod of the program",
        },
    ]);
    let fields = &mut spec["properties"];
    fields["workload"]["x-kubernetes-validations"] = json!([{
        "rule": "[has(self.matmul), has(self.pi), has(self.python)].exists_one(given, given)",
        "message": "give exactly one of matmul, pi and python",
    }]);
    for name in ["workload", "sizes", "nodes", "cores", "repeats", "spread"] {
        let field = &mut fields[name];
        if !field["x-kubernetes-validations"].is_array() {
            field["x-kubernetes-validations"] = json!([]);
        }
        if let Some(rules) = field["x-kubernetes-validations"].as_array_mut() {
            rules.push(json!({
                "rule": "self == oldSelf",
                "message": "cannot be changed: delete the experiment and create another",
            }));
        }
        if field["type"] == "array" {
            // No number twice: it would be the same cell.
            field["x-kubernetes-list-type"] = json!("set");
        }
    }
    // What is required has no default: an empty list would not be valid.
    for name in ["sizes", "nodes", "cores"] {
        if let Value::Object(field) = &mut fields[name] {
            field.remove("default");
        }
    }
    // Left out of an update they would else count as changed.
    fields["repeats"]["default"] = json!(1);
    fields["spread"]["default"] = json!("Required");
}
