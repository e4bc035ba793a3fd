//! `/openapi.json`: the endpoints as `OpenAPI` 3.1 describes them, made of their list and of the configuration in force.

use axum::http::request::Parts;
use serde_json::{Map, Value, json};

use super::address;
use super::board::{LIVENESS, Setup};
use super::endpoints::{ENDPOINTS, Endpoint, HEALTHZ};
use super::formats::FORMS;

/// What the description says of its own version where versions are not told.
const NO_VERSION: &str = "unknown";

/// The description, with no more in it than this configuration serves, for who has asked so.
pub fn document(setup: &Setup, head: &Parts) -> Value {
    let version = if setup.server.expose_version { env!("CARGO_PKG_VERSION") } else { NO_VERSION };
    let paths: Map<_, _> = ENDPOINTS
        .iter()
        .filter(|endpoint| (endpoint.is_there)(setup, LIVENESS))
        .map(|endpoint| (endpoint.path.to_owned(), path(endpoint, setup)))
        .collect();
    let mut document = json!({
        "openapi": "3.1.0",
        "info": { "title": "checker", "version": version },
        // Where this description is: under a secret path too, and wherever the endpoints are mounted.
        "servers": [{ "url": if address::path(head).ends_with('/') { ".." } else { "." } }],
        "paths": paths,
        "components": { "schemas": schemas() },
    });
    if !setup.server.access.token.expose().is_empty() {
        document["components"]["securitySchemes"] = json!({
            "token": { "type": "apiKey", "in": "header", "name": "X-Probe-Token" },
            "bearer": { "type": "http", "scheme": "bearer" },
        });
        document["security"] = json!([{ "token": [] }, { "bearer": [] }]);
    }
    document
}

fn path(endpoint: &Endpoint, setup: &Setup) -> Value {
    let operation = |method: &str| {
        let id = endpoint.path.trim_matches('/').replace(['/', '{', '}', '.'], "-");
        let mut operation = json!({
            "operationId": format!("{method}-{id}"),
            "summary": endpoint.about,
            "responses": responses(endpoint, setup, method == "get"),
        });
        if endpoint.path == HEALTHZ && !setup.server.access.protect_healthz {
            operation["security"] = json!([]);
        }
        operation
    };
    json!({ "parameters": parameters(endpoint, setup), "get": operation("get"), "head": operation("head") })
}

fn parameters(endpoint: &Endpoint, setup: &Setup) -> Value {
    let mut parameters = Vec::new();
    let media = (endpoint.media)();
    let formats: Vec<_> =
        FORMS.iter().filter(|form| media.contains(&form.media)).map(|form| form.name).collect();
    if !formats.is_empty() {
        parameters.push(json!({ "name": "format", "in": "query", "description": "The format, in place of `Accept`.", "schema": { "enum": formats } }));
    }
    if endpoint.path.contains('{') {
        let mut names: Vec<_> = setup.subsets().collect();
        if !names.contains(&LIVENESS) {
            names.push(LIVENESS);
        }
        // Names are details.
        let schema =
            if setup.shown().reasons { json!({ "enum": names }) } else { json!({ "type": "string" }) };
        parameters.push(json!({ "name": "subset", "in": "path", "required": true, "schema": schema }));
    }
    parameters.into()
}

fn responses(endpoint: &Endpoint, setup: &Setup, with_body: bool) -> Value {
    let own = (endpoint.media)();
    let (error, nothing) = (vec!["application/json"], Vec::new());
    // Who waits for checks, and who follows a stream, needs a place.
    let needs_place = endpoint.fails || own.contains(&"text/event-stream");
    let mut answers = vec![(200, "It passes, or it is what was asked for.", &own, endpoint.schema)];
    if endpoint.fails {
        answers.push((setup.server.failure_status, "It does not pass.", &own, endpoint.schema));
    }
    if needs_place {
        answers.push((503, "Too many wait already; `Retry-After` says when to ask again.", &error, "Error"));
    }
    answers.extend([
        (403, "It may not be asked from here, or without the token.", &error, "Error"),
        (404, "There is nothing at this path.", &error, "Error"),
        (406, "There is no such format here.", &error, "Error"),
        (400, "It is no question of HTTP.", &nothing, ""),
        (431, "Its head is too large.", &nothing, ""),
    ]);
    let mut responses = Map::new();
    for (status, about, media, schema) in answers {
        let response = responses.entry(status.to_string()).or_insert_with(|| json!({}));
        let before = response["description"].as_str().map(|before| format!("{before} Or: {about}"));
        response["description"] = before.unwrap_or_else(|| about.to_owned()).into();
        for media in media.iter().filter(|_| with_body) {
            let schema = if *media == "application/json" { reference(schema) } else { json!({}) };
            let told = &mut response["content"][*media]["schema"];
            *told = if told.is_null() { schema } else { json!({ "anyOf": [told.take(), schema] }) };
        }
    }
    if needs_place {
        responses["503"]["headers"] = json!({ "Retry-After": { "schema": { "type": "integer" } } });
    }
    responses.into()
}

fn reference(schema: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{schema}") })
}

fn schemas() -> Value {
    let text = json!({ "type": "string" });
    let words = json!({ "enum": ["ok", "warning", "fail", "unknown"] });
    json!({
        "Error": { "type": "object", "required": ["error"], "properties": { "error": text } },
        "Report": {
            "type": "object",
            "required": ["status", "checks"],
            "properties": {
                "status": { "enum": ["ok", "warning", "fail", "ready", "not_ready", "started", "not_started"] },
                "checks": { "type": "object", "additionalProperties": { "oneOf": [words, { "$ref": "#/components/schemas/Check" }] } },
            },
        },
        "Check": {
            "type": "object",
            "required": ["status"],
            "properties": {
                "status": words,
                "reason": { "type": ["string", "null"] },
                "duration_ms": { "type": "number", "minimum": 0 },
            },
        },
        "Version": {
            "type": "object",
            "required": ["service", "environment", "version"],
            "additionalProperties": { "type": ["string", "null"] },
        },
        "Document": { "type": "object", "required": ["openapi", "info", "paths"] },
    })
}
