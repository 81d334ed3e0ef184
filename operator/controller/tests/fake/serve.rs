//! Requests and answers.

use bytes::Bytes;
use futures::StreamExt as _;
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

use super::objects::matches;
use super::{EVENTS, Fake, Fault, Path, State, patch};

type Answer = BoxBody<Bytes, std::convert::Infallible>;

/// A request, taken apart.
struct Asked {
    method: Method,
    kind: String,
    namespace: Option<String>,
    name: Option<String>,
    subresource: Option<String>,
    query: Vec<(String, String)>,
    content_type: String,
    body: Value,
}

/// A client of the fake server.
pub fn client(fake: &Fake) -> Client {
    client_of(fake, "operator")
}

/// A client of the fake server whose requests are told from others'.
pub fn client_of(fake: &Fake, who: &'static str) -> Client {
    let fake = fake.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        let fake = fake.clone();
        async move {
            let asked = take_apart(request).await;
            let is_lease = asked.kind.ends_with("/leases");
            if is_lease && fake.with(|state| state.cut_off == Some(who)) {
                return std::future::pending().await;
            }
            fake.with(|state| state.note(&asked));
            if asked.method != Method::GET && !is_lease {
                fake.with(|state| state.writers.push(who));
            }
            Ok::<_, tower::BoxError>(fake.answer(asked).await)
        }
    });
    Client::new(service, "ns")
}

async fn take_apart(request: Request<Body>) -> Asked {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let mut words = parts
        .uri
        .path()
        .trim_matches('/')
        .split('/')
        .map(str::to_owned);
    let root = words.next().unwrap();
    let group = if root == "api" {
        words.next().unwrap()
    } else {
        format!("{}/{}", words.next().unwrap(), words.next().unwrap())
    };
    let mut rest: Vec<String> = words.collect();
    let namespace =
        (rest.first().is_some_and(|word| word == "namespaces") && rest.len() > 2).then(|| {
            rest.remove(0);
            rest.remove(0)
        });
    let mut rest = rest.into_iter();
    let kind = match rest.next() {
        Some(plural) => format!("{group}/{plural}"),
        None => group,
    };
    let query = parts
        .uri
        .query()
        .unwrap_or_default()
        .split('&')
        .filter_map(|pair| {
            let (name, value) = pair.split_once('=')?;
            Some((name.to_owned(), decoded(value)))
        });
    Asked {
        method: parts.method,
        kind,
        namespace,
        name: rest.next(),
        subresource: rest.next(),
        query: query.collect(),
        content_type: parts
            .headers
            .get("content-type")
            .map(|v| v.to_str().unwrap().to_owned())
            .unwrap_or_default(),
        body: serde_json::from_slice(&body).unwrap_or_default(),
    }
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let hex = [rest.next().unwrap(), rest.next().unwrap()];
                u8::from_str_radix(std::str::from_utf8(&hex).unwrap(), 16).unwrap()
            }
            b'+' => b' ',
            byte => byte,
        });
    }
    String::from_utf8(bytes).unwrap()
}

