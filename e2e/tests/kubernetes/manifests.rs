//! What the API server accepts with the stock CRDs it accepts with ours, and keeps as it was.
//!
//! Manifests are made at random from the schemas of the stock CRDs, nulls and wrong types included, and sent to both
//! without being stored. The stock CRDs come from an installed `dask_kubernetes`: `OXIDASK_PYTHON` names an
//! interpreter that can import it.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use http::Request;
use oxidask_e2e::{
    cluster::Cluster,
    namespace::{Namespace, with_temp_namespace},
    operator,
    random::Random,
    wait,
};
use serde_json::{Map, Value, json};

/// Manifests of each kind.
const EACH: usize = 150;

/// How long the API server may take until it serves a new type.
const SERVED_DEADLINE: Duration = Duration::from_secs(30);

/// The group under which the stock CRDs are installed beside ours.
const THEIRS: &str = "stock.oxidask.test";
const OURS: &str = "kubernetes.dask.org";

#[test]
fn manifests_that_the_stock_crds_accept_are_accepted_and_read_back_equal() {
    with_temp_namespace(async |namespace| {
        operator::ensure(&namespace.cluster).await?;
        let random = &mut Random::from_environment();
        let crds = stock_crds().await?;
        let outcome = compare_all(namespace, &crds, random).await;
        for crd in &crds {
            let name = crd["metadata"]["name"].as_str().unwrap_or_default();
            let delete = ["delete", "crd", name, "--ignore-not-found"];
            namespace.cluster.kubectl.run(&delete).await?;
        }
        outcome
    });
}

async fn compare_all(namespace: &Namespace, crds: &[Value], random: &mut Random) -> Result<()> {
    for crd in crds {
        let kubectl = &namespace.cluster.kubectl;
        kubectl
            .feed(&["apply", "--server-side", "-f", "-"], &crd.to_string())
            .await?;
        // A type is served a moment after it was made.
        let name = crd["metadata"]["name"].as_str().unwrap_or_default();
        wait::until(name, SERVED_DEADLINE, async || {
            let shown = kubectl.run(&["get", name, "-n", "default"]).await;
            Ok(shown.map(drop).map_err(|error| format!("{error:#}")))
        })
        .await?;
    }
    for crd in crds {
        let (mut accepted, mut refused) = (0, 0);
        let kind = crd["spec"]["names"]["kind"].as_str().context("no kind")?;
        let plural = crd["spec"]["names"]["plural"]
            .as_str()
            .context("no plural")?;
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
        for _ in 0..EACH {
            let spec = make(schema, random, 0, "spec");
            let theirs = dry_run(namespace, THEIRS, plural, kind, &spec).await?;
            let ours = dry_run(namespace, OURS, plural, kind, &spec).await?;
            match (theirs, ours) {
                (Ok(theirs), Ok(ours)) => {
                    accepted += 1;
                    ensure!(
                        theirs == ours,
                        "{kind} {spec} reads back as {theirs} and as {ours}"
                    );
                }
                (Ok(_), Err(why)) => bail!("{kind} {spec} is refused now: {why}"),
                (Err(_), _) => refused += 1,
            }
        }
        println!("{kind}: {accepted} accepted by both and equal, {refused} refused by stock");
        ensure!(
            accepted > EACH / 5,
            "{kind}: too few were accepted to say anything"
        );
    }
    Ok(())
}

/// What would be stored as the spec, or why it is refused.
async fn dry_run(
    namespace: &Namespace,
    group: &str,
    plural: &str,
    kind: &str,
    spec: &Value,
) -> Result<Result<Value, String>> {
    let Cluster { client, .. } = &namespace.cluster;
    let object = json!({
        "apiVersion": format!("{group}/v1"),
        "kind": kind,
        "metadata": {"name": "generated"},
        "spec": spec,
    });
    let path = format!(
        "/apis/{group}/v1/namespaces/{}/{plural}?dryRun=All",
        namespace.name
    );
    let request = Request::post(path)
        .header("content-type", "application/json")
        .body(object.to_string().into_bytes())?;
    Ok(match client.request::<Value>(request).await {
        Ok(mut stored) => Ok(stored["spec"].take()),
        Err(kube::Error::Api(status)) if (400..500).contains(&status.code) => {
            Err(status.message.clone())
        }
        Err(error) => return Err(error).context("the API server did not answer"),
    })
}

