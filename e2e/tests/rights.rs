//! The rights that the chart gives the operator are those that it uses, seen in the API server's audit log.
//!
//! Runs after all other tests, which make the operator do all that it ever does.

use std::{collections::BTreeSet, fs};

use anyhow::{Context, Result, ensure};
use oxidask_e2e::{
    cluster::{self, Cluster},
    operator,
};
use serde_json::Value;

/// API group, resource with its subresource, verb.
type Right = (String, String, String);

/// Rights that no test on this cluster uses, and what needs them: resource, verbs, reason.
const ELSEWHERE: &[(&str, &[&str], &str)] = &[
    ("daskclusters/finalizers", &["update"], OWNERS),
    ("daskworkergroups/finalizers", &["update"], OWNERS),
    ("daskjobs/finalizers", &["update"], OWNERS),
    ("scalingexperiments/finalizers", &["update"], OWNERS),
];
const OWNERS: &str = "owner references are checked on OpenShift only";

#[test]
fn operator_uses_every_right_that_its_role_gives_and_is_refused_none() {
    cluster::run(async |cluster| {
        let Some(path) = &cluster.audit_log else {
            println!("no audit log: this needs the cluster of `cargo xtask kind up`");
            return Ok(());
        };
        let log = fs::read_to_string(path)
            .with_context(|| format!("failed to read {}", path.display()))?;
        let asked = asked(&log)?;
        ensure!(!asked.used.is_empty(), "the operator asked for nothing");
        // While a release is uninstalled, its role goes before its pods: what was allowed at other times is given.
        let refused: Vec<_> = asked.refused.difference(&asked.used).collect();
        ensure!(refused.is_empty(), "refused: {refused:#?}");
        let given = given(&cluster).await?;
        let unused: Vec<_> = given
            .difference(&asked.used)
            .filter(|(_, resource, verb)| !is_used_elsewhere(resource, verb))
            .collect();
        ensure!(unused.is_empty(), "given and never used: {unused:#?}");
        let listed = |(_, resource, verb): &&Right| is_used_elsewhere(resource, verb);
        let stale: Vec<_> = asked.used.iter().filter(listed).collect();
        ensure!(stale.is_empty(), "used, and listed as not used: {stale:#?}");
        Ok(())
    });
}

fn is_used_elsewhere(resource: &str, verb: &str) -> bool {
    ELSEWHERE
        .iter()
        .any(|(of, verbs, _)| *of == resource && verbs.contains(&verb))
}

/// What the audit log says of our operator's requests.
#[derive(Default)]
struct Asked {
    used: BTreeSet<Right>,
    refused: BTreeSet<Right>,
}

fn asked(log: &str) -> Result<Asked> {
    let user = format!("system:serviceaccount:{}:operator", operator::NAMESPACE);
    let mut asked = Asked::default();
    for line in log.lines() {
        let event: Value = serde_json::from_str(line).context("a line is not JSON")?;
        let object = &event["objectRef"];
        if event["user"]["username"] != user.as_str() || object["resource"].is_null() {
            continue;
        }
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let mut resource = text(&object["resource"]);
        if let Some(part) = object["subresource"].as_str() {
            resource = format!("{resource}/{part}");
        }
        let right = (text(&object["apiGroup"]), resource, text(&event["verb"]));
        let allowed = event["annotations"]["authorization.k8s.io/decision"] == "allow";
        if !allowed {
            asked.refused.insert(right);
            continue;
        }
        if right.2 == "patch" {
            // Server-side apply makes what is not there, for which the API server wants the right to create.
            let (group, resource, _) = right.clone();
            asked.used.insert((group, resource, "create".to_owned()));
        }
        asked.used.insert(right);
    }
    Ok(asked)
}

/// Every combination that the roles bound to the operator's account name.
async fn given(cluster: &Cluster) -> Result<BTreeSet<Right>> {
    let words = ["get", "clusterrole/operator-role-cluster", "-o", "json"];
    let role = cluster.kubectl.run(&words).await?;
    let role: Value = serde_json::from_str(&role).context("kubectl printed no JSON")?;
    let mut rights = BTreeSet::new();
    for rule in role["rules"].as_array().context("the role has no rules")? {
        let words = |field: &str| -> Vec<String> {
            let values = rule[field].as_array().into_iter().flatten();
            values
                .filter_map(|value| value.as_str().map(str::to_owned))
                .collect()
        };
        for group in words("apiGroups") {
            for resource in words("resources") {
                for verb in words("verbs") {
                    rights.insert((group.clone(), resource.clone(), verb));
                }
            }
        }
    }
    Ok(rights)
}