impl Asked {
    fn parameter(&self, name: &str) -> Option<&str> {
        self.query
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    /// Terms of the label selector; commas inside parentheses do not separate.
    fn selector(&self) -> Vec<String> {
        let mut terms = vec![String::new()];
        let mut inside = false;
        for c in self.parameter("labelSelector").unwrap_or_default().chars() {
            inside = (inside || c == '(') && c != ')';
            match c {
                ',' if !inside => terms.push(String::new()),
                c => terms.last_mut().unwrap().push(c),
            }
        }
        terms.retain(|term| !term.is_empty());
        terms
    }

    fn path(&self) -> Path {
        let namespace = self.namespace.clone().unwrap_or_default();
        (
            self.kind.clone(),
            namespace,
            self.name.clone().unwrap_or_default(),
        )
    }

    fn is_watch(&self) -> bool {
        matches!(self.parameter("watch"), Some("true" | "1"))
    }
}

impl State {
    /// Notes which rights a request needs.
    fn note(&mut self, asked: &Asked) {
        let kind = match &asked.subresource {
            Some(subresource) => format!("{}/{subresource}", asked.kind),
            None => asked.kind.clone(),
        };
        let apply = asked.content_type.starts_with("application/apply-patch");
        if apply && !self.objects.contains_key(&asked.path()) {
            self.rights.insert((kind.clone(), "create"));
        }
        let verb = match (asked.method.as_str(), &asked.name) {
            ("GET", None) if asked.is_watch() => "watch",
            ("GET", None) => "list",
            ("GET", Some(_)) => "get",
            ("POST", _) => "create",
            ("PATCH", _) => "patch",
            _ => "delete",
        };
        self.rights.insert((kind, verb));
    }
}

impl Fake {
    async fn answer(&self, asked: Asked) -> Response<Answer> {
        if asked.method == Method::GET && asked.is_watch() {
            return self.watch(&asked);
        }
        let fault = self.with(|state| {
            if asked.kind == EVENTS {
                return None;
            }
            let path = asked.path();
            state
                .calls
                .push(format!("{} {} {}", asked.method, path.0, path.2));
            let (count, fault) = state.fault.as_mut()?;
            if *count > 0 {
                *count -= 1;
                return None;
            }
            let fault = *fault;
            state.fault = None;
            Some(fault)
        });
        match fault {
            Some(Fault::Status(code)) => return refusal(code, "injected"),
            Some(Fault::Hang) => return std::future::pending().await,
            Some(Fault::DieBefore) => self.die().await,
            Some(Fault::DieAfter) => {
                self.with(|state| carry_out(state, &asked));
                self.die().await;
            }
            None => {}
        }
        self.with(|state| carry_out(state, &asked))
    }

    async fn die(&self) {
        self.died.notify_one();
        std::future::pending::<()>().await;
    }

    fn watch(&self, asked: &Asked) -> Response<Answer> {
        let since = asked
            .parameter("resourceVersion")
            .and_then(|v| v.parse().ok())
            .unwrap_or(0);
        let what = (
            asked.kind.clone(),
            asked.namespace.clone(),
            asked.selector(),
        );
        let oldest = self.with(|state| state.oldest);
        if since < oldest {
            let expired = json!({"type": "ERROR", "object": {
                "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 410,
                "reason": "Expired", "message": "too old resource version",
            }});
            return answer(&expired);
        }
        let mut lines = self.with(|state| state.watch(what, since));
        let stream = futures::stream::poll_fn(move |context| lines.poll_recv(context));
        let frames = stream.map(|line: Bytes| Ok::<_, std::convert::Infallible>(Frame::data(line)));
        Response::new(BoxBody::new(StreamBody::new(frames)))
    }
}

fn answer(value: &Value) -> Response<Answer> {
    Response::new(Full::new(Bytes::from(value.to_string())).boxed())
}

fn refusal(code: u16, message: &str) -> Response<Answer> {
    let reason = match code {
        404 => "NotFound",
        409 => "Conflict",
        422 => "Invalid",
        429 => "TooManyRequests",
        _ => "InternalError",
    };
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "reason": reason, "code": code});
    let mut response = answer(&status);
    *response.status_mut() = StatusCode::from_u16(code).unwrap();
    response
}