/// A value that a schema describes, rarely of another type.
fn make(schema: &Value, random: &mut Random, depth: usize, name: &str) -> Value {
    if random.below(1000) == 0 {
        return [json!(1), json!("text"), json!([]), json!({}), json!(true)][random.below(5)]
            .clone();
    }
    match schema["type"].as_str().unwrap_or_default() {
        "object" => make_object(schema, random, depth),
        "array" => {
            let count = if depth > 8 { 0 } else { random.below(3) };
            let mut items: Vec<Value> = (0..count)
                .map(|_| make(&schema["items"], random, depth + 1, name))
                .collect();
            // Lists that are keyed take each key once.
            if schema["x-kubernetes-list-type"] == "map" {
                items.truncate(1);
            }
            json!(items)
        }
        // Negative numbers of workers are refused by intent.
        "integer" if name == "replicas" => json!(random.below(100)),
        "integer" => json!(i64::try_from(random.below(70_000)).unwrap_or(0) - 100),
        "number" => json!(random.below(100)),
        "boolean" => json!(random.below(2) == 0),
        _ if schema["format"] == "date-time" => json!("2026-01-02T03:04:05Z"),
        _ => {
            let words = [
                "",
                "a",
                "100m",
                "1Gi",
                "tcp-comm",
                "8786",
                "50%",
                "ä b",
                "OnFailure",
            ];
            json!(words[random.below(words.len())])
        }
    }
}

fn make_object(schema: &Value, random: &mut Random, depth: usize) -> Value {
    let mut object = Map::new();
    let required = schema["required"].as_array().cloned().unwrap_or_default();
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let is_required = required.iter().any(|required| required == name);
        let wanted = if is_required {
            random.below(200) > 0
        } else {
            // Fewer and fewer with depth, or a pod would be a megabyte.
            random.below(3 + 2 * depth) == 0
        };
        // What must be there may be null as seldom as it may be missing.
        let is_null = random.below(if is_required { 200 } else { 14 }) == 0;
        if wanted && is_null {
            object.insert(name.clone(), Value::Null);
        } else if wanted {
            object.insert(name.clone(), make(property, random, depth + 1, name));
        }
    }
    if schema["additionalProperties"].is_object() {
        for key in ["a", "b/c"] {
            if random.below(2) == 0 {
                let value = make(&schema["additionalProperties"], random, depth + 1, key);
                object.insert(key.to_owned(), value);
            }
        }
    }
    if random.below(10) == 0 {
        object.insert("unheardOf".to_owned(), json!(1));
    }
    Value::Object(object)
}

/// The stock CRDs under a group of their own.
async fn stock_crds() -> Result<Vec<Value>> {
    let python =
        std::env::var_os("OXIDASK_PYTHON").map_or_else(|| PathBuf::from("python3"), PathBuf::from);
    let program = "
import importlib.util, json, pathlib, yaml
package = pathlib.Path(importlib.util.find_spec('dask_kubernetes').origin).parent
folder = package / 'operator/deployment/helm/dask-kubernetes-operator/crds'
print(json.dumps([yaml.safe_load(file.read_text()) for file in sorted(folder.glob('*.yaml'))]))
";
    let output = tokio::process::Command::new(&python)
        .args(["-c", program])
        .output()
        .await
        .with_context(|| format!("failed to start {}", python.display()))?;
    ensure!(
        output.status.success(),
        "{} cannot import dask_kubernetes and yaml: {}; set OXIDASK_PYTHON",
        python.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    let mut crds: Vec<Value> = serde_json::from_slice(&output.stdout)?;
    for crd in &mut crds {
        let plural = crd["spec"]["names"]["plural"].as_str().unwrap_or_default();
        crd["metadata"] = json!({"name": format!("{plural}.{THEIRS}")});
        crd["spec"]["group"] = json!(THEIRS);
        // Two resources of one short name would make kubectl warn.
        if let Some(names) = crd["spec"]["names"].as_object_mut() {
            names.remove("shortNames");
        }
    }
    Ok(crds)
}