fn carry_out(state: &mut State, asked: &Asked) -> Response<Answer> {
    if asked.kind == "kubernetes.dask.org/v1" {
        return answer(&resources(state));
    }
    if asked.kind == "oxidask.io/v1alpha1" {
        if state.without_experiments {
            return refusal(404, "no such group");
        }
        let names = ["scalingexperiments", "scalingexperiments/status"];
        return answer(&resource_list(
            "oxidask.io/v1alpha1",
            &names.map(str::to_owned),
        ));
    }
    let path = asked.path();
    if asked.subresource.as_deref() == Some("log") {
        let text = state.logs.get(&path.2).cloned().unwrap_or_default();
        return Response::new(Full::new(Bytes::from(text)).boxed());
    }
    match (asked.method.as_str(), &asked.name) {
        ("GET", None) => list(state, asked),
        ("GET", Some(_)) => match state.objects.get(&path) {
            Some(object) => answer(object),
            None => refusal(404, "not found"),
        },
        ("POST", _) if state.broken.contains(&path.0) => refusal(500, "etcd is away"),
        ("POST", _) if state.refused.contains(&path.0) => refusal(422, "it is invalid"),
        ("POST", _) => {
            let name = asked.body["metadata"]["name"].as_str().unwrap().to_owned();
            let path = (path.0, path.1, name);
            if state.objects.contains_key(&path) {
                return refusal(409, "already exists");
            }
            answer(&state.put(&path, asked.body.clone()))
        }
        ("PATCH", Some(_)) => patched(state, asked, &path),
        ("DELETE", Some(_)) => {
            let Some(object) = state.objects.get(&path).cloned() else {
                return refusal(404, "not found");
            };
            let uid = &asked.body["preconditions"]["uid"];
            if !uid.is_null() && *uid != object["metadata"]["uid"] {
                return refusal(409, "another uid");
            }
            state.delete(&path);
            answer(
                &json!({"kind": "Status", "apiVersion": "v1", "status": "Success", "metadata": {}}),
            )
        }
        (method, _) => panic!("the fake does not know {method} {path:?}"),
    }
}

fn list(state: &State, asked: &Asked) -> Response<Answer> {
    let selector = asked.selector();
    let items: Vec<&Value> = state
        .objects
        .iter()
        .filter(|(path, _)| {
            path.0 == asked.kind && asked.namespace.as_ref().is_none_or(|ns| path.1 == *ns)
        })
        .map(|(_, object)| object)
        .filter(|object| matches(&selector, object))
        .collect();
    let version = state.version().to_string();
    answer(
        &json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": version}, "items": items}),
    )
}

fn patched(state: &mut State, asked: &Asked, path: &Path) -> Response<Answer> {
    let apply = asked.content_type.starts_with("application/apply-patch");
    let old = state.objects.get(path).cloned();
    if old.is_none() && !apply {
        return refusal(404, "not found");
    }
    if old.is_none() && state.refused.contains(&path.0) {
        return refusal(422, "it is invalid");
    }
    let mut object = old.clone().unwrap_or_default();
    let wanted_version = asked.body["metadata"]["resourceVersion"].clone();
    if !wanted_version.is_null() && wanted_version != object["metadata"]["resourceVersion"] {
        return refusal(409, "another version");
    }
    match asked.content_type.as_str() {
        "application/json-patch+json" => patch::operations(&mut object, &asked.body),
        _ => patch::merge(&mut object, &asked.body),
    }
    // A kind with the subresource takes its status through that alone.
    let is_ours = path.0.starts_with("kubernetes.dask.org") || path.0.starts_with("oxidask.io");
    if is_ours && !state.without_status.contains(&path.0) {
        let old = old.unwrap_or_default();
        if asked.subresource.as_deref() == Some("status") {
            let status = object["status"].take();
            object = old;
            object["status"] = status;
        } else if let Value::Object(members) = &mut object {
            members.remove("status");
            if !old["status"].is_null() {
                members.insert("status".to_owned(), old["status"].clone());
            }
        }
    } else if asked.subresource.is_some() {
        return refusal(404, "no such subresource");
    }
    answer(&state.put(path, object))
}

fn resources(state: &State) -> Value {
    let mut names = Vec::new();
    for plural in [
        "daskclusters",
        "daskworkergroups",
        "daskjobs",
        "daskautoscalers",
    ] {
        names.push(plural.to_owned());
        if !state
            .without_status
            .contains(&format!("kubernetes.dask.org/v1/{plural}"))
        {
            names.push(format!("{plural}/status"));
        }
    }
    resource_list("kubernetes.dask.org/v1", &names)
}

fn resource_list(group: &str, names: &[String]) -> Value {
    let one = |name: &String| json!({"name": name, "singularName": "", "namespaced": true, "kind": "X", "verbs": []});
    let list: Vec<Value> = names.iter().map(one).collect();
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group, "resources": list})
}
